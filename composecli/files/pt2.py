"""The contract that a torch.export archive states in its JSON, read without torch and without weights.

Source of the format: `torch/_export/serde/schema.py`, schema major version 8. What cannot be read makes the
contract None, never a guess: the model is then probed as any other.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from composecli.core.contract import (
    Contract,
    Evidence,
    EvidenceKind,
    Port,
    fresh_name,
    input_name,
    output_name,
)
from composecli.core.dims import Derived, Dim, Fixed, Free, Shape, Unknown, as_dim
from composecli.core.pytree import (
    Argument,
    Call,
    KeyPath,
    Literal,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
    call_leaves,
    leaves,
)
from composecli.core.size_expr import Const, Expr, Symbol, add, floor_divide, multiply, substitute
from composecli.files.archive import Archive, NotAnArchive

DTYPE_CODES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 29: "float8_e4m3fn", 30: "float8_e5m2",
}  # fmt: skip
UNBOUNDED = 2**31


def _programs(archive: Archive) -> list[str]:
    return [name for name in archive.names if name.startswith("models/") and name.endswith(".json")]


def foreign_types(archive: Archive) -> tuple[str, ...]:
    """The classes of other libraries that the archive takes or returns: it loads only where these are imported."""
    found = dict[str, None]()
    for name in _programs(archive):
        try:
            calls = archive.json(name)["graph_module"]["module_call_graph"]
            signature = calls[0]["signature"]
            todo = [json.loads(signature["in_spec"])[1], json.loads(signature["out_spec"])[1]]
        except (NotAnArchive, *_MALFORMED):
            continue
        while todo:
            spec = todo.pop()
            kind = spec.get("type") if isinstance(spec, dict) else None
            if isinstance(kind, str) and kind.partition(".")[0] not in (
                "builtins",
                "torch",
                "collections",
            ):
                found[kind] = None
            todo += spec.get("children_spec") or [] if isinstance(spec, dict) else []
    return tuple(found)


class _Unreadable(Exception):
    pass


# What JSON of another shape than the schema's ends in.
_MALFORMED = (
    _Unreadable, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, StopIteration,
)  # fmt: skip


def exported_contract(archive: Archive) -> Contract | None:
    """The contract with its ranges, the example being the sizes that the export was made with."""
    try:
        names = _programs(archive)
        if len(names) != 1:
            return None
        return _Program(archive.json(names[0])).contract()
    except (NotAnArchive, *_MALFORMED):
        return None


@dataclass(frozen=True, slots=True)
class _Sized:
    spec: TensorSpec
    dims: Shape


@dataclass
class _Program:
    """One program's JSON, and the readable names given to its symbols."""

    data: Any
    names: dict[str, Free] = field(default_factory=dict)

    def contract(self) -> Contract:
        module = self.data["graph_module"]
        signature = module["module_call_graph"][0]["signature"]
        specs = module["signature"]
        inputs = [found for entry in specs["input_specs"] for found in _given(entry)]
        outputs = [
            entry["user_output"]["arg"] for entry in specs["output_specs"] if "user_output" in entry
        ]
        example, input_dims = self._call(signature, inputs)
        result, output_dims = self._tree(json.loads(signature["out_spec"])[1], iter(outputs))
        return Contract(
            tuple(
                Port(input_name(path, _argument(example, path, signature)), path, spec.dtype, dims)
                for (path, spec), dims in zip(call_leaves(example), input_dims, strict=True)
            ),
            tuple(
                Port(output_name(path), path, spec.dtype, dims)
                for (path, spec), dims in zip(leaves(result), output_dims, strict=True)
            ),
            example,
            result,
            (Evidence(EvidenceKind.EXPORTED),),
        )

    def _call(self, signature: Any, arguments: list[Any]) -> tuple[Call, list[Shape]]:
        positional, named = json.loads(signature["in_spec"])[1]["children_spec"]
        todo, dims = iter(arguments), list[Shape]()
        found = list[Argument]()
        for child in positional["children_spec"]:
            tree, more = self._tree(child, todo)
            found.append(Argument(tree))
            dims += more
        for key, child in zip(_context(named), named["children_spec"], strict=True):
            tree, more = self._tree(child, todo)
            found.append(Argument(tree, key))
            dims += more
        return Call(tuple(found)), dims

    def _tree(self, spec: Any, values: Iterator[Any]) -> tuple[Tree, list[Shape]]:
        kind, children = spec["type"], spec["children_spec"]
        if kind is None:
            return self._leaf(next(values))
        parts = [self._tree(child, values) for child in children]
        trees = tuple(tree for tree, _ in parts)
        dims = [shape for _, shapes in parts for shape in shapes]
        name = kind.rsplit(".", 1)[-1]
        if name in ("tuple", "list", "immutable_list"):
            return TreeSequence("tuple" if name == "tuple" else "list", trees), dims
        keys = _context(spec)
        if isinstance(keys, list) and len(keys) == len(trees):
            return TreeMapping(
                tuple(zip(map(str, keys), trees, strict=True)), "dict" if "dict" in name else name
            ), dims
        raise _Unreadable(kind)

    def _leaf(self, value: Any) -> tuple[Tree, list[Shape]]:
        if "as_tensor" in value:
            sized = self._tensor(value["as_tensor"]["name"])
            return sized.spec, [sized.dims]
        for key in ("as_int", "as_float", "as_bool", "as_string"):
            if key in value:
                return Literal(value[key]), []
        if "as_none" in value:
            return Literal(None), []
        raise _Unreadable(str(value))

    def _tensor(self, name: str) -> _Sized:
        meta = self.data["graph_module"]["graph"]["tensor_values"][name]
        sizes = meta["sizes"]
        spec = TensorSpec(DTYPE_CODES[meta["dtype"]], tuple(_hint(size) for size in sizes))
        dims = tuple(self._dim(size, axis, spec) for axis, size in enumerate(sizes))
        return _Sized(spec, dims)

    def _dim(self, size: Any, axis: int, spec: TensorSpec) -> Dim:
        if "as_int" in size:
            return Fixed(size["as_int"])
        try:
            expr = _expr(ast.parse(size["as_expr"]["expr_str"], mode="eval").body)
        except (_Unreadable, SyntaxError) as error:
            return Unknown(f"the export states it as {error}")
        if isinstance(expr, Symbol):
            return self._named(expr.name, axis, spec)
        renamed = substitute(expr, {old: Symbol(free.name) for old, free in self.names.items()})
        return as_dim(renamed) if isinstance(renamed, Const) else Derived(renamed)

    def _named(self, symbol: str, axis: int, spec: TensorSpec) -> Free:
        if symbol not in self.names:
            name = fresh_name(spec, axis, {free.name for free in self.names.values()})
            self.names[symbol] = self._free(symbol, name)
        return self.names[symbol]

    def _free(self, symbol: str, name: str) -> Free:
        bounds = self.data["range_constraints"].get(symbol, {})
        low, high = bounds.get("min_val"), bounds.get("max_val")
        return Free(name, max(1, low or 1), high if high is not None and high < UNBOUNDED else None)


