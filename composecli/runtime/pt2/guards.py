"""Guards: what a program of torch.export asks of its input before it runs."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from composecli.core.dims import as_dim
from composecli.core.size_expr import Expr, Symbol, evaluate, symbols
from composecli.files.pt2 import ranges_of, size_of

_CALLS: Mapping[str, Callable[..., Any]] = {
    "max": max, "min": min, "abs": abs, "int": int, "float": float, "ceil": math.ceil, "floor": math.floor,
    "trunc": math.trunc, "sqrt": math.sqrt,
}  # fmt: skip
_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.Eq: operator.eq,
    ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_,
}  # fmt: skip


class UnknownGuard(Exception):
    """A condition that is not understood here."""


class Guards:
    """Sizes that are fixed, in a range, or equal to others, and what else the exporter saw in the code.

    As `ExportedProgram.module` has them: a range from 2 is the exporter's own and no bound.
    """

    def __init__(self, data: Any, inputs: Sequence[str]) -> None:
        tensors = data["graph_module"]["graph"]["tensor_values"]
        self._sizes = {
            name: tuple(map(_size, tensors[name]["sizes"])) for name in inputs if name in tensors
        }
        self._ranges = ranges_of(data)
        names = data["graph_module"]["module_call_graph"][0]["signature"].get("forward_arg_names")
        self._names = tuple(names or ())
        self._conditions = [
            (text, ast.parse(text, mode="eval").body) for text in data.get("guards_code") or []
        ]

    def check(
        self, values: Mapping[str, Any], arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> None:
        """Hold the input against it.

        Raises:
            RuntimeError: it is not what the program was made for.
        """
        given = [(name, values[name]) for name in self._sizes]
        for name, tensor in given:
            if not isinstance(tensor, torch.Tensor) or tensor.dim() < len(self._sizes[name]):
                raise RuntimeError(f"Guard failed: {name} has {len(self._sizes[name])} axes")
        sizes = [
            (f"{name}.size()[{axis}]", size, tensor.shape[axis])
            for name, tensor in given
            for axis, size in enumerate(self._sizes[name])
        ]
        bound = dict[str, int]()
        # Symbols that are a size themselves come first: they decide those that are made of them.
        for _, expected, size in sizes:
            if isinstance(expected, Symbol):
                bound.setdefault(expected.name, size)
        for place, expected, size in sizes:
            self._check_size(place, expected, size, bound)
        named = {**dict(zip(self._names, arguments, strict=False)), **keywords}
        for text, condition in self._conditions:
            if not _holds(condition, named):
                raise RuntimeError(f"Guard failed: {text}")

    def _check_size(self, place: str, expected: Expr, size: int, bound: dict[str, int]) -> None:
        missing = symbols(expected) - bound.keys()
        if len(missing) == 1:
            (symbol,) = missing
            bound[symbol] = _solved(expected, symbol, size, bound)
        if not missing <= bound.keys() or evaluate(expected, bound) != size:
            raise RuntimeError(f"Guard failed: {place} == {as_dim(expected)}")
        if isinstance(expected, Symbol):
            low, high = self._ranges.get(expected.name, (None, None))
            if low is not None and low > 2 and size < low:
                raise RuntimeError(f"Guard failed: {place} >= {low}")
            if high is not None and size > high:
                raise RuntimeError(f"Guard failed: {place} <= {high}")


def _size(size: Any) -> Expr:
    found = size_of(size)
    if found is None:
        raise UnknownGuard("a size by an expression that is not understood")
    return found


def _solved(expected: Expr, symbol: str, size: int, bound: Mapping[str, int]) -> int:
    """The symbol for which an expression that is linear in it has this size, -1 where there is none."""
    start, step = (evaluate(expected, {**bound, symbol: value}) for value in (0, 1))
    slope = step - start
    return (size - start) // slope if slope and (size - start) % slope == 0 else -1


def _holds(condition: ast.expr, named: Mapping[str, Any]) -> bool:
    """Whether it holds; one that speaks of what is not there does not matter."""
    try:
        return bool(_value(condition, named))
    except (KeyError, IndexError, AttributeError):
        return True


def _value(node: ast.AST, named: Mapping[str, Any]) -> Any:
    """What a guard is for these inputs. What may stand in one was judged when the file was."""
    match node:
        case ast.Constant(value):
            return value
        case ast.Subscript(ast.Name("L"), ast.Constant(str(name))):
            return named[name]
        case ast.Subscript(of, index):
            return _value(of, named)[_value(index, named)]
        case ast.Call(
            ast.Attribute(of, "size" | "stride" | "storage_offset" | "dim" | "numel" as name),
            [],
            [],
        ):
            return getattr(_value(of, named), name)()
        case ast.Call(ast.Name(name) | ast.Attribute(ast.Name("math"), name), given, []):
            return _CALLS[name](*(_value(item, named) for item in given))
    return _combined(node, named)


def _combined(node: ast.AST, named: Mapping[str, Any]) -> Any:
    match node:
        case ast.BinOp(left, by, right):
            return _OPERATORS[type(by)](_value(left, named), _value(right, named))
        case ast.UnaryOp(by, operand):
            return _OPERATORS[type(by)](_value(operand, named))
        case ast.BoolOp(by, operands):
            return (all if isinstance(by, ast.And) else any)(
                _value(item, named) for item in operands
            )
        case ast.Compare(first, by_each, others):
            sides = [_value(item, named) for item in (first, *others)]
            return all(
                _OPERATORS[type(by)](*pair)
                for by, *pair in zip(by_each, sides, sides[1:], strict=False)
            )
    raise KeyError(ast.dump(node))
