"""The contract that a torch.export archive states, read without torch and without weights.

A program that is not understood has no contract, never a guessed one: the model is then probed like
any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from composecli.core.contract import (
    Contract,
    Evidence,
    EvidenceKind,
    Port,
    fresh_name,
    input_name,
    output_names,
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
from composecli.core.size_expr import Const, Symbol, substitute
from composecli.files.archive import Archive, NotAnArchive
from composecli.files.pt2_layout import (
    MALFORMED,
    ExportedProgram,
    GraphModule,
    ModuleCallSignature,
    SymInt,
    dtype_of,
    parse_floats,
    program_members,
)
from composecli.files.pt2_sizes import Range, UnknownExpression, parse_size, ranges_of

_KNOWN_PACKAGES = ("builtins", "torch", "collections")
_LITERALS = ("as_int", "as_bool", "as_string")


class _Unreadable(Exception):
    """The program has a part that is not understood here."""


def foreign_types(archive: Archive) -> tuple[str, ...]:
    """Return the classes of other libraries in the model's inputs and outputs.

    The archive can only be loaded once these are imported.
    """
    types = dict[str, None]()
    for member in program_members(archive):
        try:
            signature = _signature(archive.json(member)["graph_module"])
            in_spec = json.loads(signature["in_spec"])[1]
            out_spec = json.loads(signature["out_spec"])[1]
        except (NotAnArchive, *MALFORMED):
            continue
        foreign = _foreign_types_of([in_spec, out_spec])
        types.update(dict.fromkeys(foreign))
    return tuple(types)


def _foreign_types_of(specs: list[Any]) -> Iterator[str]:
    """Yield the type of each node, at any depth, that another package defines."""
    stack = list(specs)
    while stack:
        spec = stack.pop()
        if not isinstance(spec, dict):
            continue
        kind = spec.get("type")
        if isinstance(kind, str):
            package = kind.partition(".")[0]
            if package not in _KNOWN_PACKAGES:
                yield kind
        stack += spec.get("children_spec") or []


def exported_contract(archive: Archive) -> Contract | None:
    """Return the contract with its ranges; its example has the sizes that the export was made with.

    None if the program is not understood, or the archive has several.
    """
    try:
        members = program_members(archive)
        if len(members) != 1:
            return None
        return _ContractReader(archive.json(members[0])).contract()
    except (NotAnArchive, _Unreadable, *MALFORMED):
        return None


def _signature(module: GraphModule) -> ModuleCallSignature:
    """Return the structure of a call of the whole model."""
    return module["module_call_graph"][0]["signature"]


class _TreeDims(NamedTuple):
    """A tree, and the shape of each of its tensors."""

    tree: Tree
    shapes: list[Shape]


@dataclass
class _ContractReader:
    """Reads one program, and gives readable names to its symbols: `s0` becomes `N`."""

    program: ExportedProgram
    names: dict[str, Free] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)

    def contract(self) -> Contract:
        """Return the contract of the program."""
        self.ranges = ranges_of(self.program)
        module = self.program["graph_module"]
        signature = _signature(module)
        example, input_shapes = self._read_call(signature, _inputs(module))
        out_spec = json.loads(signature["out_spec"])[1]
        result, output_shapes = self._read_tree(out_spec, iter(_outputs(module)))
        inputs = list[Port]()
        for (path, spec), dims in zip(call_leaves(example), input_shapes, strict=True):
            argument = _argument_name(example, path, signature)
            name = input_name(path, argument)
            inputs.append(Port(name, path, spec.dtype, dims))
        names = output_names(result)
        outputs = list[Port]()
        for (path, spec), dims in zip(leaves(result), output_shapes, strict=True):
            outputs.append(Port(names[path], path, spec.dtype, dims))
        evidence = (Evidence(EvidenceKind.EXPORTED),)
        return Contract(tuple(inputs), tuple(outputs), example, result, evidence)

    def _read_call(
        self, signature: ModuleCallSignature, inputs: Sequence[Any]
    ) -> tuple[Call, list[Shape]]:
        """Return the example call, and the dims of its tensors in order."""
        positional, named = json.loads(signature["in_spec"])[1]["children_spec"]
        values = iter(inputs)
        shapes = list[Shape]()
        arguments = list[Argument]()
        for child in positional["children_spec"]:
            tree, tree_shapes = self._read_tree(child, values)
            arguments.append(Argument(tree))
            shapes += tree_shapes
        for key, child in zip(_keys_of(named), named["children_spec"], strict=True):
            tree, tree_shapes = self._read_tree(child, values)
            arguments.append(Argument(tree, key))
            shapes += tree_shapes
        return Call(tuple(arguments)), shapes

    def _read_tree(self, spec: Any, values: Iterator[Any]) -> _TreeDims:
        """Build the tree of a pytree spec, whose leaves are the next of `values`."""
        kind = spec["type"]
        if kind is None:
            return self._read_leaf(next(values))
        trees = list[Tree]()
        shapes = list[Shape]()
        for child in spec["children_spec"]:
            tree, tree_shapes = self._read_tree(child, values)
            trees.append(tree)
            shapes += tree_shapes
        name = kind.rsplit(".", 1)[-1]
        if name == "tuple":
            return _TreeDims(TreeSequence("tuple", tuple(trees)), shapes)
        if name in ("list", "immutable_list"):
            return _TreeDims(TreeSequence("list", tuple(trees)), shapes)
        keys = _keys_of(spec)
        if not isinstance(keys, list) or len(keys) != len(trees):
            raise _Unreadable(kind)
        if "dict" in name:
            name = "dict"
        entries = zip(map(str, keys), trees, strict=True)
        return _TreeDims(TreeMapping(tuple(entries), name), shapes)

    def _read_leaf(self, value: Any) -> _TreeDims:
        """Return a tensor or a literal; the export schema has other kinds, which are refused."""
        if "as_tensor" in value:
            return self._read_tensor(value["as_tensor"]["name"])
        if "as_float" in value:
            return _TreeDims(Literal(parse_floats(value["as_float"])), [])
        for key in _LITERALS:
            if key in value:
                return _TreeDims(Literal(value[key]), [])
        if "as_none" in value:
            return _TreeDims(Literal(None), [])
        raise _Unreadable(str(value))

    def _read_tensor(self, name: str) -> _TreeDims:
        """Return the spec of a tensor, with example sizes for symbols, and its dims."""
        graph = self.program["graph_module"]["graph"]
        meta = graph["tensor_values"][name]
        sizes = meta["sizes"]
        dtype = dtype_of(meta)
        example_sizes = tuple(map(_example_size, sizes))
        spec = TensorSpec(dtype.name, example_sizes)
        dims = [self._read_dim(size, axis, spec) for axis, size in enumerate(sizes)]
        return _TreeDims(spec, [tuple(dims)])

    def _read_dim(self, size: SymInt, axis: int, spec: TensorSpec) -> Dim:
        """Return the dim of one axis; unknown if its expression cannot be parsed."""
        if "as_int" in size:
            return Fixed(size["as_int"])
        try:
            expression = parse_size(size)
        except (UnknownExpression, SyntaxError) as error:
            return Unknown(f"the export states it as {error}")
        if isinstance(expression, Symbol):
            return self._free_dim(expression.name, axis, spec)
        names = {symbol: Symbol(free.name) for symbol, free in self.names.items()}
        renamed = substitute(expression, names)
        if isinstance(renamed, Const):
            return as_dim(renamed)
        return Derived(renamed)

    def _free_dim(self, symbol: str, axis: int, spec: TensorSpec) -> Free:
        """Return the dim of a symbol, named after the first axis that has it as its size."""
        if symbol not in self.names:
            used = {free.name for free in self.names.values()}
            name = fresh_name(spec, axis, used)
            low, high = self.ranges.get(symbol, Range(None, None))
            smallest = max(1, low or 1)
            self.names[symbol] = Free(name, smallest, high)
        return self.names[symbol]


def _inputs(module: GraphModule) -> list[Any]:
    """Return the inputs that a caller passes: tensors and plain values, not parameters."""
    inputs = list[Any]()
    for spec in module["signature"]["input_specs"]:
        if "user_input" in spec:
            inputs.append(spec["user_input"]["arg"])
        elif "constant_input" in spec:
            inputs.append(spec["constant_input"]["value"])
    return inputs


def _outputs(module: GraphModule) -> list[Any]:
    """Return the outputs of forward, without the buffers that it updates."""
    outputs = list[Any]()
    for spec in module["signature"]["output_specs"]:
        if "user_output" in spec:
            outputs.append(spec["user_output"]["arg"])
    return outputs


def _keys_of(spec: Any) -> Any:
    """Return the keys of a dict or of a library's object.

    They are JSON inside of the JSON, or plain if the library that registered the type dumps them
    so.
    """
    context = spec["context"]
    if isinstance(context, str):
        return json.loads(context)
    return context


def _example_size(size: SymInt) -> int:
    """Return the size that the program was exported with."""
    value: object
    if "as_int" in size:
        value = size["as_int"]
    else:
        hint = size["as_expr"]["hint"]
        if hint is None:
            raise _Unreadable("a size without an example")
        value = hint["as_int"]
    if not isinstance(value, int) or value < 0:
        raise _Unreadable("a size without an example")
    return value


def _argument_name(call: Call, path: KeyPath, signature: ModuleCallSignature) -> str | None:
    """Return the name of an argument: its keyword, or the one in the signature of forward."""
    number = path[0]
    assert isinstance(number, int)
    argument = call.arguments[number]
    if argument.name:
        return argument.name
    names = signature.get("forward_arg_names") or []
    if number < len(names):
        return names[number]
    return None
