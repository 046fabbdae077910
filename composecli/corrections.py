"""Corrections: what a refusal says of the input that was proposed, learned from the op that refused and from the ops
before it, never from the words of a message."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from composecli.layers import BATCH, LENGTH, SPATIAL, image, layer_inputs
from composecli.observations import Meeting, Operand, Refused
from composecli.propose import Aim, Proposal, by_name, ids, other_sizes, usual
from composecli.protocol import ModelFacts
from composecli.trees import Argument, Call, Path, TensorSpec, call_leaves, call_with, resized

LARGEST = 20_000
MOST_POINTS = 8
MOST_AIMS = 6
MOST_OTHERS = 14
MOST_ARGUMENTS = 6
_WHOLE = ("int64", "int32")
_PROJECTIONS = ("addmm", "mm", "linear", "matmul", "bmm", "baddbmm", "mv")
_CONVOLUTIONS = ("convolution", "_convolution")
_POINTWISE = ("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "rsub")
_VIEWS = ("view", "_unsafe_view", "reshape", "_reshape_alias", "as_strided")
_LOGICAL = ("masked_fill", "masked_fill_", "where", "bitwise_not", "bitwise_and", "bitwise_or", "logical_not", "index")


def corrections(proposal: Proposal, refused: Refused, facts: ModelFacts) -> Iterator[tuple[int, Proposal]]:
    """Proposals that answer a refusal, each with its cost: 0 for what the refusal asks for, more for guesses."""
    paths = _blamed(proposal, refused)
    for better in (*by_meetings(proposal, refused), *_by_values(proposal, refused, paths)):
        yield 0, better
    for aimed in islice(_by_sizes(proposal, refused, paths), MOST_AIMS):
        yield 0 if proposal.aim is not None and aimed.aim is not None and aimed.aim.points[:-1] else 1, aimed
    for better in (*_by_dtype(proposal, refused, paths, facts), *_by_arguments(proposal, refused, facts)):
        yield 2, better
    for path in paths[:2]:
        for other in islice(other_sizes(proposal, path, facts), MOST_OTHERS):
            yield 3, other
    for other in (*_by_kind(proposal, refused, paths, facts), *_by_batch(proposal)):
        yield 3, other


def _with(proposal: Proposal, changes: dict[Path, TensorSpec], aim: Aim | None = None) -> Proposal:
    """The proposal with other tensors; what was known of their axes no longer holds where the rank is another."""
    before = dict(call_leaves(proposal.call))
    other = {path for path, spec in changes.items() if len(spec.sizes) != len(before[path].sizes)}
    asked = tuple((path, axis) for path, axis in proposal.asked if path not in other)
    return replace(proposal, call=call_with(proposal.call, changes), asked=asked, aim=aim)


def by_meetings(proposal: Proposal, refused: Refused) -> Iterator[Proposal]:
    """The proposal as the first parameter on the way of one of its inputs asks for it."""
    for number, (path, spec) in enumerate(call_leaves(proposal.call)):
        for meeting in refused.meetings:
            wanted = _wanted(spec, meeting) if meeting.inputs in ((), (number,)) else None
            if wanted is None:
                continue
            new, axes = wanted
            if new == spec:
                break
            changed = _with(proposal, {path: new})
            kept = tuple((where, axis) for where, axis in changed.asked if where != path)
            yield replace(changed, asked=kept + tuple((path, axis % len(new.sizes)) for axis in axes))
            break


def _blamed(proposal: Proposal, refused: Refused) -> list[Path]:
    """The inputs that the op which refused was made from, those that it had alone first; all where none is known."""
    paths = [path for path, _ in call_leaves(proposal.call)]
    operands = sorted((o for o in refused.operands if o.inputs), key=lambda operand: len(operand.inputs))
    numbers = dict.fromkeys(number for operand in operands for number in operand.inputs)
    return [paths[number] for number in numbers if number < len(paths)] or paths[::-1]


def _by_values(proposal: Proposal, refused: Refused, paths: list[Path]) -> Iterator[Proposal]:
    """Smaller ids, where the same sizes pass with zeros: first below the rows of the embedding that refused."""
    if not refused.runs_on_zeros:
        return
    specs = dict(call_leaves(proposal.call))
    rows = [o.spec.sizes[0] for o in refused.operands if not o.inputs and len(o.spec.sizes) == 2]
    for path in paths:
        spec = specs[path]
        for below in (*rows, 2, 1):
            if spec.dtype in _WHOLE and below < spec.below:
                yield _with(proposal, {path: replace(spec, below=below)})
    whole = {path: replace(spec, below=1) for path, spec in specs.items() if spec.dtype in _WHOLE}
    yield _with(proposal, whole)


def _by_sizes(proposal: Proposal, refused: Refused, paths: list[Path]) -> Iterator[Proposal]:
    """Sizes at which what met would be equal: where one side follows the input and the other does not."""
    specs = list(call_leaves(proposal.call))
    for have, want, operand in mismatches(refused):
        if proposal.aim is not None and (proposal.aim.op, proposal.aim.want) == (refused.op, want):
            yield from _aimed(proposal, proposal.aim.axes, have, proposal.aim)
            continue
        those = [specs[number] for number in operand.inputs if number < len(specs)]
        if len(those) > 1 and len({spec for _, spec in those}) == 1:
            for axis in range(1, len(those[0][1].sizes)):
                axes = tuple((path, axis) for path, _ in those)
                yield from _aimed(proposal, axes, have, Aim(axes, refused.op or "", want, ()))
        for path in [path for path, _ in those] or paths:
            for axes in _moving(path, dict(specs)[path], proposal):
                yield from _aimed(proposal, axes, have, Aim(axes, refused.op or "", want, ()))


def _moving(path: Path, spec: TensorSpec, proposal: Proposal) -> Iterator[tuple[tuple[Path, int], ...]]:
    """The axes of an input that may be moved, the last two of an image together first, the batch last."""
    free = [axis for axis in range(1, len(spec.sizes)) if (path, axis) not in proposal.asked]
    last = [axis for axis in free if axis >= len(spec.sizes) - 2]
    if len(spec.sizes) >= 4 and len(last) == 2 and spec.sizes[-1] == spec.sizes[-2]:
        yield ((path, last[0]), (path, last[1]))
        free = [axis for axis in free if axis not in last]
    for axis in reversed(free):
        yield ((path, axis),)
    if spec.sizes:
        yield ((path, 0),)


def _aimed(proposal: Proposal, axes: tuple[tuple[Path, int], ...], have: int, aim: Aim) -> Iterator[Proposal]:
    specs = dict(call_leaves(proposal.call))
    path, axis = axes[0]
    points = (*aim.points, (specs[path].sizes[axis], have))
    size = _next_size(points, aim.want, sum(where == path for where, _ in axes))
    if size is None or not 0 < size <= LARGEST:
        return
    call = resized(proposal.call, axes, size)
    yield _with(proposal, dict(call_leaves(call)), replace(aim, points=points))


def _next_size(points: tuple[tuple[int, int], ...], want: int, order: int) -> int | None:
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


def mismatches(refused: Refused) -> Iterator[tuple[int, int, Operand]]:
    """Each size that an operand has and the one that the other side of the op has, the other side's last."""
    op = (refused.op or "").rpartition("::")[2]
    ours = [operand for operand in refused.operands if operand.inputs]
    if not ours:
        return
    if op in _PROJECTIONS:
        yield from _projected([operand for operand in refused.operands if len(operand.spec.sizes) > 1][-2:])
    elif op in _VIEWS:
        wanted = math.prod(number for number in refused.numbers if number > 0)
        yield math.prod(ours[0].spec.sizes), wanted, ours[0]
    elif op in _CONVOLUTIONS:
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


