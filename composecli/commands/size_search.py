"""Search for sizes at which a chain runs, by running it: each refusal suggests the next ones."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations

from composecli.commands.size_runs import SizeRuns, Sizes
from composecli.compose.compare import PortPairs
from composecli.compose.conditions import solve_relation
from composecli.compose.fitting_sizes import Need, need_of, sizes_for
from composecli.compose.refusals import explanations
from composecli.core.contract import BATCH
from composecli.core.dims import Fixed, Free, Shape, example_size
from composecli.core.observations import Accepted, Rejected
from composecli.core.relations import Comparison, other_sizes_meeting, relate
from composecli.core.size_expr import Const, Expr, Product, evaluate, format_expr
from composecli.inference.candidates import SizePoint
from composecli.inference.parameter_ops import bare_op_name
from composecli.inference.size_solver import MAX_SIZE, mismatches, secant_step

MAX_RUNS = 40
# Sizes that are tried if a refusal states none: those that many steps divide come first.
_USUAL_SIZES = (1, 32, 240, 224, 16, 480, 20, 28, 8, 4, 12, 96, 2, 24, 10, 128, 7, 14, 48, 256)
MAX_USUAL_SIZES = 14
# The kinds of proposals, the best first.
_EXPLAINED, _SOLVED, _USUAL = range(3)

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chain failed, with the sizes that the op had and wanted."""

    op: str
    where: str
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, order=True)
class _Proposal:
    """Sizes to try: those that answer the attempt that got furthest come first."""

    progress: tuple[int, int]
    kind: int
    order: int
    sizes: Sizes = field(compare=False)


