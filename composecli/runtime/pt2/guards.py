"""Guards: the conditions on its input that an exported program checks before it runs."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from composecli.core.dims import as_dim
from composecli.core.size_expr import Expr, Symbol, evaluate, symbols
from composecli.files.pt2_layout import ExportedProgram, SymInt
from composecli.files.pt2_sizes import Range, ranges_of, size_of
from composecli.runtime.pt2 import arithmetic

# The exporter itself requires sizes of at least 2, so such a lower bound is not about the code.
EXPORTER_MIN_SIZE = 2

_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: arithmetic.multiply,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: arithmetic.power,
    ast.LShift: arithmetic.shift_left,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
_METHODS = frozenset(("size", "stride", "storage_offset", "dim", "numel"))
_MATH_CONSTANTS: Mapping[str, float] = {"inf": math.inf, "nan": math.nan}
_NAMESPACES = {"math": arithmetic.MATH, "torch": arithmetic.SYMBOLIC}


class UnknownGuard(Exception):
    """A condition that is not understood here."""


@dataclass(frozen=True)
class _Size:
    """The actual size of one axis of an input, and the expression that it must equal."""

    place: str
    expected: Expr
    actual: int


class Guards:
    """The guards of one program, the same that `ExportedProgram.module()` checks.

    They are sizes that are fixed, in a range, or equal to others, and conditions in the code.
    """

    def __init__(self, data: ExportedProgram, inputs: Sequence[str]) -> None:
        """Read the guards of the program `data` on the inputs with these names.

        Raises:
            UnknownGuard: if a size is not understood.
        """
        module = data["graph_module"]
        tensors = module["graph"]["tensor_values"]
        self._sizes = dict[str, tuple[Expr, ...]]()
        for name in inputs:
            if name in tensors:
                sizes = tensors[name]["sizes"]
                self._sizes[name] = tuple(_size(size) for size in sizes)
        self._ranges = ranges_of(data)
        signature = module["module_call_graph"][0]["signature"]
        self._argument_names = tuple(signature.get("forward_arg_names") or ())
        self._conditions = dict[str, ast.expr]()
        for text in data.get("guards_code") or ():
            parsed = ast.parse(text, mode="eval")
            _require_known_functions(parsed)
            self._conditions[text] = parsed.body

    def check(
        self, values: Mapping[str, Any], arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> None:
        """Check the input of one call: the leaves by name, and the arguments that they are part of.

        Raises:
            RuntimeError: if a guard does not hold.
        """
        sizes = tuple(self._actual_sizes(values))
        bound = dict[str, int]()
        # Sizes that are a symbol themselves decide the value of derived sizes, so they come first.
        for size in sizes:
            if isinstance(size.expected, Symbol):
                bound.setdefault(size.expected.name, size.actual)
        for size in sizes:
            self._check_size(size, bound)
        positional = dict(zip(self._argument_names, arguments, strict=False))
        named = {**positional, **keywords}
        for text, condition in self._conditions.items():
            if not _holds(condition, named):
                raise RuntimeError(f"Guard failed: {text}")

    def _actual_sizes(self, values: Mapping[str, Any]) -> Iterator[_Size]:
        """Yield the size of each axis, once all inputs are known to have enough axes."""
        for name, expected in self._sizes.items():
            tensor = values[name]
            count = len(expected)
            if not isinstance(tensor, torch.Tensor) or tensor.dim() < count:
                raise RuntimeError(f"Guard failed: {name} has {count} axes")
        for name, expected in self._sizes.items():
            shape = values[name].shape
            for axis, expr in enumerate(expected):
                place = f"{name}.size()[{axis}]"
                yield _Size(place, expr, shape[axis])

    def _check_size(self, size: _Size, bound: dict[str, int]) -> None:
        """Check one size, and bind its symbol if it has one that is not bound yet."""
        expected = size.expected
        unbound = symbols(expected) - bound.keys()
        if len(unbound) == 1:
            (symbol,) = unbound
            bound[symbol] = _solve(expected, symbol, size.actual, bound)
        is_bound = unbound <= bound.keys()
        if not is_bound or evaluate(expected, bound) != size.actual:
            raise RuntimeError(f"Guard failed: {size.place} == {as_dim(expected)}")
        if isinstance(expected, Symbol):
            self._check_range(size, expected.name)

    def _check_range(self, size: _Size, symbol: str) -> None:
        """Check a size by the range of its symbol; a bound that is None is open."""
        unlimited = Range(None, None)
        low, high = self._ranges.get(symbol, unlimited)
        if low is not None and low > EXPORTER_MIN_SIZE and size.actual < low:
            raise RuntimeError(f"Guard failed: {size.place} >= {low}")
        if high is not None and size.actual > high:
            raise RuntimeError(f"Guard failed: {size.place} <= {high}")


def _size(size: SymInt) -> Expr:
    """Return the expression of one size in the JSON.

    Raises:
        UnknownGuard: if it is written in a form that is not understood.
    """
    expr = size_of(size)
    if expr is None:
        raise UnknownGuard("a size by an expression that is not understood")
    return expr


def _solve(expr: Expr, symbol: str, size: int, bound: Mapping[str, int]) -> int:
    """Return the value of a symbol for which an expression equals `size`, or -1 if there is none.

    The expression is linear in the symbol.
    For `2*h + 1 == 9` the value of `h` is 4; no value fits `2*h + 1 == 8`.
    """
    at_zero = evaluate(expr, {**bound, symbol: 0})
    at_one = evaluate(expr, {**bound, symbol: 1})
    slope = at_one - at_zero
    rest = size - at_zero
    if slope and rest % slope == 0:
        return rest // slope
    return -1


def _holds(condition: ast.expr, named: Mapping[str, Any]) -> bool:
    """Whether a condition holds. It is ignored if it refers to an argument that is not passed."""
    try:
        return bool(_value(condition, named))
    except (KeyError, IndexError, AttributeError):
        return True


def _value(node: ast.AST, named: Mapping[str, Any]) -> Any:
    """Return the value of an expression for these arguments.

    The safety check of the file has made sure that a guard contains nothing else.
    """
    match node:
        case ast.Constant(value):
            return value
        case ast.Subscript(ast.Name("L"), ast.Constant(str(name))):
            return named[name]
        case ast.Subscript(of, index):
            container = _value(of, named)
            key = _value(index, named)
            return container[key]
        case ast.Call(ast.Attribute(of, name), [], []) if name in _METHODS:
            tensor = _value(of, named)
            method = getattr(tensor, name)
            return method()
        case ast.Attribute(ast.Name("math"), name):
            return _MATH_CONSTANTS[name]
        case ast.Call(function_name, arguments, []):
            function = _function(function_name)
            values = [_value(argument, named) for argument in arguments]
            return function(*values)
    return _operator_value(node, named)


def _function(node: ast.expr) -> Callable[..., Any]:
    """Return the function that a guard calls by this name.

    Raises:
        KeyError: if it is not known here.
    """
    match node:
        case ast.Name(name):
            return arithmetic.BUILTINS[name]
        case ast.Attribute(ast.Name(namespace), name):
            return _NAMESPACES[namespace][name]
    raise KeyError(ast.dump(node))


def _require_known_functions(tree: ast.AST) -> None:
    """Raise UnknownGuard if a condition calls a function that is not evaluated here."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Attribute(_, name), [], []) if name in _METHODS:
                continue
            case ast.Call(function):
                try:
                    _function(function)
                except KeyError:
                    raise UnknownGuard("a condition by an unknown function") from None