def _channels(refused: Refused, operand: Operand) -> Iterator[tuple[int, int, Operand]]:
    for meeting in reversed(refused.meetings):
        if meeting.value == operand.spec and len(meeting.weight.sizes) == len(operand.spec.sizes):
            want = meeting.weight.sizes[0] if meeting.transposed else meeting.weight.sizes[1] * meeting.groups
            if operand.spec.sizes[1] != want:
                yield operand.spec.sizes[1], want, operand
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


def _by_dtype(proposal: Proposal, refused: Refused, paths: list[Path], facts: ModelFacts) -> Iterator[Proposal]:
    """The same sizes of another dtype, for the inputs that the op which refused had."""
    specs = dict(call_leaves(proposal.call))
    op = (refused.op or "").rpartition("::")[2]
    floats = [dtype for dtype in facts.dtypes if dtype.startswith(("float", "bfloat"))] or ["float32"]
    order = ("bool", floats[0], "int64") if op in _LOGICAL else (floats[0], "int64", "bool")
    for path in paths[:3]:
        spec = specs[path]
        for dtype in order:
            if dtype != spec.dtype:
                below = max(spec.below, ids(facts).below) if dtype == "int64" else 2
                yield _with(proposal, {path: replace(spec, dtype=dtype, below=below, sample=None)})


