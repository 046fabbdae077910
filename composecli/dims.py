"""Dims: one axis of a port, and the integer expressions that tie output sizes to input sizes.

Text and meaning are one to one: `parse_dim(str(dim)) == dim` for every dim with a text form.

    3            fixed
    N            free, any size from 1
    H>=32        free from 32; `T<=512`, `32<=H<=64`, `T%16==0`, `H>=32 & H%16==0` likewise
    ceil(H/32)   derived from input dims; `H//2`, `2*H + 1`, `N*T` likewise
    ?            unknown
"""

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


@dataclass(frozen=True, slots=True)
class Fixed:
    size: int

    def __str__(self) -> str:
        return str(self.size)


@dataclass(frozen=True, slots=True)
class Free:
    """Any size from `low` to `high` (None: no end known) that is a multiple of `step`."""

    name: str
    low: int = 1
    high: int | None = None
    step: int = 1

    def __str__(self) -> str:
        conditions = list[str]()
        if self.low > 1 and self.high is not None:
            conditions.append(f"{self.low}<={self.name}<={self.high}")
        elif self.low != 1:
            conditions.append(f"{self.name}>={self.low}")
        elif self.high is not None:
            conditions.append(f"{self.name}<={self.high}")
        if self.step != 1:
            conditions.append(f"{self.name}%{self.step}==0")
        return " & ".join(conditions) or self.name


@dataclass(frozen=True, slots=True)
class Derived:
    expr: Expr

    def __str__(self) -> str:
        return _text(self.expr, 0)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A dim that is not known, and why: which sizes were tried, or what could not be read."""

    reason: str

    def __str__(self) -> str:
        return "?"


Dim = Fixed | Free | Derived | Unknown
Shape = tuple[Dim, ...]


def admits(dim: Dim, size: int) -> bool | None:
    """Whether a port with this dim takes `size`; None where the dim does not say."""
    match dim:
        case Fixed(wanted):
            return size == wanted
        case Free(_, low, high, step):
            return size >= low and (high is None or size <= high) and size % step == 0
        case Derived() | Unknown():
            return None
        case _:
            assert_never(dim)


def example_size(dim: Free, near: int) -> int:
    """The admitted size closest above `near`, or the largest below where there is none."""
    size = max(near, dim.low)
    size += -size % dim.step
    if dim.high is not None and size > dim.high:
        size = dim.high - dim.high % dim.step
    return size


def as_expr(dim: Dim) -> Expr | None:
    """The dim as an expression of input dims; None where it is unknown."""
    match dim:
        case Fixed(size):
            return Const(size)
        case Free(name):
            return Symbol(name)
        case Derived(expr):
            return expr
        case Unknown():
            return None
        case _:
            assert_never(dim)


def as_dim(expr: Expr) -> Dim:
    """The plainest dim with this expression."""
    match expr:
        case Const(value):
            return Fixed(value)
        case Symbol(name):
            return Free(name)
        case _:
            return Derived(expr)


def parse_dim(text: str) -> Dim:
    """The dim that `text` states.

    Raises:
        ValueError: it states none, said in words for a person.
    """
    text = text.strip()
    if text == "?":
        return Unknown("stated as unknown")
    bounds = [_condition(part) for part in text.split("&")] if _is_condition(text) else []
    if bounds:
        names = {bound.name for bound in bounds}
        if len(names) != 1:
            raise ValueError(f"one dim has one name, here are {', '.join(sorted(names))}: {text}")
        dim = Free(
            names.pop(),
            low=max(bound.low for bound in bounds),
            high=min((bound.high for bound in bounds if bound.high is not None), default=None),
            step=math.lcm(*(bound.step for bound in bounds)),
        )
        if admits(dim, example_size(dim, dim.low)) is not True:
            raise ValueError(f"no size of a dim is all of this: {text}")
        return dim
    return as_dim(parse_expr(text))


def _is_condition(text: str) -> bool:
    return any(sign in text for sign in ("<", ">", "=", "&"))


def _condition(text: str) -> Free:
    match _tree(text):
        case ast.Compare(ast.Name(name), [ast.GtE()], [ast.Constant(int(low))]):
            return Free(name, low=low)
        case ast.Compare(ast.Name(name), [ast.LtE()], [ast.Constant(int(high))]):
            return Free(name, high=high)
        case ast.Compare(ast.Constant(int(low)), [ast.LtE(), ast.LtE()], [ast.Name(name), ast.Constant(int(high))]):
            return Free(name, low=low, high=high)
        case ast.Compare(
            ast.BinOp(ast.Name(name), ast.Mod(), ast.Constant(int(step))), [ast.Eq()], [ast.Constant(0)]
        ) if step > 0:
            return Free(name, step=step)
    raise ValueError(f"not a condition on a dim: {text.strip()} (as in H>=32, T<=512, 32<=H<=64, T%16==0)")


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
        raise ValueError(f"not a dim: {text.strip() or 'nothing'} (as in 3, N, H>=32 or H//2)") from None


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
        case ast.Call(ast.Name("ceil"), [ast.BinOp(left, ast.Div(), ast.Constant(int(by)))], []) if by > 0:
            return ceil_divide(_expr(left, text), by)
        case ast.UnaryOp(ast.USub(), operand):
            return multiply(Const(-1), _expr(operand, text))
    raise ValueError(f"not a dim: {text.strip()} (as in 3, N, H>=32, H//2 or ceil(H/32))")
