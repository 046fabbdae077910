"""Size expressions: integer arithmetic over named sizes, simplified as it is built."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from composecli.core.limits import MAX_SIZE, shorten

# A dim with a remainder for each of many sizes is the longest one that is printed.
MAX_DIM_LENGTH = 2000
# Functions that call themselves for each part of a dim must not run out of stack.
MAX_DIM_DEPTH = 100

# How tightly the context binds an expression, which decides whether it needs brackets.
_LOOSE, _TERM, _FACTOR, _NUMERATOR = range(4)
# The symbol for the product of all axes that `*` stands for, as it is printed, and as Python parses
# it.
PRODUCT_OF_REST = "prod(*)"
_REST_NAME = "_product_of_rest"
# The order of axes by convention, in which factors are written: `N*C*H*W`.
_AXES = "NTCDHWL"


@dataclass(frozen=True, slots=True)
class Const:
    """An integer."""

    value: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A named size."""

    name: str


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of two or more terms, a constant last."""

    terms: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """The product of two or more factors, a constant first."""

    factors: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Floor:
    """`numerator // denominator`; the denominator is a positive constant."""

    numerator: Expr
    denominator: int


Expr = Const | Symbol | Sum | Product | Floor


def evaluate(expr: Expr, sizes: Mapping[str, int]) -> int:
    """Return the value of `expr`; KeyError if one of its symbols has no size."""
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
    """Replace each symbol that `by` names, and simplify.

    `ceil(H/2)` with `H` replaced by `X//8` becomes `(X + 8)//16`: the sizes along a chain of models
    follow from the input of the first one.
    """
    match expr:
        case Const():
            return expr
        case Symbol(name):
            return by.get(name, expr)
        case Sum(terms):
            new_terms = [substitute(term, by) for term in terms]
            return add(*new_terms)
        case Product(factors):
            new_factors = [substitute(factor, by) for factor in factors]
            return multiply(*new_factors)
        case Floor(numerator, denominator):
            new_numerator = substitute(numerator, by)
            return floor_divide(new_numerator, denominator)
        case _:
            assert_never(expr)


def symbols(expr: Expr) -> frozenset[str]:
    """Return the names of all symbols in `expr`."""
    match expr:
        case Const():
            return frozenset()
        case Symbol(name):
            return frozenset((name,))
        case Sum(parts) | Product(parts):
            names = [symbols(part) for part in parts]
            return frozenset().union(*names)
        case Floor(numerator, _):
            return symbols(numerator)
        case _:
            assert_never(expr)


def add(*terms: Expr) -> Expr:
    """Return a flat sum with like terms collected and the constant last."""
    constant = 0
    counts = dict[Expr, int]()
    pending = list(terms)
    while pending:
        match pending.pop():
            case Const(value):
                constant += value
            case Sum(inner):
                pending.extend(inner)
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
    if len(parts) == 1:
        return parts[0]
    parts.sort(key=_sort_key)
    return Sum(tuple(parts))


def multiply(*factors: Expr) -> Expr:
    """Return a flat product with the constant first; a constant is distributed over a sum."""
    constant = 1
    rest = list[Expr]()
    pending = list(factors)
    while pending:
        match pending.pop():
            case Const(value):
                constant *= value
            case Product(inner):
                pending.extend(inner)
            case factor:
                rest.append(factor)
    if not rest or not constant:
        return Const(constant)
    rest.sort(key=_factor_key)
    if constant != 1:
        return _scale(constant, rest)
    if len(rest) == 1:
        return rest[0]
    return Product(tuple(rest))


def _scale(constant: int, factors: list[Expr]) -> Expr:
    """Multiply by a constant, which is distributed if the only factor is a sum."""
    scale = Const(constant)
    first = factors[0]
    if len(factors) == 1 and isinstance(first, Sum):
        terms = [multiply(scale, term) for term in first.terms]
        return add(*terms)
    return Product((scale, *factors))


def _sort_key(expr: Expr) -> tuple[bool, str]:
    """Order operands by their text, with constants last."""
    return (isinstance(expr, Const), format_expr(expr))


def _factor_key(expr: Expr) -> tuple[int, str]:
    """Order factors by their first axis, and those of one axis by their text."""
    positions = [_AXES.find(name[0]) % (len(_AXES) + 1) for name in symbols(expr)]
    return (min(positions, default=0), format_expr(expr))


def floor_divide(numerator: Expr, denominator: int) -> Expr:
    """Return `numerator // denominator` with whole parts taken out and nested divisions merged.

    `(4*H + 8)//4` is `H + 2`, and `(H//2)//4` is `H//8`.

    Raises:
        ValueError: if the denominator is less than 1.
    """
    if denominator < 1:
        raise ValueError(f"a size is divided by {denominator}")
    whole, remainder = _split_multiples(numerator, denominator)
    match remainder:
        case Const(value):
            return add(whole, Const(value // denominator))
        case Floor(inner, by):
            quotient = floor_divide(inner, by * denominator)
            return add(whole, quotient)
        case Sum((Floor(inner, by), Const(value))):
            inner = add(inner, Const(value * by))
            quotient = floor_divide(inner, by * denominator)
            return add(whole, quotient)
    if denominator == 1:
        return whole
    return add(whole, Floor(remainder, denominator))


def _split_multiples(expr: Expr, by: int) -> tuple[Expr, Expr]:
    """Split `expr` into `(whole, remainder)` such that `expr == whole * by + remainder`.

    A constant in the remainder is in the range [0, by).
    """
    terms = expr.terms if isinstance(expr, Sum) else (expr,)
    whole = list[Expr]()
    rest = list[Expr]()
    for term in terms:
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


def split_factor(expr: Expr) -> tuple[int, Expr]:
    """Split off the largest integer factor of an expression: `4*T + 8` into 4 and `T + 2`.

    Zero is 0 times 1.
    """
    if expr == Const(0):
        return 0, Const(1)
    terms: tuple[Expr, ...] = (expr,)
    if isinstance(expr, Sum):
        terms = expr.terms
    coefficients = [_coefficient(term) for term in terms]
    factor = math.gcd(*coefficients)
    if factor < 2:
        return 1, expr
    divided = [_divide_term(term, factor) for term in terms]
    return factor, add(*divided)


def _coefficient(term: Expr) -> int:
    """Return the integer factor of a term."""
    match term:
        case Const(value) | Product((Const(value), *_)):
            return value
    return 1


def _divide_term(term: Expr, divisor: int) -> Expr:
    """Divide a term by an integer that divides its coefficient."""
    match term:
        case Const(value):
            return Const(value // divisor)
        case Product((Const(value), *rest)):
            return multiply(Const(value // divisor), *rest)
    return term


def ceil_divide(numerator: Expr, denominator: int) -> Expr:
    """Return `numerator / denominator` rounded up."""
    raised = add(numerator, Const(denominator - 1))
    return floor_divide(raised, denominator)


def format_expr(expr: Expr) -> str:
    """Return the text of `expr`, which `parse_expr` reads back: `2*H + 1`, `ceil(H/32)`."""
    return _format(expr, _LOOSE)


def _format(expr: Expr, tightness: int) -> str:
    """Format an expression, in brackets if it binds less than `tightness` requires."""
    match expr:
        case Const(value):
            return str(value)
        case Symbol(name):
            return name
        case Sum(terms):
            text = _format_sum(terms)
            return _bracket(text, needed=tightness > _TERM)
        case Product(factors):
            factor_texts = [_format(factor, _FACTOR) for factor in factors]
            return "*".join(factor_texts)
        case Floor(numerator, denominator):
            return _format_floor(numerator, denominator, tightness)
        case _:
            assert_never(expr)


def _bracket(text: str, *, needed: bool) -> str:
    return f"({text})" if needed else text


def _format_sum(terms: tuple[Expr, ...]) -> str:
    """Join the terms by plus, or by minus before a term that is negative."""
    text = _format(terms[0], _TERM)
    for term in terms[1:]:
        piece = _format(term, _TERM)
        if piece.startswith("-"):
            text += f" - {piece[1:]}"
        else:
            text += f" + {piece}"
    return text


def _format_floor(numerator: Expr, denominator: int, tightness: int) -> str:
    """Format `(x + d - 1)//d` as `ceil(x/d)`, and any other floor as it is."""
    match numerator:
        case Sum((*others, Const(value))) if value == denominator - 1:
            dividend = _format(add(*others), _FACTOR)
            return f"ceil({dividend}/{denominator})"
    dividend = _format(numerator, _NUMERATOR)
    text = f"{dividend}//{denominator}"
    return _bracket(text, needed=tightness > _TERM)


def parse_expr(text: str) -> Expr:
    """Parse an expression: names, integers, `+`, `-`, `*`, `//` by a number, and `ceil(H/32)`.

    Raises:
        ValueError: if the text is not an expression of these, or is less than 0.
    """
    expr = _from_ast(parse_ast(text), text)
    if isinstance(expr, Const) and expr.value < 0:
        raise ValueError(f"a size cannot be negative: {text.strip()}")
    return expr


def parse_ast(text: str) -> ast.expr:
    """Parse the text of a dim as a Python expression, which is never executed.

    Raises:
        ValueError: if it is not a Python expression, too long, or has an integer that is no size.
    """
    stripped = text.strip()
    shown = shorten(stripped) or "nothing"
    if len(stripped) > MAX_DIM_LENGTH:
        raise ValueError(f"too long for a dim: {shown}")
    try:
        parsed = ast.parse(stripped.replace(PRODUCT_OF_REST, _REST_NAME), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"not a dim: {shown} (as in 3, N, H>=32 or H//2)") from None
    level: list[ast.AST] = [parsed]
    for _ in range(MAX_DIM_DEPTH):
        if any(map(_is_too_large, level)):
            raise ValueError(f"{shown} is larger than any size")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise ValueError(f"too nested for a dim: {shown}")
    return parsed


def _is_too_large(node: ast.AST) -> bool:
    """Return whether this is an integer that is no size."""
    match node:
        case ast.Constant(int(value)):
            return value > MAX_SIZE
    return False


def _from_ast(node: ast.expr, text: str) -> Expr:
    """Convert a node; `text` is the whole dim, which the error message quotes."""
    match node:
        case ast.Constant(int(value)) if not isinstance(value, bool):
            return Const(value)
        case ast.Name(name) if name == _REST_NAME:
            return Symbol(PRODUCT_OF_REST)
        case ast.Name(name):
            return Symbol(name)
        case ast.UnaryOp(ast.USub(), operand):
            positive = _from_ast(operand, text)
            return _negate(positive)
        case ast.BinOp(left, ast.FloorDiv(), ast.Constant(int(by))) if by > 0:
            numerator = _from_ast(left, text)
            return floor_divide(numerator, by)
        case ast.BinOp(left, ast.Add() | ast.Sub() | ast.Mult() as operator, right):
            one, other = _from_ast(left, text), _from_ast(right, text)
            return _combine(one, operator, other)
        case ast.Call(
            ast.Name("ceil"), [ast.BinOp(left, ast.Div(), ast.Constant(int(by)))], []
        ) if by > 0:
            numerator = _from_ast(left, text)
            return ceil_divide(numerator, by)
    raise ValueError(f"not a dim: {text.strip()} (as in 3, N, H>=32, H//2 or ceil(H/32))")


def _negate(expr: Expr) -> Expr:
    return multiply(Const(-1), expr)


def _combine(left: Expr, operator: ast.Add | ast.Sub | ast.Mult, right: Expr) -> Expr:
    """Apply a Python operator; a difference is a sum with the negated right side."""
    match operator:
        case ast.Add():
            return add(left, right)
        case ast.Sub():
            negated = _negate(right)
            return add(left, negated)
        case ast.Mult():
            return multiply(left, right)
        case _:
            assert_never(operator)
