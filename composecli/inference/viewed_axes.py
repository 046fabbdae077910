"""Find axes of which a view behind other layers takes only some products.

Behind a pooling by 2, `x.view(-1, 2048)` accepts images with `N*(H//2)*(W//2) % 256 == 0`. PyTorch
refuses others with the number of their elements, from which the factor of each axis is found:

    shape '[-1, 2048]' is invalid for input of size 16896
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from composecli.core.dims import Dim, as_free, unknown_reason
from composecli.core.observations import Rejected
from composecli.core.pytree import Axis, call_leaves
from composecli.core.relations import Comparison
from composecli.inference.related_axes import ODD_PAIRS, RelatedAxes, Sizes, Trials, is_limited
from composecli.inference.size_rules import SizeRule, candidates, splitting_size

# Sizes from the start at which elements are counted first, and at which rules may be told apart.
_STEPS = range(7)
_REACH = 70
MAX_SPLITS = 8
# A model may raise an error in the words of PyTorch: sizes have a limit, as those of tensors do.
_SIZE = r"-?\d{1,18}"
_REFUSAL = re.compile(
    rf"shape '\[({_SIZE}(?:, {_SIZE})*)\]' is invalid for input of size ({_SIZE})"
)

Rules = Mapping[int, SizeRule]


class Refusal(NamedTuple):
    """A view that was refused: the shape that was asked for, and the elements that there were."""

    shape: tuple[int, ...]
    elements: int

    @property
    def width(self) -> int:
        """The number of elements of a row; 0 if the shape has another form than rows."""
        if self.shape.count(-1) != 1:
            return 0
        return max(0, -math.prod(self.shape))


def find_viewed(trials: Trials) -> RelatedAxes | None:
    """Return the axes of one input that a view relates; None if there are none.

    They are confirmed at sizes that meet the relation and sizes that break it.
    """
    if not any(map(_takes_some_sizes, trials.dims)):
        return None
    movable = [number for number, dim in enumerate(trials.dims) if not _is_settled(dim)]
    if not movable:
        return None
    refusals = list[tuple[int, Sizes, Refusal]]()
    for sizes in _starts(trials, movable):
        refusal = _refusal(trials, sizes)
        if refusal is not None and refusal.width:
            shared = math.gcd(refusal.elements, refusal.width)
            refusals.append((shared, sizes, refusal))
    if not refusals:
        return None
    # With few factors of the width, other sizes are refused, too, so that elements are counted.
    _, start, refusal = min(refusals, key=lambda found: found[0])
    return _related(trials, start, refusal)


def _is_settled(dim: Dim) -> bool:
    """Return whether the axis has one size, or sizes up to a limit."""
    free = as_free(dim)
    if free is None:
        return unknown_reason(dim) is None
    return free.high is not None


def _takes_some_sizes(dim: Dim) -> bool:
    """Return whether the axis takes multiples, or sizes that no dim describes."""
    free = as_free(dim)
    if free is None:
        return unknown_reason(dim) is not None
    return free.step > 1


def _starts(trials: Trials, movable: Sequence[int]) -> Iterator[dict[int, int]]:
    """Yield sizes above those of the example: of the last axis alone, then of all."""
    sizes = {number: trials.size(number) for number in movable}
    last = movable[-1]
    yield {**sizes, last: sizes[last] + 2}
    for more in (1, 3, 5):
        yield {number: size + more for number, size in sizes.items()}
        yield {number: size + more + number for number, size in sizes.items()}


def _refusal(trials: Trials, sizes: Sizes) -> Refusal | None:
    """Return the view that is refused at these sizes; None if no view is."""
    return _refusal_at(trials, {(trials.path, number): size for number, size in sizes.items()})


def _refusal_at(trials: Trials, sizes: Mapping[Axis, int]) -> Refusal | None:
    """Return the view that is refused at these sizes of axes of any input; None if no view is."""
    observation = trials.observe(sizes)
    if not isinstance(observation, Rejected):
        return None
    found = _REFUSAL.search(observation.message)
    if found is None:
        return None
    shape = tuple(map(int, found[1].split(", ")))
    elements = int(found[2])
    if elements < 1:
        return None
    return Refusal(shape, elements)


def _related(trials: Trials, start: Sizes, refusal: Refusal) -> RelatedAxes | None:
    """Return the axes whose factors predict the elements everywhere; None if none do."""
    rules = dict[int, SizeRule]()
    for number in start:
        rule = _rule(trials, start, number)
        if rule is None:
            return None
        if rule.scale:
            rules[number] = rule
    if not rules:
        return None
    scale, rest = divmod(refusal.elements, _product(rules, start))
    divisor = refusal.width // math.gcd(refusal.width, scale)
    if rest or divisor == 1:
        return None
    related = RelatedAxes(trials.path, tuple(rules), Comparison.MULTIPLE_OF, divisor, rules)
    if _is_confirmed(trials, related) and not _depends_on_others(trials, start, refusal):
        return related
    return None


def _depends_on_others(trials: Trials, start: Sizes, refusal: Refusal) -> bool:
    """Return whether sizes of other inputs change the elements: they may be concatenated first."""
    own = {(trials.path, number): size for number, size in start.items()}
    for path, spec in call_leaves(trials.call):
        if path == trials.path:
            continue
        for number, size in enumerate(spec.sizes):
            for other in (size + 1, 2 * size):
                changed = _refusal_at(trials, {**own, (path, number): other})
                if changed is not None and changed.elements != refusal.elements:
                    return True
    return False


def _product(rules: Rules, sizes: Sizes) -> int:
    """Return the product of the factors at these sizes; at least 1."""
    return math.prod(rule.at(sizes[number]) for number, rule in rules.items()) or 1


def _rule(trials: Trials, start: Sizes, number: int) -> SizeRule | None:
    """Return the only rule by which the elements follow from the size of one axis.

    It is without an integer factor: `H//2` if there are `512*(H//2)` elements.
    """
    first = start[number]
    counts = _counts(trials, start, number, (first + step for step in _STEPS))
    untried = sorted({*range(1, first + _REACH)} - {first + step for step in _STEPS})
    for _ in range(MAX_SPLITS):
        size = splitting_size(_candidates(counts), untried)
        if size is None:
            break
        untried.remove(size)
        counts |= _counts(trials, start, number, [size])
    rules = _candidates(counts)
    if splitting_size(rules, untried) is not None:
        return None
    return next(iter(rules), None)


def _counts(trials: Trials, start: Sizes, number: int, sizes: Iterable[int]) -> dict[int, int]:
    """Return the number of elements at sizes of one axis at which a view is refused."""
    counts = dict[int, int]()
    for size in sizes:
        refusal = _refusal(trials, {**start, number: size})
        if refusal is not None:
            counts[size] = refusal.elements
    return counts


def _candidates(counts: Mapping[int, int]) -> tuple[SizeRule, ...]:
    """Return the rules that fit the numbers of elements, divided by their common factor."""
    factor = math.gcd(*counts.values())
    return candidates({size: count // factor for size, count in counts.items()})


def _is_confirmed(trials: Trials, related: RelatedAxes) -> bool:
    """Return whether sizes are accepted that meet the relation, and refused that break it.

    Those that meet it make one row, and three, so that a number of rows is no constant.
    """
    for number in related.numbers:
        whole = related.sizes_with({number: related.number})
        broken = related.sizes_with({number: related.number + 1})
        if whole is None or trials.at(whole) is not True:
            return False
        if broken is None or trials.at(broken) is not False:
            return False
    if is_limited(trials, related):
        return False
    one, other = related.numbers[0], related.numbers[-1]
    if one == other:
        tripled = related.sizes_with({one: 3 * related.number})
        return tripled is not None and trials.at(tripled) is True
    tripled = related.sizes_with({one: related.number, other: 3})
    if tripled is None or trials.at(tripled) is not True:
        return False
    odd = next(pair for pair in ODD_PAIRS if math.prod(pair) % related.number)
    together = related.sizes_with({one: odd[0], other: odd[1]})
    return together is not None and trials.at(together) is False
