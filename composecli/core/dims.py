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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import assert_never

from composecli.core.size_expr import Const, Expr, Symbol, _text, _tree, parse_expr


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


def fixed_size(dim: Dim) -> int | None:
    """Return the size of a fixed dim; None for any other."""
    return dim.size if isinstance(dim, Fixed) else None


def as_free(dim: Dim) -> Free | None:
    """Return the dim itself if it is free; otherwise None."""
    return dim if isinstance(dim, Free) else None


def free_dims(dims: Iterable[Dim]) -> Iterator[Free]:
    """Yield the free dims among these, in order."""
    yield from (dim for dim in dims if isinstance(dim, Free))


def is_variable(dim: Dim) -> bool:
    """Return whether an axis with this dim may have more than one size: it is free, derived or unknown."""
    return not isinstance(dim, Fixed)


def unknown_reason(dim: Dim) -> str | None:
    """Return why the dim is unknown; None if it is known."""
    return dim.reason if isinstance(dim, Unknown) else None


def bounds(dim: Dim) -> Free | None:
    """Return the range of sizes as a free dim: that of a fixed dim is one size; None if the dim does not say.

    `bounds(Fixed(3))` runs from 3 to 3, `bounds(Free("H", 32))` from 32 on; those of `H//2` depend on another dim.
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
        case ast.Compare(
            ast.Constant(int(low)),
            [ast.LtE(), ast.LtE()],
            [ast.Name(name), ast.Constant(int(high))],
        ):
            return Free(name, low=low, high=high)
        case ast.Compare(
            ast.BinOp(ast.Name(name), ast.Mod(), ast.Constant(int(step))),
            [ast.Eq()],
            [ast.Constant(0)],
        ) if step > 0:
            return Free(name, step=step)
    raise ValueError(
        f"not a condition on a dim: {text.strip()} (as in H>=32, T<=512, 32<=H<=64, T%16==0)"
    )
