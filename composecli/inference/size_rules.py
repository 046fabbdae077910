"""Fitting: which expression of one input size gives the output sizes that were seen.

The family is what strides, windows, paddings and scales make of a size: `m*((H + p)//k) + c`. A fit is believed
only when one member of the family is left; until then `splitting_size` names the size whose probe tells the
members apart.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from composecli.core.size_expr import (
    Const,
    Expr,
    Product,
    Sum,
    Symbol,
    add,
    evaluate,
    floor_divide,
    multiply,
)

# Beyond the small ones: what the strides of audio encoders multiply to.
DIVISORS = (
    *range(1, 65), 80, 96, 100, 112, 120, 128, 144, 160, 192, 200, 224, 240, 256, 300, 320, 384, 400, 441, 480, 512,
    600, 640, 768, 800, 960, 1024, 1280, 1920,
)  # fmt: skip
LARGEST_SCALE = 4096


@dataclass(frozen=True, slots=True)
class SizeRule:
    """One member of the family, `scale*((size + shift)//divisor) + offset`, in plain numbers: thousands are tried."""

    scale: int
    shift: int
    divisor: int
    offset: int

    def at(self, size: int) -> int:
        return self.scale * ((size + self.shift) // self.divisor) + self.offset

    def expr(self, symbol: str) -> Expr:
        ratio = floor_divide(add(Symbol(symbol), Const(self.shift)), self.divisor)
        return add(multiply(Const(self.scale), ratio), Const(self.offset))


def candidates(seen: Mapping[int, int]) -> tuple[SizeRule, ...]:
    """Every member of the family that gives `seen`, a table of input size -> output size. Plainest first."""
    return _candidates(tuple(seen.items()))


@functools.lru_cache(maxsize=4096)
def _candidates(points: tuple[tuple[int, int], ...]) -> tuple[SizeRule, ...]:
    """The same table is asked for by every axis that it stands for, and again when there is more to conclude."""
    if len({value for _, value in points}) == 1:
        return (SizeRule(0, 0, 1, points[0][1]),)
    fitting = (
        rule for rule in _through(points) if all(rule.at(size) == value for size, value in points)
    )
    return tuple(dict.fromkeys(fitting))


def _through(points: Sequence[tuple[int, int]]) -> Iterator[SizeRule]:
    """The members through the first two points that tell their scale and offset, for each divisor and shift."""
    size, value = points[0]
    for divisor in DIVISORS:
        for shift in range(divisor):
            ratio = (size + shift) // divisor
            others = (
                ((other + shift) // divisor - ratio, seen - value) for other, seen in points[1:]
            )
            moved = next((pair for pair in others if pair[0] and pair[1]), None)
            if moved is None:
                continue
            scale, rest = divmod(moved[1], moved[0])
            if not rest and 0 < scale <= LARGEST_SCALE:
                yield SizeRule(scale, shift, divisor, value - scale * ratio)


def splitting_size(rules: Sequence[SizeRule], sizes: Sequence[int]) -> int | None:
    """The one of `sizes` that leaves the fewest rules, whatever comes of it; None where they differ at none."""
    if len(rules) < 2:
        return None

    def left(size: int) -> int:
        return max(Counter(rule.at(size) for rule in rules).values())

    best = min(sizes, key=left, default=None)
    return best if best is not None and left(best) < len(rules) else None


@dataclass(frozen=True, slots=True)
class JointSample:
    """One forward with several input sizes changed at once, and the output size that it gave."""

    sizes: Mapping[str, int]
    value: int


def combine(parts: Mapping[str, Expr], base: JointSample, moved: JointSample) -> Expr | None:
    """The expression of several input sizes that an output size is: a sum of the parts that each gives alone, or a
    product of them with something added. Changed one at a time both look the same, so that `moved` decides; None
    where it speaks for neither."""
    terms = [add(part, Const(-base.value)) for part in parts.values()]
    total = add(Const(base.value), *terms)
    if evaluate(total, moved.sizes) == moved.value:
        return total
    added = _added(parts, base, moved)
    if added is None:
        return None
    whole = (base.value - added) ** (len(parts) - 1)
    factors = [_factored(add(part, Const(-added))) for part in parts.values()]
    scale = math.prod(scale for scale, _ in factors)
    if whole <= 0 or scale % whole:
        return None
    found = add(multiply(Const(scale // whole), *(factor for _, factor in factors)), Const(added))
    return found if evaluate(found, moved.sizes) == moved.value else None


def _added(parts: Mapping[str, Expr], base: JointSample, moved: JointSample) -> int | None:
    """What is added to a product of two parts: `c` with `(one - c)*(other - c) == (base - c)*(moved - c)`."""
    if len(parts) != 2:
        return 0
    one, other = (evaluate(part, moved.sizes) for part in parts.values())
    below = one + other - moved.value - base.value
    above = one * other - moved.value * base.value
    return above // below if below and above % below == 0 else None


def _factored(expr: Expr) -> tuple[int, Expr]:
    """An expression as a whole number times another."""
    terms = expr.terms if isinstance(expr, Sum) else (expr,)
    scale = math.gcd(*(_coefficient(term) for term in terms))
    if scale < 2:
        return 1, expr
    return scale, add(*(_over(term, scale) for term in terms))


def _coefficient(term: Expr) -> int:
    match term:
        case Const(value) | Product((Const(value), *_)):
            return value
    return 1


def _over(term: Expr, scale: int) -> Expr:
    match term:
        case Const(value):
            return Const(value // scale)
        case Product((Const(value), *rest)):
            return multiply(Const(value // scale), *rest)
    return term
