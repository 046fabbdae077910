"""Find sizes of a chain's input at which the ports of a seam fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product

from composecli.compose.compare import PortPairs
from composecli.compose.conditions import MAX_TRIED_SIZE
from composecli.core.dims import Dim, Free, admits, as_expr, as_free, sizes_between
from composecli.core.relations import Where, holds
from composecli.core.size_expr import Expr, evaluate, symbols

MAX_CHANGES = 16
# If two sizes have to change at once, as those of an image that is flattened: both to the same size
# below this one, or each to any size up to the next.
MAX_SIDE_OF_SQUARE = 1024
MAX_SIDE = 96

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of a seam: the size that the producer gives, and the dim that the consumer takes."""

    gives: Expr
    takes: Dim


@dataclass(frozen=True, slots=True)
class _Axes:
    """The axes of a seam, and the relations between the sizes that the consumer takes."""

    axes: list[_Axis]
    where: Where

    def wrong(self, sizes: Sizes) -> list[frozenset[str]]:
        """Return the symbols behind each axis or relation that does not fit at these sizes."""
        wrong = list[frozenset[str]]()
        bound = dict[str, int]()
        names = dict[str, frozenset[str]]()
        for axis in self.axes:
            value = evaluate(axis.gives, sizes)
            free = as_free(axis.takes)
            fits = value > 0 and admits(axis.takes, value) is not False
            if free is not None:
                fits = fits and bound.setdefault(free.name, value) == value
                names.setdefault(free.name, symbols(axis.gives))
            needed = as_expr(axis.takes)
            if free is None and needed is not None and symbols(needed) <= bound.keys():
                fits = fits and evaluate(needed, bound) == value
            if not fits:
                wrong.append(symbols(axis.gives))
        for relation in self.where:
            if relation.symbols <= bound.keys() and not holds(relation, bound):
                related = [names[name] for name in relation.symbols]
                wrong.append(frozenset().union(*related))
        return wrong


@dataclass(frozen=True, slots=True)
class _Own:
    """What the input of the chain admits: ranges, and relations between them."""

    ranges: Mapping[str, Free]
    where: Where

    def allow(self, sizes: Sizes) -> bool:
        """Return whether the relations hold at these sizes."""
        return all(
            holds(relation, sizes) for relation in self.where if relation.symbols <= sizes.keys()
        )


def fitting_sizes(
    pairs: PortPairs, ranges: tuple[Free, ...], sizes: Sizes
) -> dict[str, int] | None:
    """Return sizes of the chain's input at which the dims of a seam fit; None if none are found.

    A producer of `float32[1, C, H, W]` from `float32[H, W, C]` fits a consumer of
    `float32[N, 3, H>=3, W>=3]` with `C=3, H=3, W=8`, the sizes next to those of the example
    `float32[2, 8, 4]`. `ranges` are the free dims of the input, and `sizes` those of the example.
    """
    axes = _Axes(list(_known_axes(pairs, sizes)), _relations(pairs))
    known = tuple(relation for producer, _ in pairs for relation in producer.where)
    own = {free.name: free for free in ranges if free.name in sizes}
    chosen = dict(sizes)
    for _ in range(MAX_CHANGES):
        wrong = axes.wrong(chosen)
        if not wrong:
            return {name: size for name, size in chosen.items() if size != sizes[name]}
        better = _with_fewer_wrong(axes, wrong, _Own(own, known), chosen)
        if better is None:
            return None
        chosen = better
    return None


def _relations(pairs: PortPairs) -> Where:
    """Return the relations of the consumer, which all its ports have."""
    return tuple(dict.fromkeys(relation for _, consumer in pairs for relation in consumer.where))


def _known_axes(pairs: PortPairs, sizes: Sizes) -> Iterator[_Axis]:
    """Yield the axes whose size follows from the input, those with free dims first."""
    derived = list[_Axis]()
    for producer, consumer in pairs:
        dims = consumer.port.dims or ()
        if len(dims) != len(producer.dims):
            continue
        for given, taken in zip(producer.dims, dims, strict=True):
            expr = as_expr(given)
            if expr is None or not symbols(expr) <= sizes.keys():
                continue
            axis = _Axis(expr, taken)
            if as_free(taken) is None:
                derived.append(axis)
            else:
                yield axis
    yield from derived


def _with_fewer_wrong(
    axes: _Axes, wrong: list[frozenset[str]], own: _Own, sizes: Sizes
) -> dict[str, int] | None:
    """Return the sizes with one of them changed as little as makes more axes fit."""
    for names in wrong:
        for changes in _changes(sorted(names & own.ranges.keys()), own.ranges, sizes):
            changed = {**sizes, **changes}
            if len(axes.wrong(changed)) < len(wrong) and own.allow(changed):
                return changed
    return None


def _changes(names: list[str], ranges: Mapping[str, Free], sizes: Sizes) -> Iterator[Sizes]:
    """Yield other sizes for one of these symbols, the nearest first, then for two at once.

    Two that have the same size are the sides of an image: they are changed together first.
    """
    alike = [pair for pair in combinations(names, 2) if sizes[pair[0]] == sizes[pair[1]]]
    for pair in alike:
        yield from _squares(pair, ranges, sizes)
    for name in names:
        own = ranges[name]
        tried = sizes_between(own, own.low, own.high or MAX_TRIED_SIZE)
        for size in _nearest_first(tried, sizes[name]):
            yield {name: size}
    for pair in combinations(names, 2):
        one, other = pair
        yield from _squares(pair, ranges, sizes)
        sides = [sizes_between(ranges[name], 1, MAX_SIDE) for name in pair]
        for first, second in product(*sides):
            yield {one: first, other: second}


def _squares(pair: tuple[str, str], ranges: Mapping[str, Free], sizes: Sizes) -> Iterator[Sizes]:
    """Yield one size for both symbols, the nearest first."""
    for size in _nearest_first(range(1, MAX_SIDE_OF_SQUARE), sizes[pair[0]]):
        if all(admits(ranges[name], size) for name in pair):
            yield dict.fromkeys(pair, size)


def _nearest_first(tried: Iterable[int], size: int) -> list[int]:
    """Return the sizes by their distance from this one."""
    return sorted(tried, key=lambda other: abs(other - size))
