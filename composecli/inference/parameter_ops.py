"""Meetings: what the parameters that an input meets say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from composecli.core.facts import ModelFacts
from composecli.core.observations import CONVOLUTIONS, PROJECTIONS, ParameterOp, Rejected
from composecli.core.pytree import Axis, Call, TensorSpec, call_leaves, replace_call_leaf
from composecli.inference.candidates import Candidate, with_tensors
from composecli.inference.layer_inputs import BATCH, LENGTH, SPATIAL, image

_POINTWISE = ("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "rsub")


def from_parameter_ops(candidate: Candidate, refused: Rejected) -> Iterator[Candidate]:
    """The proposal as the first parameter on the way of one of its inputs asks for it."""
    for number, (path, spec) in enumerate(call_leaves(candidate.call)):
        for parameter_op in refused.parameter_ops:
            wanted = _wanted(spec, parameter_op) if parameter_op.inputs in ((), (number,)) else None
            if wanted is None:
                continue
            new, axes = wanted
            if new == spec:
                break
            changed = with_tensors(candidate, {path: new})
            kept = tuple((where, axis) for where, axis in changed.asked if where != path)
            yield replace(
                changed, asked=kept + tuple((path, axis % len(new.sizes)) for axis in axes)
            )
            break


def asked_axes(call: Call, parameter_ops: tuple[ParameterOp, ...]) -> tuple[Axis, ...]:
    """The axes of an accepted call that the first parameters it meets fix."""
    found = list[Axis]()
    for path, spec in call_leaves(call):
        for parameter_op in parameter_ops:
            wanted = _wanted(spec, parameter_op)
            if wanted is not None and wanted[0] == replace(spec, below=wanted[0].below):
                found += [(path, axis % len(spec.sizes)) for axis in wanted[1]]
    return tuple(dict.fromkeys(found))


def recurrent_axes(call: Call, facts: ModelFacts) -> tuple[Axis, ...]:
    """The axis that a recurrent first layer fixes: traced ones take any width and give plausible outputs."""
    width = _recurrent_width(facts)
    path, spec = next(call_leaves(call), ((), None))
    if spec is None or not spec.sizes or spec.sizes[-1] != width:
        return ()
    return ((path, len(spec.sizes) - 1),)


def recurrent(candidate: Candidate, facts: ModelFacts) -> Candidate | None:
    """The proposal with the width that a recurrent first layer's weights have; None where it has that already."""
    width = _recurrent_width(facts)
    path, spec = next(call_leaves(candidate.call), ((), None))
    if width is None or spec is None or len(spec.sizes) < 2 or spec.sizes[-1] == width:
        return None
    new = replace(spec, sizes=(*spec.sizes[:-1], width), sample=None)
    return replace(candidate, call=replace_call_leaf(candidate.call, {path: new}))


def _recurrent_width(facts: ModelFacts) -> int | None:
    first = next((layer for layer in facts.layers if layer.parameters), None)
    weights = (
        [p for p in first.parameters if p.name.startswith("weight_ih")] if first is not None else []
    )
    return weights[0].sizes[-1] if weights else None


def widened(candidate: Candidate, parameter_ops: tuple[ParameterOp, ...]) -> Candidate | None:
    """The proposal with each size of 1 that is broadcast against a parameter made the parameter's; None without any."""
    for path, spec in call_leaves(candidate.call):
        for parameter_op in parameter_ops:
            weight = parameter_op.weight.sizes
            if (
                parameter_op.op not in _POINTWISE
                or parameter_op.value.sizes != spec.sizes
                or len(weight) > len(spec.sizes)
            ):
                continue
            aligned = (1,) * (len(spec.sizes) - len(weight)) + weight
            pairs = list(zip(spec.sizes, aligned, strict=True))
            sizes = tuple(
                beside if axis and size == 1 else size for axis, (size, beside) in enumerate(pairs)
            )
            if sizes != spec.sizes:
                changed = replace(spec, sizes=sizes, sample=None)
                asked = tuple(
                    (path, axis) for axis, size in enumerate(sizes) if size != spec.sizes[axis]
                )
                call = replace_call_leaf(candidate.call, {path: changed})
                return replace(candidate, call=call, asked=candidate.asked + asked)
    return None


def ids_below(number: int, spec: TensorSpec, parameter_ops: tuple[ParameterOp, ...]) -> int | None:
    """The vocabulary size that the integers of this input index, where an embedding was seen."""
    tables = [m for m in parameter_ops if "embedding" in m.op and m.inputs == (number,)]
    direct = [m.weight.sizes[0] for m in tables if m.value.sizes == spec.sizes]
    return direct[0] if direct else min((m.weight.sizes[0] for m in tables), default=None)


def _wanted(
    spec: TensorSpec, parameter_op: ParameterOp
) -> tuple[TensorSpec, tuple[int, ...]] | None:
    """What an op asks of an input that reaches it unchanged in the axis asked for, with the axes that it fixes."""
    weight, value, op = parameter_op.weight.sizes, parameter_op.value.sizes, parameter_op.op
    direct = value == spec.sizes
    dtype = parameter_op.weight.dtype
    same = (
        bool(value and spec.sizes)
        and value[-1] == spec.sizes[-1]
        and parameter_op.value.elements == spec.elements
    )
    if op in PROJECTIONS and len(weight) == 2 and same:
        return replace(spec, dtype=dtype, sizes=(*spec.sizes[:-1], weight[0])), (-1,)
    if op in CONVOLUTIONS and direct and len(weight) in SPATIAL:
        if len(spec.sizes) != len(weight):
            return image(parameter_op.channels, len(weight), dtype), (1,)
        return replace(
            spec, dtype=dtype, sizes=(spec.sizes[0], parameter_op.channels, *spec.sizes[2:])
        ), (1,)
    if op == "embedding" and direct:
        like = spec if spec.may_hold_ids else TensorSpec("int64", (BATCH, LENGTH))
        return TensorSpec(like.dtype, like.sizes, below=weight[0]), ()
    if op.endswith("layer_norm") and direct and len(weight) <= len(spec.sizes):
        sizes = (*spec.sizes[: -len(weight)], *weight)
        return replace(spec, dtype=dtype, sizes=sizes), tuple(range(-len(weight), 0))
    if ("batch_norm" in op or "group_norm" in op) and direct and len(spec.sizes) > 1:
        return replace(spec, dtype=dtype, sizes=(spec.sizes[0], weight[0], *spec.sizes[2:])), (1,)
    return None
