"""Recognize an axis whose sizes are squares: tokens that are viewed as a square image.

No form of dim says so. The dim is unknown, for the reason that squares were accepted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from composecli.core.pytree import Call
from composecli.inference.axis_groups import AxisGroup, try_size
from composecli.inference.prober import Probe

REASON = "the sizes that it takes are squares"


def next_squares(size: int) -> Iterator[int]:
    """Yield the next two squares, if the size is a square itself: 25 and 36 after 16."""
    root = math.isqrt(size)
    if root * root == size:
        yield (root + 1) ** 2
        yield (root + 2) ** 2


def takes_squares(call: Call, group: AxisGroup, probe: Probe) -> bool:
    """Return whether the group takes the next squares and refuses their neighbours.

    Next squares lie 2*h + 1 and 2*h + 3 apart, so no larger step than 1 leads to both.
    """
    squares = list(next_squares(group.base))
    if not squares or 2 * group.base in group.accepted:
        return False
    if try_size(call, group, group.base + 1, probe):
        return False
    if not all(try_size(call, group, size, probe) for size in squares):
        return False
    return not any(try_size(call, group, size + 1, probe) for size in squares)
