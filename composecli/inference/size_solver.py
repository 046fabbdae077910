"""Aims: the size at which what met in the op that refused would be equal, found step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from composecli.core.observations import CONVOLUTIONS, PROJECTIONS, Operand, Rejected
from composecli.core.pytree import Axis, KeyPath, TensorSpec, call_leaves, resized
from composecli.inference.candidates import Candidate, SizeTarget, with_tensors

LARGEST = 20_000
MOST_POINTS = 8
_VIEWS = ("view", "_unsafe_view", "reshape", "_reshape_alias", "as_strided")


def from_mismatches(
    candidate: Candidate, refused: Rejected, paths: list[KeyPath]
) -> Iterator[Candidate]:
    """Sizes at which what met would be equal: where one side follows the input and the other does not."""
    specs = list(call_leaves(candidate.call))
    for have, want, operand in mismatches(refused):
        if candidate.aim is not None and (candidate.aim.op, candidate.aim.want) == (
            refused.op,
            want,
        ):
            yield from _toward(candidate, candidate.aim.axes, have, candidate.aim)
            continue
        those = [specs[number] for number in operand.inputs if number < len(specs)]
        if len(those) > 1 and len({spec for _, spec in those}) == 1:
            for axis in range(1, len(those[0][1].sizes)):
                axes = tuple((path, axis) for path, _ in those)
                yield from _toward(
                    candidate, axes, have, SizeTarget(axes, refused.op or "", want, ())
                )
        for path in [path for path, _ in those] or paths:
            for axes in _moving(path, dict(specs)[path], candidate):
                yield from _toward(
                    candidate, axes, have, SizeTarget(axes, refused.op or "", want, ())
                )


def _moving(path: KeyPath, spec: TensorSpec, candidate: Candidate) -> Iterator[tuple[Axis, ...]]:
    """The axes of an input that may be moved, the last two of an image together first, the batch last."""
    free = [axis for axis in range(1, len(spec.sizes)) if (path, axis) not in candidate.asked]
    last = [axis for axis in free if axis >= len(spec.sizes) - 2]
    if len(spec.sizes) >= 4 and len(last) == 2 and spec.sizes[-1] == spec.sizes[-2]:
        yield ((path, last[0]), (path, last[1]))
        free = [axis for axis in free if axis not in last]
    for axis in reversed(free):
        yield ((path, axis),)
    if spec.sizes:
        yield ((path, 0),)


def _toward(
    candidate: Candidate, axes: tuple[Axis, ...], have: int, aim: SizeTarget
) -> Iterator[Candidate]:
    specs = dict(call_leaves(candidate.call))
    path, axis = axes[0]
    points = (*aim.points, (specs[path].sizes[axis], have))
    size = _secant_step(points, aim.want, sum(where == path for where, _ in axes))
    if size is None or not 0 < size <= LARGEST:
        return
    call = resized(candidate.call, axes, size)
    yield with_tensors(candidate, dict(call_leaves(call)), replace(aim, points=points))


def _secant_step(points: tuple[tuple[int, int], ...], want: int, order: int) -> int | None:
    """Where the line through the two points nearest to `want` meets it; None where nothing is left between them."""
    if len(points) > MOST_POINTS or want <= 0:
        return None
    near = sorted(points, key=lambda point: abs(point[1] - want))
    (size, have), tried = near[0], {size for size, _ in points}
    if len(points) == 1:
        guess = round(size * (want / have) ** (1 / order)) if have > 0 else size * 2
        return guess if guess != size else size + (1 if have < want else -1)
    other = next((point for point in near[1:] if point[1] != have), None)
    if other is None:
        return None
    guess = round(size + (want - have) * (other[0] - size) / (other[1] - have))
    below = max((s for s, h in points if h < want), default=0)
    above = min((s for s, h in points if h > want), default=LARGEST)
    if below < above:
        guess = min(max(guess, below + 1), above - 1)
    return guess if guess not in tried and guess > 0 else None


def mismatches(refused: Rejected) -> Iterator[tuple[int, int, Operand]]:
    """Each size that an operand has and the one that the other side of the op has, the other side's last."""
    op = (refused.op or "").rpartition("::")[2]
    ours = [operand for operand in refused.operands if operand.inputs]
    if not ours:
        return
    if op in PROJECTIONS:
        yield from _projected(
            [operand for operand in refused.operands if len(operand.spec.sizes) > 1][-2:]
        )
    elif op in _VIEWS:
        wanted = math.prod(number for number in refused.numbers if number > 0)
        yield ours[0].spec.elements, wanted, ours[0]
    elif op in CONVOLUTIONS:
        yield from _channels(refused, ours[0])
    elif op.endswith("layer_norm"):
        yield from _against(ours[0], refused.numbers)
    elif op == "expand":
        yield from _against(ours[0], tuple(number for number in refused.numbers if number))
    else:
        for one in ours:
            for other in refused.operands:
                if other is not one:
                    yield from _against(one, other.spec.sizes)


def _channels(refused: Rejected, operand: Operand) -> Iterator[tuple[int, int, Operand]]:
    for parameter_op in reversed(refused.parameter_ops):
        if parameter_op.value == operand.spec and len(parameter_op.weight.sizes) == len(
            operand.spec.sizes
        ):
            if operand.spec.sizes[1] != parameter_op.channels:
                yield operand.spec.sizes[1], parameter_op.channels, operand
            return


def _projected(operands: list[Operand]) -> Iterator[tuple[int, int, Operand]]:
    if len(operands) == 2:
        left, right = operands
        have, want = left.spec.sizes[-1], right.spec.sizes[-2]
        if have != want and left.inputs:
            yield have, want, left
        if have != want and right.inputs:
            yield want, have, right


def _against(operand: Operand, sizes: tuple[int, ...]) -> Iterator[tuple[int, int, Operand]]:
    """Sizes that differ where both stand beside each other, from the last axis on; 1 is broadcast."""
    for have, want in zip(reversed(operand.spec.sizes), reversed(sizes), strict=False):
        if have != want and want > 1:
            yield have, want, operand
