"""Size expressions: integer arithmetic over named sizes, simplified when it is built."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never


@dataclass(frozen=True, slots=True)
class Const:
    value: int


@dataclass(frozen=True, slots=True)
class Symbol:
    name: str


@dataclass(frozen=True, slots=True)
class Sum:
    terms: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Product:
    factors: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Floor:
    """`numerator // denominator`, the denominator a positive constant."""

    numerator: Expr
    denominator: int


Expr = Const | Symbol | Sum | Product | Floor


def evaluate(expr: Expr, sizes: Mapping[str, int]) -> int:
    """The size that `expr` has where each symbol has the size given; KeyError for one that has none."""
    match expr:
        case Const(value):
            return value
        case Symbol(name):
            return sizes[name]
        case Sum(terms):
            return sum(evaluate(term, sizes) for term in terms)
        case Product(factors):
            return math.prod(evaluate(factor, sizes) for factor in factors)
        case Floor(numerator, denominator):
            return evaluate(numerator, sizes) // denominator
        case _:
            assert_never(expr)


def substitute(expr: Expr, by: Mapping[str, Expr]) -> Expr:
    """`expr` with each symbol in `by` replaced, simplified: how the sizes of a chain follow from its input."""
    match expr:
        case Const():
            return expr
        case Symbol(name):
            return by.get(name, expr)
        case Sum(terms):
            return add(*(substitute(term, by) for term in terms))
        case Product(factors):
            return multiply(*(substitute(factor, by) for factor in factors))
        case Floor(numerator, denominator):
            return floor_divide(substitute(numerator, by), denominator)
        case _:
            assert_never(expr)


def symbols(expr: Expr) -> frozenset[str]:
    match expr:
        case Const():
            return frozenset()
        case Symbol(name):
            return frozenset((name,))
        case Sum(parts) | Product(parts):
            return frozenset().union(*(symbols(part) for part in parts))
        case Floor(numerator, _):
            return symbols(numerator)
        case _:
            assert_never(expr)


def _rank(expr: Expr) -> tuple[int, str]:
    return (1 if isinstance(expr, Const) else 0, _text(expr, 0))


def add(*terms: Expr) -> Expr:
    """A flat sum with like terms collected and the constant last."""
    constant, counts = 0, dict[Expr, int]()
    todo = list(terms)
    while todo:
        match todo.pop():
            case Const(value):
                constant += value
            case Sum(inner):
                todo.extend(inner)
            case Product((Const(value), *rest)) if rest:
                base = multiply(*rest)
                counts[base] = counts.get(base, 0) + value
            case term:
                counts[term] = counts.get(term, 0) + 1
    parts = [multiply(Const(count), base) for base, count in counts.items() if count]
    if constant:
        parts.append(Const(constant))
    if not parts:
        return Const(0)
    return parts[0] if len(parts) == 1 else Sum(tuple(sorted(parts, key=_rank)))


def multiply(*factors: Expr) -> Expr:
    """A flat product with the constant first; a constant is spread over a sum."""
    constant, rest = 1, list[Expr]()
    todo = list(factors)
    while todo:
        match todo.pop():
            case Const(value):
                constant *= value
            case Product(inner):
                todo.extend(inner)
            case factor:
                rest.append(factor)
    if not rest or not constant:
        return Const(constant)
    rest.sort(key=_rank)
    if len(rest) == 1 and constant != 1 and isinstance(rest[0], Sum):
        return add(*(multiply(Const(constant), term) for term in rest[0].terms))
    if constant == 1:
        return rest[0] if len(rest) == 1 else Product(tuple(rest))
    return Product((Const(constant), *rest))


def floor_divide(numerator: Expr, denominator: int) -> Expr:
    """`numerator // denominator` with whole parts taken out and nested divisions made one."""
    if denominator < 1:
        raise ValueError(f"a size is divided by {denominator}")
    whole, remainder = _split_multiples(numerator, denominator)
    match remainder:
        case Const(value):
            return add(whole, Const(value // denominator))
        case Floor(inner, by):
            return add(whole, floor_divide(inner, by * denominator))
        case Sum((Floor(inner, by), Const(value))):
            return add(whole, floor_divide(add(inner, Const(value * by)), by * denominator))
    return whole if denominator == 1 else add(whole, Floor(remainder, denominator))


def _split_multiples(expr: Expr, by: int) -> tuple[Expr, Expr]:
    """(whole, remainder) with `expr == whole * by + remainder` and constants of the remainder in [0, by)."""
    whole, rest = list[Expr](), list[Expr]()
    for term in expr.terms if isinstance(expr, Sum) else (expr,):
        match term:
            case Const(value):
                whole.append(Const(value // by))
                rest.append(Const(value % by))
            case Product((Const(value), *others)) if value % by == 0:
                whole.append(multiply(Const(value // by), *others))
            case _ if by == 1:
                whole.append(term)
            case _:
                rest.append(term)
    return add(*whole), add(*rest)


def ceil_divide(numerator: Expr, denominator: int) -> Expr:
    return floor_divide(add(numerator, Const(denominator - 1)), denominator)


def _text(expr: Expr, tightness: int) -> str:
    match expr:
        case Const(value):
            return str(value)
        case Symbol(name):
            return name
        case Sum(terms):
            text = _text(terms[0], 1)
            for term in terms[1:]:
                piece = _text(term, 1)
                text += f" - {piece[1:]}" if piece.startswith("-") else f" + {piece}"
            return f"({text})" if tightness > 1 else text
        case Product(factors):
            text = "*".join(_text(factor, 2) for factor in factors)
            return f"({text})" if tightness > 2 else text
        case Floor(numerator, denominator):
            return _floor_text(numerator, denominator, tightness)
        case _:
            assert_never(expr)


def _floor_text(numerator: Expr, denominator: int, tightness: int) -> str:
    match numerator:
        case Sum((*others, Const(value))) if value == denominator - 1:
            return f"ceil({_text(add(*others), 2)}/{denominator})"
    text = f"{_text(numerator, 3)}//{denominator}"
    return f"({text})" if tightness > 1 else text


def parse_expr(text: str) -> Expr:
    """An expression of input dims: names, whole numbers, + - *, `//` by a number and `ceil(H/32)`.

    Raises:
        ValueError: it is none of these, or a size that is less than 0.
    """
    expr = _expr(_tree(text), text)
    if isinstance(expr, Const) and expr.value < 0:
        raise ValueError(f"a size is 0 or more: {text.strip()}")
    return expr


def _tree(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(
            f"not a dim: {text.strip() or 'nothing'} (as in 3, N, H>=32 or H//2)"
        ) from None


def _expr(node: ast.expr, text: str) -> Expr:
    match node:
        case ast.Constant(int(value)) if not isinstance(value, bool):
            return Const(value)
        case ast.Name(name):
            return Symbol(name)
        case ast.BinOp(left, ast.Add(), right):
            return add(_expr(left, text), _expr(right, text))
        case ast.BinOp(left, ast.Sub(), right):
            return add(_expr(left, text), multiply(Const(-1), _expr(right, text)))
        case ast.BinOp(left, ast.Mult(), right):
            return multiply(_expr(left, text), _expr(right, text))
        case ast.BinOp(left, ast.FloorDiv(), ast.Constant(int(by))) if by > 0:
            return floor_divide(_expr(left, text), by)
        case ast.Call(
            ast.Name("ceil"), [ast.BinOp(left, ast.Div(), ast.Constant(int(by)))], []
        ) if by > 0:
            return ceil_divide(_expr(left, text), by)
        case ast.UnaryOp(ast.USub(), operand):
            return multiply(Const(-1), _expr(operand, text))
    raise ValueError(f"not a dim: {text.strip()} (as in 3, N, H>=32, H//2 or ceil(H/32))")
