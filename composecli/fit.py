"""Fitting: which expression of one input size gives the output sizes that were seen.

The family is what strides, windows, paddings and scales make of a size: `(H + p)//k + c`, `m*((H + p)//k)` and
`m*H + c`. A fit is believed only when one member of the family is left; until then `splitting_size` names the
size whose probe tells the members apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from composecli.dims import Const, Expr, Product, Symbol, add, evaluate, floor_divide, multiply

LARGEST_DIVISOR = 64
LARGEST_SCALE = 64


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
    points = list(seen.items())
    if len(set(seen.values())) == 1:
        return (SizeRule(0, 0, 1, points[0][1]),)
    fitting = (rule for rule in _through(*points[0]) if all(rule.at(size) == value for size, value in points))
    return tuple(dict.fromkeys(fitting))


def _through(size: int, value: int) -> Iterator[SizeRule]:
    """The members that give `value` at `size`."""
    for divisor in range(1, LARGEST_DIVISOR + 1):
        for shift in range(divisor):
            ratio = (size + shift) // divisor
            yield SizeRule(1, shift, divisor, value - ratio)
            if ratio > 0 and value % ratio == 0:
                yield SizeRule(value // ratio, shift, divisor, 0)
    for scale in range(2, LARGEST_SCALE + 1):
        yield SizeRule(scale, 0, 1, value - scale * size)


def splitting_size(rules: Sequence[SizeRule], sizes: Sequence[int]) -> int | None:
    """The one of `sizes` at which these rules differ most; None where they differ at none."""
    if len(rules) < 2:
        return None

    def values(size: int) -> int:
        return len({rule.at(size) for rule in rules})

    best = max(sizes, key=values, default=None)
    return best if best is not None and values(best) > 1 else None


@dataclass(frozen=True, slots=True)
class Moved:
    """One forward with several input sizes changed at once, and the output size that it gave."""

    sizes: Mapping[str, int]
    value: int


def jointly(parts: Mapping[str, Expr], base: Moved, moved: Moved) -> Expr | None:
    """The expression of several input sizes that an output size is: a sum or a product of the parts that each gives
    alone. Changed one at a time both look the same, so that `moved` decides; None where it speaks for neither."""
    terms = [add(part, Const(-base.value)) for part in parts.values()]
    total = add(Const(base.value), *terms)
    fits = [total] if evaluate(total, moved.sizes) == moved.value else []
    whole = base.value ** (len(parts) - 1)
    product = multiply(*parts.values())
    scaled = _divided(product, whole) if whole > 0 else None
    if scaled is not None and evaluate(scaled, moved.sizes) == moved.value:
        fits.append(scaled)
    return fits[0] if len(fits) == 1 else None


def _divided(product: Expr, by: int) -> Expr | None:
    """A product over a number that its constant factor is a multiple of; None where it is not."""
    match product:
        case Product((Const(value), *rest)) if value % by == 0:
            return multiply(Const(value // by), *rest)
    return product if by == 1 else None
