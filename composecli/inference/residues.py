"""Find the remainders of accepted sizes: a model that rounds up accepts 63 and 64, and not 65."""

from __future__ import annotations

from collections.abc import Iterator

from composecli.core.dims import admits
from composecli.core.pytree import Call
from composecli.inference.axis_groups import AxisGroup, try_size
from composecli.inference.prober import Probe

# Up to this step every remainder is tried, and otherwise those next to an accepted one.
MAX_STEP_TRIED_IN_FULL = 8
MAX_RUN = 9
# Steps that are tried if sizes are accepted in runs: the products of usual strides.
_STEPS = (*range(2, 17), 18, 20, 24, 27, 28, 30, 32, 36, 40, 48, 56, 60, 64)


def find_residues(call: Call, group: AxisGroup, probe: Probe) -> None:
    """Find the other remainders that are accepted, and where their sizes begin and end.

    `group` has a step and the ends of its grid.
    """
    step = group.step
    if step == 1 or len(_grid_sizes(group)) < 2:
        return
    others = set[int]()
    for distance in _distances(call, group, probe):
        others.add((group.base + distance) % step)
    if not others or len(others) == step - 1:
        return
    for size in _sizes_around_ends(group, others):
        try_size(call, group, size, probe)
    group.assign_residues({group.base % step, *others})


def _grid_sizes(group: AxisGroup) -> list[int]:
    """Return the accepted sizes on the grid, in order, without those that were broadcast."""
    accepted = [size for size in sorted(group.accepted) if group.is_on_grid(size)]
    return [size for size in accepted if not group.is_broadcast(size)]


def _distances(call: Call, group: AxisGroup, probe: Probe) -> Iterator[int]:
    """Yield the distances from the grid, less than a step, at which sizes are accepted."""
    step = group.step
    for sign in (1, -1):
        for distance in range(1, step):
            if not _accepts_at(call, group, sign * distance, probe):
                break
            yield sign * distance
    if step <= MAX_STEP_TRIED_IN_FULL:
        for distance in range(2, step - 1):
            if _accepts_at(call, group, distance, probe):
                yield distance


def _accepts_at(call: Call, group: AxisGroup, distance: int, probe: Probe) -> bool:
    """Return whether the size at this distance from the base is accepted, within the ends."""
    grid = _grid_sizes(group)
    size = group.base + distance
    if size > grid[-1]:
        size -= group.step
    if size < grid[0]:
        size += group.step
    return try_size(call, group, size, probe)


def _sizes_around_ends(group: AxisGroup, residues: set[int]) -> Iterator[int]:
    """Yield the sizes with these remainders that are less than a step from the ends of the grid."""
    grid = _grid_sizes(group)
    ends = [grid[0]]
    if any(size > grid[-1] for size in group.rejected if group.is_on_grid(size)):
        ends.append(grid[-1])
    for end in ends:
        for size in range(end - group.step + 1, end + group.step):
            if size > 0 and size % group.step in residues:
                yield size


def find_runs(call: Call, group: AxisGroup, probe: Probe) -> bool:
    """Find the step of sizes that are accepted in runs, and return whether there is one.

    A model that rounds down accepts 64 and 65 and refuses 66 and 67: the run has 2 sizes, and the
    next one begins at 68, so `H%4 in {0, 1}`.
    """
    first = _end_of_run(call, group, -1, probe)
    last = _end_of_run(call, group, 1, probe)
    if first is None or last is None:
        return False
    length = last - first + 1
    for step in _STEPS:
        if step > length and try_size(call, group, first + step, probe):
            group.assign_step(step)
            return True
    return False


def _end_of_run(call: Call, group: AxisGroup, sign: int, probe: Probe) -> int | None:
    """Return the last accepted size above (1) or below (-1) the base; None if it is far away."""
    for distance in range(1, MAX_RUN):
        size = group.base + sign * distance
        if size < 1:
            return None
        if not try_size(call, group, size, probe):
            return size - sign
    return None


def has_holes(group: AxisGroup) -> bool:
    """Return whether a size of the pattern is rejected between accepted ones, or next to a run."""
    if is_single_run(group):
        return True
    low, high = min(group.accepted), max(group.accepted)
    within = [size for size in group.rejected if low < size < high]
    return any(admits(group.pattern, size) for size in within)


def is_single_run(group: AxisGroup) -> bool:
    """Return whether only a few sizes around the base are accepted, with both ends known."""
    low, high = min(group.accepted), max(group.accepted)
    if not low < high < low + MAX_RUN:
        return False
    return {low - 1, high + 1} <= group.rejected
