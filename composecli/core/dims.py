"""Dims: the size of one axis of a port.

Text and meaning are one to one: `parse_dim(str(dim)) == dim` for every dim that has a text form.

    3            fixed
    N            free, any size from 1
    H>=32        free from 32; `T<=512`, `32<=H<=64`, `T%16==0`, `H>=32 & H%16==0` likewise
    N==1         free in name, with one size
    H%4 in {0, 3}    free, with one of several remainders
    ceil(H/32)   derived from input dims; `H//2`, `2*H + 1`, `N*T` likewise
    ?            unknown

Among the dims of a port, `*` stands for any number of axes. It is no dim: it has no size.

Only this module distinguishes the four classes: everything else calls the functions below, each of
which has an answer for every kind of dim. Others may read the ends and the step of a `Free` dim.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import assert_never

from composecli.core.size_expr import (
    Const,
    Expr,
    Symbol,
    format_expr,
    multiply,
    parse_ast,
    parse_expr,
)

# The remainders of two conditions multiply. A dim in a file has few.
MAX_RESIDUES = 10_000
MAX_SIZES_TO_TRY = 1 << 16
# A comma between dims, not one in the braces of `H%4 in {0, 3}`.
_COMMA = re.compile(r",(?![^{]*\})")
# What stands for any number of axes, none included, in a list of dims.
REST = "*"


@dataclass(frozen=True, slots=True)
class Fixed:
    """An axis that has one size."""

    size: int

    def __str__(self) -> str:
        return str(self.size)


@dataclass(frozen=True, slots=True)
class Free:
    """Any size from `low` to `high` (None: no known limit) with an allowed remainder.

    The remainder of its division by `step` is one of `residues`: a multiple of `step` has 0.
    """

    name: str
    low: int = 1
    high: int | None = None
    step: int = 1
    residues: tuple[int, ...] = (0,)

    def __str__(self) -> str:
        conditions = list[str]()
        if self.low == self.high:
            conditions.append(f"{self.name}=={self.low}")
        elif self.low > 1 and self.high is not None:
            conditions.append(f"{self.low}<={self.name}<={self.high}")
        elif self.low != 1:
            conditions.append(f"{self.name}>={self.low}")
        elif self.high is not None:
            conditions.append(f"{self.name}<={self.high}")
        if self.step != 1:
            allowed = _residues_text(self)
            conditions.append(f"{self.name}%{self.step}{allowed}")
        return " & ".join(conditions) or self.name


def _residues_text(dim: Free, equals: str = "==") -> str:
    """Return the condition on the remainder: `==0`, or ` in {0, 3}`."""
    if len(dim.residues) == 1:
        return f"{equals}{dim.residues[0]}"
    listed = ", ".join(map(str, dim.residues))
    return f" in {{{listed}}}"


@dataclass(frozen=True, slots=True)
class Derived:
    """A size that follows from the free dims of the input."""

    expr: Expr

    def __str__(self) -> str:
        return format_expr(self.expr)


@dataclass(frozen=True, slots=True)
class Unknown:
    """An unknown dim, and the reason: the sizes that were tried, or the data that is unreadable.

    `follows_values`: it has several sizes for inputs of the same sizes.
    """

    reason: str
    follows_values: bool = False

    def __str__(self) -> str:
        return "?"


Dim = Fixed | Free | Derived | Unknown
Shape = tuple[Dim, ...]


def admits(dim: Dim, size: int) -> bool | None:
    """Return whether the dim allows `size`; None for a derived or unknown dim."""
    match dim:
        case Fixed(only_size):
            return size == only_size
        case Free(_, low, high, step, residues):
            if size < low:
                return False
            if high is not None and size > high:
                return False
            return size % step in residues
        case Derived() | Unknown():
            return None
        case _:
            assert_never(dim)


def fixed_size(dim: Dim) -> int | None:
    """Return the size of a fixed dim; None for any other."""
    match dim:
        case Fixed(size):
            return size
        case Free() | Derived() | Unknown():
            return None
        case _:
            assert_never(dim)


def as_free(dim: Dim) -> Free | None:
    """Return the dim itself if it is free; otherwise None."""
    match dim:
        case Free():
            return dim
        case Fixed() | Derived() | Unknown():
            return None
        case _:
            assert_never(dim)


def free_dims(dims: Iterable[Dim]) -> Iterator[Free]:
    """Yield the free dims among these, in order."""
    for dim in dims:
        free = as_free(dim)
        if free is not None:
            yield free


def is_variable(dim: Dim) -> bool:
    """Return whether the axis may have more than one size: it is free, derived or unknown."""
    match dim:
        case Fixed():
            return False
        case Free() | Derived() | Unknown():
            return True
        case _:
            assert_never(dim)


def unknown_reason(dim: Dim) -> str | None:
    """Return why the dim is unknown; None if it is known."""
    match dim:
        case Unknown(reason, _):
            return reason
        case Fixed() | Free() | Derived():
            return None
        case _:
            assert_never(dim)


def follows_values(dim: Dim) -> bool:
    """Return whether the size depends on the values of the input, and not on its sizes alone."""
    match dim:
        case Unknown(_, from_values):
            return from_values
        case Fixed() | Free() | Derived():
            return False
        case _:
            assert_never(dim)


def admits_every_size(dim: Dim) -> bool:
    """Return whether the axis may have any size from 1."""
    match dim:
        case Free(_, low, high, step):
            return low == 1 and high is None and step == 1
        case Fixed() | Derived() | Unknown():
            return False
        case _:
            assert_never(dim)


def bounds(dim: Dim) -> Free | None:
    """Return the range of sizes as a free dim; None for a derived or unknown dim.

    `bounds(Fixed(3))` runs from 3 to 3, and `bounds(Free("H", 32))` from 32 with no limit. The
    bounds of `H//2` depend on another dim.
    """
    match dim:
        case Fixed(size):
            return Free("", size, size)
        case Free():
            return dim
        case Derived() | Unknown():
            return None
        case _:
            assert_never(dim)


def example_size(dim: Free, near: int) -> int:
    """Return the smallest admitted size from `near` on; if there is none, the largest one below."""
    size = _next_size(dim, max(near, dim.low))
    if dim.high is not None and size > dim.high:
        return _previous_size(dim, dim.high)
    return size


def largest_size(dim: Free) -> int | None:
    """Return the largest admitted size; None if there is no known limit."""
    if dim.high is None:
        return None
    return example_size(dim, dim.high)


def sizes_between(dim: Free, low: int, high: int) -> list[int]:
    """Return the admitted sizes from `low` to `high`, both included, in order."""
    first = max(low, dim.low)
    last = high
    if dim.high is not None:
        last = min(high, dim.high)
    sizes = list[int]()
    for residue in dim.residues:
        start = first + (residue - first) % dim.step
        sizes += range(start, last + 1, dim.step)
    return sorted(sizes)


def sizes_to_try(dim: Free, most: int) -> list[int]:
    """Return the admitted sizes from the lowest one, up to `most` if there is no upper limit.

    Of a range longer than `MAX_SIZES_TO_TRY`, they are the first ones: a file may state any limit.
    """
    last = most
    if dim.high is not None:
        last = min(dim.high, max(most, dim.low + MAX_SIZES_TO_TRY))
    return sizes_between(dim, dim.low, last)


def sizes_outside(dim: Free) -> list[int]:
    """Return the positive sizes just outside the range: the next ones, if it went on."""
    sizes = [_previous_size(dim, dim.low - 1)]
    if dim.high is not None:
        sizes.append(_next_size(dim, dim.high + 1))
    return [size for size in sizes if size > 0]


def _next_size(dim: Free, size: int) -> int:
    """Return the smallest size from this one on that has an allowed remainder."""
    return min(size + (residue - size) % dim.step for residue in dim.residues)


def _previous_size(dim: Free, size: int) -> int:
    """Return the largest size up to this one that has an allowed remainder."""
    return max(size - (size - residue) % dim.step for residue in dim.residues)


def limits_text(dim: Free, subject: str) -> str:
    """Describe the limits in a sentence; empty if there are none.

    `D>=8 & D%4==0` with the subject `H//2` becomes `H//2 >= 8 and H//2 % 4 == 0`.
    """
    if dim.low == dim.high:
        return f"{subject} == {dim.low}"
    parts = list[str]()
    if dim.low > 1:
        parts.append(f"{subject} >= {dim.low}")
    if dim.high is not None:
        parts.append(f"{subject} <= {dim.high}")
    if dim.step > 1:
        factor = subject
        if " " in subject:
            factor = f"({subject})"
        allowed = _residues_text(dim, " == ")
        parts.append(f"{factor} % {dim.step}{allowed}")
    return " and ".join(parts)


def as_expr(dim: Dim) -> Expr | None:
    """Return the dim as an expression of input dims; None if it is unknown."""
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


def product(dims: Iterable[Dim]) -> Dim:
    """Return the dim of axes that are merged into one: `64*H*W` for 64, `H` and `W`.

    It is unknown if one of them is.
    """
    factors = list[Expr]()
    for dim in dims:
        expr = as_expr(dim)
        if expr is None:
            return dim
        factors.append(expr)
    return as_dim(multiply(*factors))


def as_dim(expr: Expr) -> Dim:
    """Return the simplest dim with this expression."""
    match expr:
        case Const(value):
            return Fixed(value)
        case Symbol(name):
            return Free(name)
        case _:
            return Derived(expr)


def parse_dim(text: str) -> Dim:
    """Parse the text of a dim.

    Raises:
        ValueError: if the text is not a dim; the message is written for users.
    """
    text = text.strip()
    if text == "?":
        return Unknown("stated as unknown")
    if any(sign in text for sign in "<>=&%"):
        return _parse_free(text)
    return as_dim(parse_expr(text))


def parse_shape(text: str) -> Shape:
    """Parse dims separated by commas.

    Raises:
        ValueError: if one of them is not a dim, but `*`, for example; the message is written for
            users.
    """
    dims, place = parse_axes(text)
    if place is not None:
        raise ValueError(
            f"* is any number of axes; state a size or a name for each: {text.strip()} "
            "(as in N,C,H,W)"
        )
    return dims


def parse_axes(text: str) -> tuple[Shape, int | None]:
    """Parse dims separated by commas, of which one may be `*`; return its place apart.

    `N, *` is the dim `N` with the rest at 1. The place is None if there is no rest.

    Raises:
        ValueError: if another of them is not a dim; the message is written for users.
    """
    texts = [part.strip() for part in _COMMA.split(text)]
    place = None
    if REST in texts:
        place = texts.index(REST)
        del texts[place]
    if REST in texts:
        raise ValueError(f"* can stand only once among the axes: {text.strip()}")
    return tuple(map(parse_dim, texts)), place


def _parse_free(text: str) -> Free:
    """Parse conditions joined by `&`, as in `H>=32 & H%8==0`, into one range."""
    conditions = [_parse_condition(part) for part in text.split("&")]
    names = sorted({condition.name for condition in conditions})
    if len(names) != 1:
        raise ValueError(f"a dim can have only one name, not {', '.join(names)}: {text}")
    dim: Free | None = Free(names[0])
    for condition in conditions:
        if dim is not None:
            dim = intersect(dim, condition)
    if dim is None:
        raise ValueError(f"no size meets all of these conditions: {text}")
    return dim


def intersect(one: Free, other: Free) -> Free | None:
    """Return the sizes that both dims of one name admit; None if there are none."""
    highs = [high for high in (one.high, other.high) if high is not None]
    limited = replace(one, low=max(one.low, other.low), high=min(highs, default=None))
    both = _restrict(limited, other)
    if not both.residues or not admits(both, example_size(both, both.low)):
        return None
    return both


def _restrict(dim: Free, condition: Free) -> Free:
    """Return the dim with the remainders that a second condition allows as well.

    Multiples of 4 that leave 2 when divided by 6 leave 8 when divided by 12, by the Chinese
    remainder theorem.
    """
    common = math.gcd(dim.step, condition.step)
    step = math.lcm(dim.step, condition.step)
    factor = condition.step // common
    inverse = pow(dim.step // common, -1, factor)
    residues = list[int]()
    for residue in dim.residues:
        for other in condition.residues:
            difference = other - residue
            if difference % common == 0:
                steps = difference // common * inverse % factor
                residues.append(residue + steps * dim.step)
        if len(residues) > MAX_RESIDUES:
            raise ValueError(f"more than {MAX_RESIDUES:,} remainders, by {step}")
    residues.sort()
    return replace(dim, step=step, residues=tuple(residues))


def _parse_condition(text: str) -> Free:
    """Parse one condition, such as `H>=32`, into a range that has only this limit."""
    match parse_ast(text):
        case ast.Compare(ast.Name(name), [ast.GtE()], [ast.Constant(int(low))]):
            return Free(name, low=low)
        case ast.Compare(ast.Name(name), [ast.LtE()], [ast.Constant(int(high))]):
            return Free(name, high=high)
        case ast.Compare(ast.Name(name), [ast.Eq()], [ast.Constant(int(size))]):
            return Free(name, low=size, high=size)
        case ast.Compare(
            ast.Constant(int(low)),
            [ast.LtE(), ast.LtE()],
            [ast.Name(name), ast.Constant(int(high))],
        ):
            return Free(name, low=low, high=high)
        case ast.Compare(
            ast.BinOp(ast.Name(name), ast.Mod(), ast.Constant(int(step))),
            [ast.Eq() | ast.In()],
            [ast.Constant(int()) | ast.Set() as allowed],
        ) if step > 0:
            residues = _parse_residues(allowed, step)
            if residues:
                return Free(name, step=step, residues=residues)
    example = "as in H>=32, T<=512, 32<=H<=64, T%16==0, H%4 in {0, 3}"
    raise ValueError(f"not a condition on a dim: {text.strip()} ({example})")


def _parse_residues(allowed: ast.Constant | ast.Set, step: int) -> tuple[int, ...]:
    """Return the remainders in order; none if one of them is not a remainder of this division."""
    nodes: list[ast.expr] = [allowed]
    if isinstance(allowed, ast.Set):
        nodes = allowed.elts
    residues = set[int]()
    for node in nodes:
        match node:
            case ast.Constant(int(residue)) if 0 <= residue < step:
                residues.add(residue)
            case _:
                return ()
    return tuple(sorted(residues))
