"""Solve for the input size at which the failing op's operands match, by the secant method."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from composecli.core.observations import Rejected
from composecli.core.pytree import Axis, KeyPath, TensorSpec, call_leaves, resized
from composecli.inference.candidates import Candidate, SizePoint, SizeTarget, with_tensors
from composecli.inference.parameter_ops import (
    SizeMismatch,
    aligned_mismatches,
    bare_op_name,
    input_operands,
    op_family,
)

MAX_SIZE = 20_000
MAX_POINTS = 8
_VIEWS = ("view", "_unsafe_view", "reshape", "_reshape_alias", "as_strided")


def from_mismatches(
    candidate: Candidate, rejected: Rejected, paths: list[KeyPath]
) -> Iterator[Candidate]:
    """Propose input sizes at which the operands of the failing op may match.

    `paths` are the inputs to change if the op does not tell which inputs its operand was computed
    from.

    A model of convolutions, a flatten and a linear layer of `(400, 120)` rejected
    `float32[2, 1, 64, 64]`: the linear layer received `(2, 2704)`, which should be `(2, 400)`.
    Height and width are changed together, so the first step takes the square root of the ratio,
    `64 * sqrt(400 / 2704) = 25`, and proposes `float32[2, 1, 25, 25]`. If the linear layer then
    receives `(2, 256)`, the next step is on the line through (64, 2704) and (25, 256).
    """
    for mismatch in mismatches(rejected):
        current = candidate.target
        place = (rejected.op, mismatch.want)
        if current is not None and (current.op, current.want) == place:
            yield from _step(candidate, mismatch.have, current)
            continue
        for axes in _axes_to_change(candidate, mismatch, paths):
            target = SizeTarget(axes, rejected.op or "", mismatch.want, ())
            yield from _step(candidate, mismatch.have, target)


def mismatches(rejected: Rejected) -> Iterator[SizeMismatch]:
    """Yield the sizes of the failing op's operands that differ from what its other side expects."""
    operands = input_operands(rejected)
    if not operands:
        return
    operand = operands[0]
    op = bare_op_name(rejected.op)
    if op in _VIEWS:
        # A negative number is a size that the view infers.
        positive = [number for number in rejected.numbers if number > 0]
        want = math.prod(positive)
        yield SizeMismatch(operand.spec.elements, want, operand)
    elif op == "expand":
        sizes = tuple(number for number in rejected.numbers if number)
        yield from aligned_mismatches(operand, sizes)
    else:
        yield from op_family(op).mismatches(rejected)


def _axes_to_change(
    candidate: Candidate, mismatch: SizeMismatch, paths: list[KeyPath]
) -> Iterator[tuple[Axis, ...]]:
    """Yield sets of axes that may be resized together to change the mismatched size."""
    specs = dict(call_leaves(candidate.call))
    all_paths = list(specs)
    numbers = [number for number in mismatch.operand.inputs if number < len(specs)]
    sources = [all_paths[number] for number in numbers]
    source_specs = {specs[path] for path in sources}
    if len(sources) > 1 and len(source_specs) == 1:
        # Equal inputs were combined: change the same axis of all of them.
        rank = len(source_specs.pop().sizes)
        for axis in range(1, rank):
            yield tuple((path, axis) for path in sources)
    for path in sources or paths:
        yield from _axes_of_input(path, specs[path], candidate)


def _axes_of_input(
    path: KeyPath, spec: TensorSpec, candidate: Candidate
) -> Iterator[tuple[Axis, ...]]:
    """Yield the axes of one input: both sides of a square image together first, the batch last."""
    rank = len(spec.sizes)
    free = list[int]()
    for axis in range(1, rank):
        if (path, axis) not in candidate.fixed_axes:
            free.append(axis)
    spatial = [axis for axis in free if axis >= rank - 2]
    both_sides_are_free = rank >= 4 and len(spatial) == 2
    if both_sides_are_free and spec.sizes[-1] == spec.sizes[-2]:
        height, width = spatial
        yield ((path, height), (path, width))
        free = [axis for axis in free if axis not in spatial]
    for axis in reversed(free):
        yield ((path, axis),)
    if spec.sizes:
        yield ((path, 0),)


def _step(candidate: Candidate, have: int, target: SizeTarget) -> Iterator[Candidate]:
    """Yield the candidate of the next secant step; none if the method ends."""
    path, axis = target.axes[0]
    specs = dict(call_leaves(candidate.call))
    size = specs[path].sizes[axis]
    points = (*target.points, SizePoint(size, have))
    # Two axes of one input multiply: the op's size grows with the square of theirs.
    paths = [changed_path for changed_path, _ in target.axes]
    order = paths.count(path)
    next_size = secant_step(points, target.want, order)
    if next_size is None or not 0 < next_size <= MAX_SIZE:
        return
    call = resized(candidate.call, target.axes, next_size)
    changes = dict(call_leaves(call))
    yield with_tensors(candidate, changes, replace(target, points=points))


def secant_step(points: tuple[SizePoint, ...], want: int, order: int) -> int | None:
    """Return the input size to try next, given pairs of an input size and the op's size.

    None if no untried size is left between the two nearest points.
    """
    if len(points) > MAX_POINTS or want <= 0:
        return None
    nearest_first = sorted(points, key=lambda point: abs(point.op_size - want))
    nearest, *others = nearest_first
    if not others:
        return _first_step(nearest, want, order)
    size, have = nearest
    distinct = (point for point in others if point.op_size != have)
    other = next(distinct, None)
    if other is None:
        return None
    run = other.input_size - size
    rise = other.op_size - have
    change = (want - have) * run / rise
    guess = round(size + change)
    too_small = [tried for tried, value in points if value < want]
    too_large = [tried for tried, value in points if value > want]
    below = max(too_small, default=0)
    above = min(too_large, default=MAX_SIZE)
    if below < above:
        guess = max(guess, below + 1)
        guess = min(guess, above - 1)
    tried_sizes = [point.input_size for point in points]
    if guess <= 0 or guess in tried_sizes:
        return None
    return guess


def _first_step(point: SizePoint, want: int, order: int) -> int:
    """Return the second size to try, if the op's size is a power of the input size."""
    size, have = point
    if have <= 0:
        guess = size * 2
    else:
        ratio = want / have
        growth = ratio ** (1 / order)
        guess = round(size * growth)
    if guess != size:
        return guess
    if have < want:
        return size + 1
    return size - 1
