"""Fitting: which expression of one input size gives the output sizes that were seen.

The family is what strides, windows, paddings and scales make of a size: `(H + p)//k + c`, `m*((H + p)//k)` and
`m*H + c`. A fit is believed only when one member of the family is left; until then `splitting_size` names the
size whose probe tells the members apart.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from composecli.dims import Const, Expr, Product, Symbol, add, evaluate, floor_divide, multiply

LARGEST_DIVISOR = 64
LARGEST_SCALE = 64


@functools.cache
def _ratios(symbol: str) -> tuple[Expr, ...]:
    name = Symbol(symbol)
    return tuple(
        floor_divide(add(name, Const(shift)), divisor)
        for divisor in range(1, LARGEST_DIVISOR + 1)
        for shift in range(divisor)
    )


def candidates(symbol: str, seen: Mapping[int, int]) -> tuple[Expr, ...]:
    """Every member of the family that gives `seen`, a table of input size -> output size. Plainest first."""
    if len(set(seen.values())) == 1:
        return (Const(next(iter(seen.values()))),)
    found = dict[Expr, None]()
    size, value = next(iter(seen.items()))
    for ratio in _ratios(symbol):
        base = evaluate(ratio, {symbol: size})
        options = [add(ratio, Const(value - base))]
        if base > 0 and value % base == 0:
            options.append(multiply(Const(value // base), ratio))
        for option in options:
            if _gives(option, symbol, seen):
                found[option] = None
    for scale in range(2, LARGEST_SCALE + 1):
        line = add(multiply(Const(scale), Symbol(symbol)), Const(value - scale * size))
        if _gives(line, symbol, seen):
            found[line] = None
    return tuple(found)


def _gives(expr: Expr, symbol: str, seen: Mapping[int, int]) -> bool:
    return all(evaluate(expr, {symbol: size}) == value for size, value in seen.items())


def splitting_size(symbol: str, exprs: Sequence[Expr], sizes: Sequence[int]) -> int | None:
    """The one of `sizes` at which these expressions differ most; None where they differ at none."""
    if len(exprs) < 2:
        return None

    def values(size: int) -> int:
        return len({evaluate(expr, {symbol: size}) for expr in exprs})

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
