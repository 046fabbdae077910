"""Sizes in a torch.export archive: sympy's `srepr` texts, and the ranges of their symbols.

Add(Symbol('s0', integer=True), Integer(1))  ->  s0 + 1
"""

from __future__ import annotations

import ast
from typing import NamedTuple

from composecli.core.size_expr import Const, Expr, Symbol, add, floor_divide, multiply
from composecli.files.pt2_layout import ExportedProgram, SymInt

# The exporter has no notation for "unbounded": it writes a bound that no size reaches.
UNBOUNDED = 2**31


class UnknownExpression(Exception):
    """An expression that is not a sum, product or floor division of symbols and integers."""


class Range(NamedTuple):
    """The least and the largest value of a symbol, None if there is no bound."""

    low: int | None
    high: int | None


def size_of(size: SymInt) -> Expr | None:
    """Return a size as an expression, None if it is one that composecli does not know."""
    try:
        return parse_size(size)
    except (UnknownExpression, SyntaxError):
        return None


def parse_size(size: SymInt) -> Expr:
    """Parse a size.

    Raises:
        UnknownExpression: if composecli does not know one of its functions.
        SyntaxError: if its text is not an expression.
    """
    if "as_int" in size:
        return Const(size["as_int"])
    text = size["as_expr"]["expr_str"]
    tree = ast.parse(text, mode="eval")
    return _expression(tree.body)


def ranges_of(program: ExportedProgram) -> dict[str, Range]:
    """Return the range of each symbol."""
    ranges = dict[str, Range]()
    for symbol, constraint in program["range_constraints"].items():
        high = constraint.get("max_val")
        if high is not None and high >= UNBOUNDED:
            high = None
        ranges[symbol] = Range(constraint.get("min_val"), high)
    return ranges


def _expression(node: ast.expr) -> Expr:
    """Convert a node of sympy's `srepr` form, as in `FloorDiv(Symbol('s0'), Integer(2))`."""
    match node:
        case ast.Call(ast.Name("Symbol"), [ast.Constant(str(name))]):
            return Symbol(name)
        case ast.Call(ast.Name("Integer"), [ast.Constant(int(value))]):
            return Const(value)
        case ast.Call(ast.Name("Integer"), [ast.UnaryOp(ast.USub(), ast.Constant(int(value)))]):
            return Const(-value)
        case ast.Call(ast.Name("Add"), terms):
            return add(*map(_expression, terms))
        case ast.Call(ast.Name("Mul"), factors):
            return multiply(*map(_expression, factors))
        case ast.Call(ast.Name("FloorDiv"), [dividend, divisor]):
            by = _expression(divisor)
            if isinstance(by, Const) and by.value > 0:
                numerator = _expression(dividend)
                return floor_divide(numerator, by.value)
    raise UnknownExpression(ast.unparse(node))
