"""Search for sizes of the shared input at which the outputs of parallel models merge.

The models are run one by one: the sizes of their outputs show how far they are from merging, also
where no dim describes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from composecli.commands.size_runs import Sizes
from composecli.core.dims import Free, admits

MAX_POINTS = 60
_TRIED_SIZES = (1, 2, 3, 5, 8, 16, 32, 64, 128, 256)

# By axis, how much larger the first output is than another one; None if they cannot be compared.
Differences = Mapping[int, int]
Measure = Callable[[Sizes], Differences | None]


@dataclass
class MergingSizes:
    """A search from sizes at which outputs differ to sizes at which none of their axes does."""

    measure: Measure
    ranges: Mapping[str, Free]
    measured: dict[tuple[tuple[str, int], ...], Differences | None] = field(default_factory=dict)

    def find(self, start: Sizes) -> Sizes | None:
        """Return sizes at which the outputs merge, None if none are found.

        One axis after the other is made equal, each by the first symbols that can.
        """
        sizes = start
        for _ in range(len(self._at(start) or ())):
            differences = self._at(sizes)
            if not differences:
                break
            sizes = self._equal(sizes, min(differences)) or sizes
        return sizes if self._at(sizes) == {} else None

    def _equal(self, sizes: Sizes, axis: int) -> Sizes | None:
        """Return sizes at which the outputs are equally long along an axis."""
        for names in self._groups(sizes):
            for size in self._zeros(sizes, names, axis):
                return {**sizes, **dict.fromkeys(names, size)}
        return None

    def _groups(self, sizes: Sizes) -> Iterator[tuple[str, ...]]:
        """Yield each symbol, then those that have the same size, such as both sides of an image."""
        for name in sizes:
            yield (name,)
        names = tuple(sizes)
        for place, name in enumerate(names):
            alike = [other for other in names[place:] if sizes[other] == sizes[name]]
            if len(alike) > 1:
                yield tuple(alike)

    def _zeros(self, sizes: Sizes, names: tuple[str, ...], axis: int) -> Iterator[int]:
        """Yield sizes of some symbols at which an axis has no difference."""

        def difference(size: int) -> int | None:
            found = self._at({**sizes, **dict.fromkeys(names, size)})
            return None if found is None else found.get(axis, 0)

        known = dict[int, int]()
        for size in sorted({*_TRIED_SIZES, sizes[names[0]]}):
            found = difference(size)
            if found is not None:
                known[size] = found
        yield from sorted((size for size in known if known[size] == 0), reverse=True)
        for (low, below), (high, above) in pairwise(known.items()):
            if below * above < 0:
                yield from _bisect(difference, (low, below), high)

    def _at(self, sizes: Sizes) -> Differences | None:
        """Return the differences at these sizes; None if they are not known, or not admitted."""
        key = tuple(sorted(sizes.items()))
        if key not in self.measured:
            if len(self.measured) >= MAX_POINTS or not self._admits(sizes):
                return None
            self.measured[key] = self.measure(sizes)
        return self.measured[key]

    def _admits(self, sizes: Sizes) -> bool:
        return all(admits(self.ranges[name], size) for name, size in sizes.items())


def _bisect(
    difference: Callable[[int], int | None], lower: tuple[int, int], high: int
) -> Iterator[int]:
    """Yield the size between two others where a difference that changes its sign is zero."""
    low, below = lower
    while high - low > 1:
        middle = (low + high) // 2
        found = difference(middle)
        if found is None:
            return
        if found == 0:
            yield middle
            return
        if found * below > 0:
            low = middle
        else:
            high = middle