def _by_kind(proposal: Proposal, refused: Refused, paths: list[Path], facts: ModelFacts) -> Iterator[Proposal]:
    """Another kind of tensor for one input, first as the layer that was running takes it; then for several."""
    specs = dict(call_leaves(proposal.call))
    here = [layer for layer in facts.layers if refused.module and layer.name == refused.module]
    kinds = list(dict.fromkeys([spec for layer in here for spec in layer_inputs(layer)] + list(usual(facts))))
    for path in paths[:3]:
        yield from (_with(proposal, {path: kind}) for kind in kinds[:10] if kind != specs[path])
    others = list(specs)[1:]
    if len(others) > 1:
        yield from (_with(proposal, dict.fromkeys(others, kind)) for kind in kinds[:10])


def _by_arguments(proposal: Proposal, refused: Refused, facts: ModelFacts) -> Iterator[Proposal]:
    """One more of the optional arguments, where the model's own code refuses: some cannot all be left out."""
    if refused.op is not None:
        return
    given = {argument.name for argument in proposal.call.arguments} | {argument.name for argument in facts.asked}
    optional = [argument for argument in facts.arguments if not argument.required and argument.name not in given]
    found = [(argument, next(by_name(argument.name, facts), None)) for argument in optional]
    likely = [(argument, spec) for argument, spec in found if spec is not None]
    likely.sort(key=lambda item: "mask" in item[0].name or "position" in item[0].name)
    images = [(argument, kind) for argument in optional if "pixel" in argument.name or "image" in argument.name
              for kind in usual(facts) if len(kind.sizes) >= 4]  # fmt: skip
    for argument, spec in [*likely[:MOST_ARGUMENTS], *images[:2]]:
        more = Argument(spec, argument.name)
        yield replace(proposal, call=Call((*proposal.call.arguments, more)), aim=None)


def _by_batch(proposal: Proposal) -> Iterator[Proposal]:
    """A batch of one: files are exported and traced with it."""
    specs = dict(call_leaves(proposal.call))
    if any(spec.sizes[:1] == (BATCH,) for spec in specs.values()):
        ones = {
            path: replace(spec, sizes=(1, *spec.sizes[1:]), sample=None)
            for path, spec in specs.items()
            if spec.sizes[:1] == (BATCH,)
        }
        yield _with(proposal, ones)


def asked_axes(call: Call, meetings: tuple[Meeting, ...]) -> tuple[tuple[Path, int], ...]:
    """The axes of an accepted call that the first parameters it meets fix."""
    found = list[tuple[Path, int]]()
    for path, spec in call_leaves(call):
        for meeting in meetings:
            wanted = _wanted(spec, meeting)
            if wanted is not None and wanted[0] == replace(spec, below=wanted[0].below):
                found += [(path, axis % len(spec.sizes)) for axis in wanted[1]]
    return tuple(dict.fromkeys(found))


def recurrent_axes(call: Call, facts: ModelFacts) -> tuple[tuple[Path, int], ...]:
    """The axis that a recurrent first layer fixes: traced ones take any width and give plausible outputs."""
    width = _recurrent_width(facts)
    path, spec = next(call_leaves(call), ((), None))
    if spec is None or not spec.sizes or spec.sizes[-1] != width:
        return ()
    return ((path, len(spec.sizes) - 1),)


