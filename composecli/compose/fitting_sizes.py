"""Find sizes of a chain's input at which the ports of a seam fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product

from composecli.compose.compare import PortPairs, given_to
from composecli.compose.conditions import MAX_TRIED_SIZE, largest_tried, limits_of
from composecli.core.dims import (
    Dim,
    Free,
    admits,
    as_expr,
    as_free,
    bounds,
    sizes_between,
    sizes_to_try,
)
from composecli.core.relations import Comparison, Relation, relate
from composecli.core.size_expr import Const, Expr, evaluate, substitute, symbols

MAX_CHANGES = 16
# If two sizes have to change at once, as those of an image that is flattened: both to the same size
# below this one, or each to any size up to the next.
MAX_SIDE_OF_SQUARE = 1024
MAX_SIDE = 96

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Need:
    """One need of a consumer: the size that the producer gives, and the dim that is taken."""

    gives: Expr
    takes: Dim


def fitting_sizes(
    pairs: PortPairs, ranges: tuple[Free, ...], sizes: Sizes
) -> dict[str, int] | None:
    """Return sizes of the chain's input at which the dims of a seam fit; None if none are found.

    A producer of `float32[1, C, H, W]` from `float32[H, W, C]` fits a consumer of
    `float32[N, 3, H>=3, W>=3]` with `C=3, H=3, W=8`, the sizes next to those of the example
    `float32[2, 8, 4]`. `ranges` are the free dims of the input, and `sizes` those of the example.
    """
    return sizes_for(list(needs_of(pairs, sizes)), ranges, sizes)


def sizes_for(axes: list[Need], ranges: tuple[Free, ...], sizes: Sizes) -> dict[str, int] | None:
    """Return the sizes that change, next to those of the example, so that all needs are met."""
    own = {free.name: free for free in ranges if free.name in sizes}
    chosen = dict(sizes)
    for _ in range(MAX_CHANGES):
        wrong = _wrong_axes(axes, chosen)
        if not wrong:
            return {name: size for name, size in chosen.items() if size != sizes[name]}
        better = _with_fewer_wrong_axes(axes, wrong, own, chosen)
        if better is None:
            return None
        chosen = better
    return None


def need_of(relation: Relation) -> Need:
    """Return the need that a relation holds."""
    return Need(*limits_of(relation))


def equal(one: Expr, other: Expr) -> Need:
    """Return the need that two sizes are equal."""
    return need_of(relate(one, Comparison.EQUALS, other))


def needs_of(pairs: PortPairs, sizes: Sizes) -> Iterator[Need]:
    """Yield the needs of the axes whose size follows from the input, and those of relations."""
    yield from _needs_of_axes(pairs, sizes)
    where = tuple(relation for _, consumer in pairs for relation in consumer.where)
    known = tuple(relation for producer, _ in pairs for relation in producer.where)
    for relation in dict.fromkeys((*known, *given_to(pairs).restated(where))):
        if relation.symbols and relation.symbols <= sizes.keys():
            yield need_of(relation)


def _needs_of_axes(pairs: PortPairs, sizes: Sizes) -> Iterator[Need]:
    """Yield the axes whose size follows from the input, those with free dims first."""
    derived = list[Need]()
    for producer, consumer in pairs:
        dims = consumer.port.dims or ()
        if len(dims) != len(producer.dims):
            continue
        for given, taken in zip(producer.dims, dims, strict=True):
            expr = as_expr(given)
            if expr is None or not symbols(expr) <= sizes.keys():
                continue
            axis = Need(expr, taken)
            if as_free(taken) is None:
                derived.append(axis)
            else:
                yield axis
    yield from derived


def _wrong_axes(axes: list[Need], sizes: Sizes) -> list[Need]:
    """Return the axes that do not fit at these sizes of the input."""
    wrong = list[Need]()
    bound = dict[str, int]()
    for axis in axes:
        value = evaluate(axis.gives, sizes)
        free = as_free(axis.takes)
        fits = value > 0 and admits(axis.takes, value) is not False
        if free is not None:
            fits = fits and bound.setdefault(free.name, value) == value
        needed = as_expr(axis.takes)
        if free is None and needed is not None and symbols(needed) <= bound.keys():
            fits = fits and evaluate(needed, bound) == value
        if not fits:
            wrong.append(axis)
    return wrong


def _with_fewer_wrong_axes(
    axes: list[Need], wrong: list[Need], ranges: Mapping[str, Free], sizes: Sizes
) -> dict[str, int] | None:
    """Return the sizes with one of them changed as little as makes more axes fit."""
    for axis in wrong:
        names = sorted(symbols(axis.gives) & ranges.keys())
        largest = _largest_size(axis, names, ranges, sizes)
        for changes in _changes(names, ranges, sizes, largest):
            changed = {**sizes, **changes}
            if len(_wrong_axes(axes, changed)) < len(wrong):
                return changed
    return None


def _largest_size(axis: Need, names: list[str], ranges: Mapping[str, Free], sizes: Sizes) -> int:
    """Return the largest size to try: a waveform has more samples than there are sizes to try."""
    takes = bounds(axis.takes)
    if takes is None or len(names) != 1:
        return MAX_TRIED_SIZE
    others = {name: Const(size) for name, size in sizes.items() if name not in names}
    expr = substitute(axis.gives, others)
    return largest_tried(expr, takes, ranges[names[0]])


def _changes(
    names: list[str], ranges: Mapping[str, Free], sizes: Sizes, largest: int
) -> Iterator[Sizes]:
    """Yield other sizes: one for both sides of a square, for one symbol, then for two at once."""
    pairs = list(combinations(names, 2))
    squares = [pair for pair in pairs if sizes[pair[0]] == sizes[pair[1]]]
    for pair in squares:
        yield from _equal_sizes(pair, ranges, sizes)
    for name in names:
        own = ranges[name]
        tried = sizes_to_try(own, largest)
        for size in _nearest_first(tried, sizes[name]):
            yield {name: size}
    for pair in pairs:
        yield from _equal_sizes(pair, ranges, sizes)
        sides = [sizes_between(ranges[name], 1, MAX_SIDE) for name in pair]
        for first, second in product(*sides):
            yield dict(zip(pair, (first, second), strict=True))


def _equal_sizes(
    pair: tuple[str, str], ranges: Mapping[str, Free], sizes: Sizes
) -> Iterator[Sizes]:
    """Yield the sizes that two symbols may have both, the nearest first."""
    for size in _nearest_first(range(1, MAX_SIDE_OF_SQUARE), sizes[pair[0]]):
        if all(admits(ranges[name], size) for name in pair):
            yield dict.fromkeys(pair, size)


def _nearest_first(tried: Iterable[int], size: int) -> list[int]:
    """Return the sizes by their distance from this one."""
    return sorted(tried, key=lambda other: abs(other - size))