def _operator_value(node: ast.AST, named: Mapping[str, Any]) -> Any:
    """Return the value of an operator with its operands; `and` and `or` give a boolean."""
    match node:
        case ast.BinOp(left, op, right):
            binary = _OPERATORS[type(op)]
            one = _value(left, named)
            other = _value(right, named)
            return binary(one, other)
        case ast.UnaryOp(op, operand):
            unary = _OPERATORS[type(op)]
            only = _value(operand, named)
            return unary(only)
        case ast.BoolOp(ast.And(), operands):
            return all(_value(operand, named) for operand in operands)
        case ast.BoolOp(ast.Or(), operands):
            return any(_value(operand, named) for operand in operands)
        case ast.IfExp(test, then, otherwise):
            chosen = otherwise
            if _value(test, named):
                chosen = then
            return _value(chosen, named)
        case ast.Compare(first, ops, others):
            sides = [_value(side, named) for side in (first, *others)]
            return _compare(sides, ops)
    raise KeyError(ast.dump(node))


def _compare(sides: list[Any], ops: Sequence[ast.cmpop]) -> bool:
    """Return the value of a chained comparison, such as `2 <= n < 9`."""
    for number, op in enumerate(ops):
        compare = _OPERATORS[type(op)]
        if not compare(sides[number], sides[number + 1]):
            return False
    return True