@dataclass
class SizeSearch:
    """A search for sizes at which the last model of a chain accepts its inputs.

    `shapes` are the dims of the producer's outputs, and `start` the sizes that it refused.
    """

    runs: SizeRuns
    start: Sizes
    shapes: tuple[Shape, ...]
    proposals: list[_Proposal] = field(default_factory=list)
    tried: list[Sizes] = field(default_factory=list)
    points: dict[tuple[Names, str, int], tuple[SizePoint, ...]] = field(default_factory=dict)
    needs: set[Need] = field(default_factory=set)

    def find(self) -> Sizes | None:
        """Return sizes at which the chain runs; None if none are found."""
        self.tried.append(self.start)
        self._answer(self.start)
        while self.proposals and len(self.tried) <= MAX_RUNS:
            sizes = heapq.heappop(self.proposals).sizes
            if sizes in self.tried:
                continue
            self.tried.append(sizes)
            if isinstance(self.runs.at(sizes), Accepted):
                return sizes
            self._answer(sizes)
        return None

    def is_about_other_things(self, *, is_constant: bool) -> bool:
        """Return whether the refusal is the same at other sizes, so that no size changes it.

        `is_constant`: a size of which it is known that the consumer refuses it is always the same.
        """
        place = self._place(self.start)
        if place is None or not (place.sizes or is_constant):
            return False
        others = list(self._other_sizes())
        if self.runs.first.where and not others:
            return False
        places = [self._place(sizes) for sizes in others]
        return all(other == place for other in places)

    def _other_sizes(self) -> Iterator[Sizes]:
        """Yield the smallest sizes, larger ones than at the start, and those of related dims."""
        own = self._own
        smallest = {name: example_size(free, free.low) for name, free in own.items()}
        larger = dict[str, int]()
        for number, (name, free) in enumerate(own.items(), 1):
            larger[name] = example_size(free, self.start[name] + number)
        related = other_sizes_meeting(self.runs.first.where, own, self.start)
        for sizes in (smallest, larger, *related):
            if sizes != self.start and self.runs.admits(sizes):
                yield sizes

    def reason_for_never(self) -> str | None:
        """Return why no size fits, if no input size gives the failing op the size that it wants."""
        rejected = self.runs.at(self.start)
        if not isinstance(rejected, Rejected):
            return None
        for have, want in _wanted(rejected):
            for expr in explanations(self.shapes, have, self.start):
                if _is_never(expr, rejected, want):
                    return f"{format_expr(expr)} is never {want}"
                if not _infers_size(rejected) and self._explains(expr, rejected, want):
                    equal = relate(expr, Comparison.EQUALS, Const(want))
                    condition = solve_relation(equal, self.runs.ranges)
                    if condition is not None and condition.why_never is not None:
                        return condition.why_never
        return None

    def _explains(self, expr: Expr, rejected: Rejected, want: int) -> bool:
        """Return whether the failing op had this size wherever it failed: at two sizes or more."""
        found = list[bool]()
        for sizes in self.tried:
            other = self.runs.at(sizes)
            if not isinstance(other, Rejected) or other.where != rejected.where:
                continue
            haves = [had for had, wanted in _wanted(other) if wanted == want]
            found.append(evaluate(expr, sizes) in haves)
        return len(found) > 1 and all(found)

    @property
    def _own(self) -> dict[str, Free]:
        """The range of each symbol that has a size."""
        return {name: self.runs.ranges[name] for name in self.start}

    def _place(self, sizes: Sizes) -> Place | None:
        """Return where the chain fails at these sizes; None if the last model does not fail."""
        observation = self.runs.at(sizes)
        if self.runs.fits(sizes) is not False or not isinstance(observation, Rejected):
            return None
        found = [(mismatch.have, mismatch.want) for mismatch in mismatches(observation)]
        return Place(observation.op or "", observation.where, tuple(found))

    def _answer(self, sizes: Sizes) -> None:
        """Add proposals that answer the refusal of these sizes."""
        rejected = self.runs.at(sizes)
        if not isinstance(rejected, Rejected) or self.runs.fits(sizes) is None:
            return
        progress = (-rejected.stage, -rejected.ops)
        self._add(progress, _EXPLAINED, self._explained(sizes, rejected))
        self._add(progress, _SOLVED, self._solved(sizes, rejected))
        if not any(_wanted(rejected)):
            self._add(progress, _USUAL, self._usual(sizes))

    def _add(self, progress: tuple[int, int], kind: int, found: Iterable[Sizes]) -> None:
        """Add proposals of one kind, in order."""
        for sizes in found:
            if sizes in self.tried or not self.runs.admits(sizes):
                continue
            order = len(self.proposals) + len(self.tried) * MAX_RUNS
            heapq.heappush(self.proposals, _Proposal(progress, kind, order, sizes))

    def _explained(self, sizes: Sizes, rejected: Rejected) -> Iterator[Sizes]:
        """Yield sizes at which the failing op gets the size that it wants."""
        for have, want in _wanted(rejected):
            for expr in explanations(self.shapes, have, sizes):
                need = Need(expr, Fixed(want))
                if _infers_size(rejected):
                    need = Need(expr, Free("", step=want))
                if need in self.needs or _is_never(expr, rejected, want):
                    continue
                self.needs.add(need)
                needs = [need, *map(need_of, self.runs.first.where)]
                changed = sizes_for(needs, tuple(self._own.values()), sizes)
                if changed:
                    yield {**sizes, **changed}

    def _solved(self, sizes: Sizes, rejected: Rejected) -> Iterator[Sizes]:
        """Yield the sizes of the next secant step towards the size that the failing op wants."""
        for have, want in _wanted(rejected):
            for names in self._groups():
                key = (names, rejected.where, want)
                size = sizes[names[0]]
                points = (*self.points.get(key, ()), SizePoint(size, have))
                self.points[key] = points
                following = secant_step(points, want, len(names))
                if following is not None and 0 < following <= MAX_SIZE:
                    yield {**sizes, **dict.fromkeys(names, self._nearest(names, following))}

    def _nearest(self, names: Names, size: int) -> int:
        """Return the next size that the first of these symbols admits."""
        return example_size(self._own[names[0]], size)

    def _usual(self, sizes: Sizes) -> Iterator[Sizes]:
        """Yield usual sizes for each symbol, and for both sides of an image."""
        for names in self._groups():
            own = self._own[names[0]]
            usual = [size for size in _USUAL_SIZES if size >= own.low]
            for size in usual[:MAX_USUAL_SIZES]:
                yield {**sizes, **dict.fromkeys(names, self._nearest(names, size))}

    def _groups(self) -> Iterator[Names]:
        """Yield symbols to change together: both sides of an image, then each, the batch last."""
        names = [name for name in self.start if name != BATCH]
        for one, other in combinations(names, 2):
            if self.start[one] == self.start[other] and self._own[one].low == self._own[other].low:
                yield one, other
        for name in names:
            yield (name,)
        if BATCH in self.start:
            yield (BATCH,)


def _wanted(rejected: Rejected) -> Iterator[tuple[int, int]]:
    """Yield the size that the failing op was given and the one that it wants."""
    for mismatch in mismatches(rejected):
        if mismatch.want > 0:
            yield mismatch.have, mismatch.want


def _is_never(expr: Expr, rejected: Rejected, want: int) -> bool:
    """Return whether a product has a factor that the size that is wanted does not have."""
    match expr:
        case Product((Const(factor), *_)):
            return want % factor != 0 and not _infers_size(rejected)
    return False


def _infers_size(rejected: Rejected) -> bool:
    """Return whether the failing op takes any multiple: `view(-1, 1024)` does."""
    return "view" in bare_op_name(rejected.op) and -1 in rejected.numbers


def producer_shapes(pairs: PortPairs, outputs: Iterable[Shape]) -> tuple[Shape, ...]:
    """Return the dims of the outputs that are fed to the consumer."""
    paired = tuple(producer.dims for producer, _ in pairs)
    return paired or tuple(outputs)