def recurrent(proposal: Proposal, facts: ModelFacts) -> Proposal | None:
    """The proposal with the width that a recurrent first layer's weights have; None where it has that already."""
    width = _recurrent_width(facts)
    path, spec = next(call_leaves(proposal.call), ((), None))
    if width is None or spec is None or len(spec.sizes) < 2 or spec.sizes[-1] == width:
        return None
    new = replace(spec, sizes=(*spec.sizes[:-1], width), sample=None)
    return replace(proposal, call=call_with(proposal.call, {path: new}))


def _recurrent_width(facts: ModelFacts) -> int | None:
    first = next((layer for layer in facts.layers if layer.parameters), None)
    weights = [p for p in first.parameters if p.name.startswith("weight_ih")] if first is not None else []
    return weights[0].sizes[-1] if weights else None


def widened(proposal: Proposal, meetings: tuple[Meeting, ...]) -> Proposal | None:
    """The proposal with each size of 1 that is broadcast against a parameter made the parameter's; None without any."""
    for path, spec in call_leaves(proposal.call):
        for meeting in meetings:
            weight = meeting.weight.sizes
            if meeting.op not in _POINTWISE or meeting.value.sizes != spec.sizes or len(weight) > len(spec.sizes):
                continue
            aligned = (1,) * (len(spec.sizes) - len(weight)) + weight
            pairs = list(zip(spec.sizes, aligned, strict=True))
            sizes = tuple(beside if axis and size == 1 else size for axis, (size, beside) in enumerate(pairs))
            if sizes != spec.sizes:
                changed = replace(spec, sizes=sizes, sample=None)
                asked = tuple((path, axis) for axis, size in enumerate(sizes) if size != spec.sizes[axis])
                call = call_with(proposal.call, {path: changed})
                return replace(proposal, call=call, asked=proposal.asked + asked)
    return None


def ids_below(number: int, spec: TensorSpec, meetings: tuple[Meeting, ...]) -> int | None:
    """The vocabulary size that the integers of this input index, where an embedding was seen."""
    tables = [m for m in meetings if "embedding" in m.op and m.inputs == (number,)]
    direct = [m.weight.sizes[0] for m in tables if m.value.sizes == spec.sizes]
    return direct[0] if direct else min((m.weight.sizes[0] for m in tables), default=None)


def _wanted(spec: TensorSpec, meeting: Meeting) -> tuple[TensorSpec, tuple[int, ...]] | None:
    """What an op asks of an input that reaches it unchanged in the axis asked for, with the axes that it fixes."""
    weight, value, op = meeting.weight.sizes, meeting.value.sizes, meeting.op
    direct = value == spec.sizes
    dtype = meeting.weight.dtype
    same = bool(value and spec.sizes) and value[-1] == spec.sizes[-1] and math.prod(value) == math.prod(spec.sizes)
    if op in _PROJECTIONS and len(weight) == 2 and same:
        return replace(spec, dtype=dtype, sizes=(*spec.sizes[:-1], weight[0])), (-1,)
    if op in _CONVOLUTIONS and direct and len(weight) in SPATIAL:
        channels = weight[0] if meeting.transposed else weight[1] * meeting.groups
        if len(spec.sizes) != len(weight):
            return image(channels, len(weight), dtype), (1,)
        return replace(spec, dtype=dtype, sizes=(spec.sizes[0], channels, *spec.sizes[2:])), (1,)
    if op == "embedding" and direct:
        whole = spec.dtype in ("int64", "int32")
        sizes = spec.sizes if whole else (BATCH, LENGTH)
        return TensorSpec(spec.dtype if whole else "int64", sizes, below=weight[0]), ()
    if op.endswith("layer_norm") and direct and len(weight) <= len(spec.sizes):
        sizes = (*spec.sizes[: -len(weight)], *weight)
        return replace(spec, dtype=dtype, sizes=sizes), tuple(range(-len(weight), 0))
    if ("batch_norm" in op or "group_norm" in op) and direct and len(spec.sizes) > 1:
        return replace(spec, dtype=dtype, sizes=(spec.sizes[0], weight[0], *spec.sizes[2:])), (1,)
    return None
