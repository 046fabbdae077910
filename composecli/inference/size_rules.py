"""Fit an expression of the input size to observed output sizes.

Strides, kernels, paddings and scales produce sizes of the form `m*((H + p)//k) + c`. A rule is
accepted only when it is the only one of this family that fits; until then `splitting_size`
returns the size whose probe distinguishes the rules best.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from composecli.core.size_expr import (
    Const,
    Expr,
    Symbol,
    add,
    evaluate,
    floor_divide,
    multiply,
    split_factor,
)

# Beyond the small ones: products of the strides of audio encoders.
DIVISORS = (
    *range(1, 65), 80, 96, 100, 112, 120, 128, 144, 160, 192, 200, 224, 240, 256, 300, 320, 384,
    400, 441, 480, 512, 600, 640, 768, 800, 960, 1024, 1280, 1920,
)  # fmt: skip
MAX_SCALE = 4096


class Point(NamedTuple):
    """An input size and the output size that it produced."""

    size: int
    output: int


@dataclass(frozen=True, slots=True)
class SizeRule:
    """One rule of the family, `scale*((size + shift)//divisor) + offset`.

    Plain integers, because thousands of rules are tried.
    """

    scale: int
    shift: int
    divisor: int
    offset: int

    def at(self, size: int) -> int:
        """Return the output size at this input size."""
        ratio = (size + self.shift) // self.divisor
        return self.scale * ratio + self.offset

    @property
    def ratio(self) -> SizeRule:
        """The rule without its scale and offset: `(size + shift)//divisor`."""
        return SizeRule(1, self.shift, self.divisor, 0)

    def expr(self, symbol: str) -> Expr:
        """Return the rule as an expression of the input size with this name."""
        shifted = add(Symbol(symbol), Const(self.shift))
        ratio = floor_divide(shifted, self.divisor)
        scaled = multiply(Const(self.scale), ratio)
        return add(scaled, Const(self.offset))


class Run(NamedTuple):
    """The first of a few consecutive sizes that make no difference, and how many they are."""

    first: int
    length: int

    @property
    def outside(self) -> tuple[int, int, int]:
        """Sizes of the next run, of the one before it, and of the next but one."""
        return (self.first + self.length, self.first - 1, self.first + 2 * self.length)


def rule_of_runs(run: Run, step: int, size: int) -> SizeRule:
    """Return the rule by which the output is `size` in a run, and `step` larger in the next one.

    Pooling by 4 makes 16 of 64 to 67: the rule of `Run(64, 4)` with step 1 and size 16 is `L//4`.
    """
    shift = -run.first % run.length
    ratio = (run.first + shift) // run.length
    return SizeRule(step, shift, run.length, size - step * ratio)


def candidates(outputs: Mapping[int, int]) -> tuple[SizeRule, ...]:
    """Return every rule that fits a table of input size to output size, the simplest first.

    `{32: 16, 33: 17, 64: 32, 65: 33}` fits `(H + 1)//2`, which is `ceil(H/2)`.
    """
    points = [Point(size, output) for size, output in outputs.items()]
    return _candidates(tuple(points))


# Several axes often have the same table, and conclusions are drawn more than once.
@functools.lru_cache(maxsize=4096)
def _candidates(points: tuple[Point, ...]) -> tuple[SizeRule, ...]:
    """Return every rule that fits the points."""
    outputs = {point.output for point in points}
    if len(outputs) == 1:
        return (SizeRule(0, 0, 1, points[0].output),)
    fitting = dict[SizeRule, None]()
    for rule in _rules_through(points):
        if all(rule.at(size) == output for size, output in points):
            fitting[rule] = None
    return tuple(fitting)


def _rules_through(points: Sequence[Point]) -> Iterator[SizeRule]:
    """Yield the rule through the first point and one that determines the scale."""
    first, others = points[0], points[1:]
    for divisor in DIVISORS:
        for shift in range(divisor):
            ratio = (first.size + shift) // divisor
            for size, output in others:
                ratio_change = (size + shift) // divisor - ratio
                output_change = output - first.output
                if ratio_change and output_change:
                    scale, rest = divmod(output_change, ratio_change)
                    if not rest and 0 < scale <= MAX_SCALE:
                        offset = first.output - scale * ratio
                        yield SizeRule(scale, shift, divisor, offset)
                    break


def splitting_size(rules: Sequence[SizeRule], sizes: Sequence[int]) -> int | None:
    """Return the size after whose probe the fewest rules are left in the worst case.

    None if the rules agree at all sizes.
    """
    if len(rules) < 2:
        return None

    def most_left(size: int) -> int:
        """Return how many rules are left if the most common output size is observed."""
        counts = Counter(rule.at(size) for rule in rules)
        return max(counts.values())

    best = min(sizes, key=most_left, default=None)
    if best is None or most_left(best) == len(rules):
        return None
    return best


@dataclass(frozen=True, slots=True)
class JointSample:
    """Several input sizes, by name, and the output size that they produced."""

    sizes: Mapping[str, int]
    value: int


def combine(parts: Mapping[str, Expr], base: JointSample, moved: JointSample) -> Expr | None:
    """Return the expression of several input sizes of which each part holds when one size changes.

    It is the sum of the parts, or their product with an offset. If the sizes change one at a
    time, both look alike, so `moved` decides. None if neither predicts it.

    A `(4, 8)` input is flattened to 32. The parts are `8*N` and `4*T`; at N=7 and T=19 the output
    is 133. The sum, `8*N + 4*T - 32`, predicts 100; the product, `N*T`, predicts 133.
    """
    negated_base = Const(-base.value)
    changes = [add(part, negated_base) for part in parts.values()]
    total = add(Const(base.value), *changes)
    if evaluate(total, moved.sizes) == moved.value:
        return total
    return _combine_product(parts, base, moved)


def _combine_product(
    parts: Mapping[str, Expr], base: JointSample, moved: JointSample
) -> Expr | None:
    """Return the product of the parts with an offset; None if it does not predict `moved`."""
    offset = _product_offset(parts, base, moved)
    if offset is None:
        return None
    factors = list[Expr]()
    scale = 1
    for part in parts.values():
        without_offset = add(part, Const(-offset))
        part_scale, factor = split_factor(without_offset)
        scale *= part_scale
        factors.append(factor)
    # Each part contains the other parts at their base sizes.
    repeated = (base.value - offset) ** (len(parts) - 1)
    if repeated <= 0 or scale % repeated:
        return None
    product = multiply(Const(scale // repeated), *factors)
    expr = add(product, Const(offset))
    if evaluate(expr, moved.sizes) == moved.value:
        return expr
    return None


def _product_offset(parts: Mapping[str, Expr], base: JointSample, moved: JointSample) -> int | None:
    """Return the offset of a product of two parts.

    It is `c` with `(one - c)*(other - c) == (base - c)*(moved - c)`; 0 for more parts, None if it
    is not an integer.
    """
    if len(parts) != 2:
        return 0
    values = [evaluate(part, moved.sizes) for part in parts.values()]
    one, other = values
    denominator = one + other - moved.value - base.value
    numerator = one * other - moved.value * base.value
    if denominator == 0 or numerator % denominator:
        return None
    return numerator // denominator
