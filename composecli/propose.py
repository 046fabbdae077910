"""Proposals: inputs worth trying, from what a model states and from what its first parameters ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from composecli.contract import Evidence
from composecli.dims import Shape
from composecli.observations import Meeting
from composecli.protocol import LayerFact, ModelFacts
from composecli.trees import Argument, Call, Path, TensorSpec, call_leaves, call_with

BATCH = 2
LENGTH = 8
SPATIAL = {3: 64, 4: 32, 5: 16}
OTHER_SPATIAL = (64, 28, 224, 299)
_POINTWISE = ("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "rsub")
_PROJECTIONS = ("addmm", "mm", "linear", "matmul", "bmm", "baddbmm", "mv")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A call worth trying. `dims` holds what is stated of a port, by path; `asked` the axes that a parameter fixes."""

    call: Call
    evidence: Evidence | None = None
    dims: tuple[tuple[Path, Shape], ...] = ()
    asked: tuple[tuple[Path, int], ...] = ()


def from_layers(facts: ModelFacts) -> Iterator[Proposal]:
    """What the first layers with parameters take, in the order in which the model holds them."""
    required = [argument for argument in facts.arguments if argument.required]
    count = max(1, len(required))
    for layer in [layer for layer in facts.layers if layer.parameters][:4]:
        for spec, axes in _layer_inputs(layer):
            call = Call(tuple(Argument(spec) for _ in range(count)))
            asked = tuple((path, axis % len(spec.sizes)) for path, _ in call_leaves(call) for axis in axes)
            yield Proposal(call, asked=asked)


def _layer_inputs(layer: LayerFact) -> Iterator[tuple[TensorSpec, tuple[int, ...]]]:
    """Each input that a layer may take, with the axes that its parameters fix."""
    parameters = {parameter.name: parameter for parameter in layer.parameters}
    constants = dict(layer.constants)
    name = layer.class_name
    recurrent = parameters.get("weight_ih_l0") or parameters.get("weight_ih")
    attention = parameters.get("in_proj_weight")
    weight = parameters.get("weight")
    if recurrent is not None and len(recurrent.sizes) == 2:
        lead = (LENGTH, BATCH) if recurrent.name.endswith("_l0") else (BATCH,)
        yield TensorSpec(recurrent.dtype, (*lead, recurrent.sizes[1])), (-1,)
    elif attention is not None and len(attention.sizes) == 2:
        yield TensorSpec(attention.dtype, (LENGTH, BATCH, attention.sizes[1])), (-1,)
    elif weight is None:
        return
    elif name.startswith("Embedding") and len(weight.sizes) == 2:
        yield TensorSpec("int64", (BATCH, LENGTH), below=weight.sizes[0]), ()
    elif name.startswith(("BatchNorm", "InstanceNorm")) and name[-2:-1] in "123":
        rank = int(name[-2]) + 2
        spatial = (LENGTH,) * (rank - 2)
        if rank == 3 and name.startswith("BatchNorm"):
            yield TensorSpec(weight.dtype, (BATCH, weight.sizes[0])), (1,)
        yield TensorSpec(weight.dtype, (BATCH, weight.sizes[0], *spatial)), (1,)
    elif name == "GroupNorm":
        yield TensorSpec(weight.dtype, (BATCH, weight.sizes[0], LENGTH)), (1,)
    elif name.endswith("Norm"):
        yield TensorSpec(weight.dtype, (BATCH, *weight.sizes)), tuple(range(-len(weight.sizes), 0))
    elif len(weight.sizes) == 2:
        yield TensorSpec(weight.dtype, (BATCH, weight.sizes[1])), (-1,)
    elif len(weight.sizes) in SPATIAL:
        transposed = "Transpose" in name
        channels = weight.sizes[0] if transposed else weight.sizes[1] * constants.get("groups", 1)
        yield _image(channels, len(weight.sizes), weight.dtype), (1,)


def _image(channels: int, rank: int, dtype: str) -> TensorSpec:
    return TensorSpec(dtype, (BATCH, channels, *(SPATIAL[rank],) * (rank - 2)))


def from_nothing(facts: ModelFacts) -> Iterator[Proposal]:
    """Inputs of each rank, for models that say nothing of themselves."""
    required = [argument for argument in facts.arguments if argument.required]
    if not facts.arguments:
        yield Proposal(Call(()))
    floats = [dtype for dtype in facts.dtypes if dtype.startswith(("float", "bfloat"))] or ["float32"]
    for sizes in ((2, 3), (2, 3, 32, 32), (2, 3, 8), (2, 3, 8, 16, 16)):
        spec = TensorSpec(floats[0], sizes)
        yield Proposal(Call(tuple(Argument(spec) for _ in range(max(1, len(required))))))


def corrected(proposal: Proposal, meetings: tuple[Meeting, ...]) -> Proposal | None:
    """The proposal as the first parameter on the input's way asks for it; None where it asks for nothing new."""
    for path, spec in call_leaves(proposal.call):
        for meeting in meetings:
            wanted = _wanted(spec, meeting)
            if wanted is None:
                continue
            new, axes = wanted
            asked = tuple((path, axis % len(new.sizes)) for axis in axes)
            call = call_with(proposal.call, {path: new})
            kept = tuple((where, axis) for where, axis in proposal.asked if where != path)
            if call != proposal.call:
                return replace(proposal, call=call, asked=kept + asked)
            break
    return None


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


def ids_below(spec: TensorSpec, meetings: tuple[Meeting, ...]) -> int | None:
    """The vocabulary size that integer inputs of these sizes index, where an embedding was seen."""
    rows = [m.weight.sizes[0] for m in meetings if m.op.endswith("embedding") and m.value.sizes == spec.sizes]
    return min(rows, default=None)


def _wanted(spec: TensorSpec, meeting: Meeting) -> tuple[TensorSpec, tuple[int, ...]] | None:
    """What an op asks of an input that reaches it unchanged in the axis asked for, with the axes that it fixes."""
    weight, value, op = meeting.weight.sizes, meeting.value.sizes, meeting.op
    direct = value == spec.sizes
    dtype = meeting.weight.dtype
    if op in _PROJECTIONS and len(weight) == 2 and value and spec.sizes and value[-1] == spec.sizes[-1]:
        return replace(spec, dtype=dtype, sizes=(*spec.sizes[:-1], weight[0])), (-1,)
    if op in ("convolution", "_convolution") and direct and len(weight) in SPATIAL:
        channels = weight[0] if meeting.transposed else weight[1] * meeting.groups
        if len(spec.sizes) != len(weight):
            return _image(channels, len(weight), dtype), (1,)
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


def other_sizes(proposal: Proposal) -> Iterator[Proposal]:
    """The same image proposal at other usual heights and widths."""
    for path, spec in call_leaves(proposal.call):
        if len(spec.sizes) == 4:
            for size in OTHER_SPATIAL:
                changed = replace(spec, sizes=(*spec.sizes[:2], size, size))
                yield replace(proposal, call=call_with(proposal.call, {path: changed}))
