"""Conditions: for which sizes of its own input a producer's dim is one that a consumer's port takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import assert_never

from composecli.core.dims import Derived, Dim, Fixed, Free, Unknown, admits, as_expr
from composecli.core.size_expr import Symbol, evaluate, symbols

# Sizes are tried up to here, and what holds at all of the last of them is taken to hold beyond.
REACH = 4096


@dataclass(frozen=True, slots=True)
class Condition:
    """What has to hold, in the producer's symbols, and the smallest size at which it does not, where one was found."""

    text: str
    fails_at: str | None = None


def condition(given: Dim, wanted: Dim, ranges: Mapping[str, Free]) -> Condition | None:
    """What must hold of a producer's dim at other sizes for the consumer to take it; None where it always does.

    `ranges` are the free dims that the producer itself takes. A dim that is fixed says nothing of other sizes, and
    of one that is unknown nothing can be said.
    """
    expr = as_expr(given)
    if isinstance(given, Fixed) or expr is None or isinstance(wanted, Unknown | Derived):
        return None
    names = sorted(symbols(expr))
    if len(names) != 1:
        text = _raw(str(given), wanted)
        return Condition(text) if text else None
    own = given if isinstance(given, Free) else ranges.get(names[0], Free(names[0]))
    sizes = range(own.low + -own.low % own.step, (own.high or REACH) + 1, own.step)
    taken = [size for size in sizes if admits(wanted, evaluate(expr, {names[0]: size}))]
    if len(taken) == len(sizes):
        return None
    first = next(size for size, good in zip(sizes, (*taken, None), strict=False) if size != good)
    text = _interval(names[0], taken, sizes, own) or _raw(
        given.name if isinstance(given, Free) else str(given), wanted
    )
    return Condition(text, f"{names[0]} = {first}" + ("" if expr == Symbol(names[0]) else f", where {given} is "
                     f"{evaluate(expr, {names[0]: first})}"))  # fmt: skip


def _interval(name: str, taken: list[int], sizes: range, own: Free) -> str | None:
    """The sizes that are taken as one range or as the multiples of a number; None where they are neither."""
    if not taken:
        return None
    low, high = taken[0], taken[-1]
    if taken == list(range(low, high + 1, own.step)):
        return _range_text(
            name, None if low == sizes[0] else low, None if high == sizes[-1] else high
        )
    step = min(b - a for a, b in pairwise(taken))
    multiples = [size for size in sizes if size % step == 0]
    if taken == [size for size in multiples if low <= size <= high]:
        above = None if low == multiples[0] else low
        below = None if high == multiples[-1] else high
        more = _range_text(name, above, below)
        return f"{name} % {step} == 0" + (f" and {more}" if more else "")
    return None


def _range_text(name: str, low: int | None, high: int | None) -> str:
    if low is not None and low == high:
        return f"{name} == {low}"
    parts = [f"{name} >= {low}"] if low is not None else []
    parts += [f"{name} <= {high}"] if high is not None else []
    return " and ".join(parts)


def _raw(given: str, wanted: Dim) -> str:
    """The condition on the dim as it is; empty where every size is taken."""
    match wanted:
        case Fixed(size):
            return f"{given} == {size}"
        case Free(_, low, high, step):
            parts = [f"{given} >= {low}"] if low > 1 else []
            parts += [f"{given} <= {high}"] if high is not None else []
            parts += (
                [f"({given}) % {step} == 0" if " " in given else f"{given} % {step} == 0"]
                if step > 1
                else []
            )
            return " and ".join(parts)
        case Derived() | Unknown():
            return str(given)
        case _:
            assert_never(wanted)


def equalities(given: Iterable[Dim], wanted: Iterable[Dim]) -> list[Condition]:
    """Axes that a consumer wants to be of one size and a producer gives by different rules."""
    first, found = dict[str, Dim](), list[Condition]()
    for dim, asked in zip(given, wanted, strict=True):
        if not isinstance(asked, Free):
            continue
        other = first.setdefault(asked.name, dim)
        sizes = isinstance(dim, Fixed) and isinstance(other, Fixed)
        if (
            other != dim
            and not sizes
            and not isinstance(dim, Unknown)
            and not isinstance(other, Unknown)
        ):
            found.append(Condition(f"{_name(other)} == {_name(dim)}"))
    return found


def _name(dim: Dim) -> str:
    return dim.name if isinstance(dim, Free) else str(dim)
