"""Messages of ops that refuse a size: the size that they were given, and the one that they take.

shape '[-1, 2048]' is invalid for input of size 16896
mat1 and mat2 shapes cannot be multiplied (2x300 and 24x5)
The size of tensor a (25) must match the size of tensor b (24) at non-singleton dimension 2
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from composecli.core.relations import Comparison

# A model may raise an error in the words of PyTorch: sizes have a limit, as those of tensors do.
_SIZE = r"-?\d{1,18}"
_HAVE, _WANT = rf"(?P<have>{_SIZE})", rf"(?P<want>{_SIZE})"
_VIEW = re.compile(
    rf"shape '\[(?P<shape>{_SIZE}(?:, {_SIZE})*)\]' is invalid for input of size {_HAVE}"
)
_OPS = (
    rf"shapes cannot be multiplied \({_SIZE}x{_HAVE} and {_WANT}x{_SIZE}\)",
    rf"same reduction dim, but got \[{_SIZE}, {_HAVE}\] X \[{_WANT}, {_SIZE}\]",
    rf"size of tensor a \({_HAVE}\) must match the size of tensor b \({_WANT}\)",
    rf"size of tensor a \({_WANT}\) must match the size of tensor b \({_HAVE}\)",
    rf"to have {_WANT} channels, but got {_HAVE} channels",
    rf"must be equal to input_size. Expected {_WANT}, got {_HAVE}",
    rf"normalized_shape=\[{_WANT}\], .* but got input of size\[(?:{_SIZE}, )*{_HAVE}\]",
)
_PATTERNS = tuple(map(re.compile, _OPS))
# A relation with a larger number is of no use: no tensor that is tried meets it.
MAX_NUMBER = 1 << 24


class Aim(NamedTuple):
    """The size that an op takes, or the number whose multiples it takes."""

    comparison: Comparison
    number: int


class Refusal(NamedTuple):
    """A size that an op was given, and its aim: the size that it takes instead."""

    have: int
    aim: Aim


def refusals(message: str, batch: int) -> Iterator[Refusal]:
    """Yield each reading of a message: of two unequal tensors, either may be the given one.

    A view that keeps a batch of this size is read as a view of one sample.
    """
    view = _VIEW.search(message)
    if view is not None:
        shape = tuple(map(int, view["shape"].split(", ")))
        yield from _of_view(shape, int(view["have"]), batch)
    for pattern in _PATTERNS:
        found = pattern.search(message)
        if found is not None:
            yield from _usable(int(found["have"]), Comparison.EQUALS, int(found["want"]))


def _of_view(shape: tuple[int, ...], have: int, batch: int) -> Iterator[Refusal]:
    """Yield the elements that a view was given; it takes multiples if it infers a size."""
    if shape[0] == batch and have % batch == 0:
        shape, have = shape[1:], have // batch
    inferred = shape.count(-1)
    want = abs(math.prod(shape))
    if inferred > 1 or min(shape, default=0) < -1:
        return
    if inferred:
        yield from _usable(have, Comparison.MULTIPLE_OF, want)
    else:
        yield from _usable(have, Comparison.EQUALS, want)


def _usable(have: int, comparison: Comparison, want: int) -> Iterator[Refusal]:
    """Yield the refusal, unless the sizes are none of tensors."""
    if have > 0 and 1 < want <= MAX_NUMBER:
        yield Refusal(have, Aim(comparison, want))