def size_of(size: Any) -> Expr | None:
    """A size of the schema as an expression; None where it is one that is not understood."""
    if "as_int" in size:
        return Const(size["as_int"])
    try:
        return _expr(ast.parse(size["as_expr"]["expr_str"], mode="eval").body)
    except (_Unreadable, SyntaxError):
        return None


def ranges_of(data: Any) -> dict[str, tuple[int | None, int | None]]:
    """The least and the largest value of each symbol, None where there is no bound."""
    bounds = {
        symbol: (held.get("min_val"), held.get("max_val"))
        for symbol, held in data["range_constraints"].items()
    }
    return {
        symbol: (low, high if high is not None and high < UNBOUNDED else None)
        for symbol, (low, high) in bounds.items()
    }


def _given(entry: Any) -> Iterator[Any]:
    """What a caller gives for an input of the graph: a tensor, a number; nothing for parameters and buffers."""
    if "user_input" in entry:
        yield entry["user_input"]["arg"]
    elif "constant_input" in entry:
        yield entry["constant_input"]["value"]


def _context(spec: Any) -> Any:
    """The keys of a dict or of a library's object: as JSON inside the JSON, or plain, as its library dumps them."""
    context = spec["context"]
    return json.loads(context) if isinstance(context, str) else context


def _hint(size: Any) -> int:
    value = size["as_int"] if "as_int" in size else size["as_expr"]["hint"]["as_int"]
    if not isinstance(value, int) or value < 0:
        raise _Unreadable("a size without an example")
    return value


def _argument(call: Call, path: KeyPath, signature: Any) -> str | None:
    number = path[0]
    assert isinstance(number, int)
    names = signature.get("forward_arg_names") or []
    return call.arguments[number].name or (names[number] if number < len(names) else None)


def _expr(node: ast.expr) -> Expr:
    """A sympy expression as `srepr` writes it; only sums, products and floor divisions of symbols and integers."""
    match node:
        case ast.Call(ast.Name("Symbol"), [ast.Constant(str(name))]):
            return Symbol(name)
        case ast.Call(ast.Name("Integer"), [ast.Constant(int(value))]):
            return Const(value)
        case ast.Call(ast.Name("Integer"), [ast.UnaryOp(ast.USub(), ast.Constant(int(value)))]):
            return Const(-value)
        case ast.Call(ast.Name("Add"), terms):
            return add(*map(_expr, terms))
        case ast.Call(ast.Name("Mul"), factors):
            return multiply(*map(_expr, factors))
        case ast.Call(ast.Name("FloorDiv"), [above, below]):
            by = _expr(below)
            if isinstance(by, Const) and by.value > 0:
                return floor_divide(_expr(above), by.value)
    raise _Unreadable(ast.unparse(node))
