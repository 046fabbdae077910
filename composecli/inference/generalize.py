"""Settling: from one accepted call to the contract, its ends, ties and outputs found by probing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from composecli.core.contract import Contract, Evidence, EvidenceKind, Port, input_name, output_name
from composecli.core.dims import Free
from composecli.core.dtypes import ANY_FLOAT, FLOATS
from composecli.core.facts import ModelFacts
from composecli.core.observations import Accepted, Rejected
from composecli.core.pytree import (
    Argument,
    Axis,
    Call,
    KeyPath,
    TensorSpec,
    call_leaves,
    replace_call_leaf,
    resized,
)
from composecli.inference.axis_groups import Example, group_of
from composecli.inference.bounds import find_bounds
from composecli.inference.candidates import Candidate, by_name
from composecli.inference.free_dims import ExploredAxes, explore_axes
from composecli.inference.hints import Hints, argument_name
from composecli.inference.parameter_ops import asked_axes, ids_below, recurrent_axes
from composecli.inference.prober import Prober

LONGEST = 8192
WORDS = 8
IDS_RANK = 2
MOST_OPTIONAL = 4


def generalize(candidate: Candidate, seen: Accepted, hints: Hints, probing: Prober) -> Contract:
    call = _with_ids(candidate.call, seen)
    if hints.exported is not None and candidate.call == hints.exported.example:
        return _settle_exported(hints.exported, seen, probing)
    rankless = _rankless(call, seen, hints, probing)
    if rankless is not None:
        return rankless
    start = _start(candidate, call, seen, hints, probing)
    explored = explore_axes(start, probing.outcome)
    if explored.together:
        start = _at_the_common_end(start, explored.together, probing)
        explored = explore_axes(start, probing.outcome)
    contract = _contract(candidate, start, explored, hints, seen.device)
    return replace(contract, inputs=(*contract.inputs, *_optional(contract, hints, probing)))


def _start(
    candidate: Candidate, call: Call, seen: Accepted, hints: Hints, probing: Prober
) -> Example:
    recurrent = recurrent_axes(call, hints.facts)
    asked = dict.fromkeys((*candidate.asked, *asked_axes(call, seen.parameter_ops)))
    fixed = frozenset(
        (*recurrent, *(axis for axis in asked if not _is_taken_beside(call, axis, probing)))
    )
    specs = [spec for _, spec in call_leaves(call)]
    words = {spec.below for spec in specs if spec.may_hold_ids}
    limits = _limits(hints.facts) - words
    return Example(
        call,
        seen.result,
        fixed,
        dict(candidate.dims),
        tuple(sorted(limits)),
        _cost(hints.facts, specs),
    )


def _is_taken_beside(call: Call, axis: Axis, probing: Prober) -> bool:
    """Whether an axis that a parameter seems to fix takes another size all the same."""
    size = dict(call_leaves(call))[axis[0]].sizes[axis[1]]
    return isinstance(probing.outcome(resized(call, (axis,), size + 1)), Accepted)


def _limits(facts: ModelFacts) -> set[int]:
    """Lengths at which something that the model holds ends: tables of positions, masks, and what libraries state."""
    found = set[int]()
    for layer in facts.layers:
        for tensor in layer.parameters:
            table = layer.class_name.endswith("Embedding") and len(tensor.sizes) == 2
            found |= (
                set(tensor.sizes[:1])
                if table
                else set(tensor.sizes[:2])
                if len(tensor.sizes) == 3
                else set()
            )
        for tensor in layer.buffers:
            found |= set(tensor.sizes)
    for setting in facts.settings:
        if setting.name in (
            "max_length",
            "max_position_embeddings",
            "max_source_positions",
            "context_length",
        ):
            found |= set(setting.values)
    return {size for size in found if 8 < size <= LONGEST}


def _cost(facts: ModelFacts, specs: list[TensorSpec]) -> float:
    """About how many multiplications an element of the input stands for: tokens meet every weight, pixels few."""
    rank = max((len(spec.sizes) for spec in specs), default=0)
    whole = any(spec.may_hold_ids for spec in specs)
    return facts.parameters / (1 if whole else {2: 300, 3: 64}.get(rank, 500))


def _at_the_common_end(start: Example, axes: tuple[Axis, ...], probing: Prober) -> Example:
    """The same start at the largest size that all these axes take at once."""
    specs = dict(call_leaves(start.call))
    if len({specs[path].sizes[axis] for path, axis in axes}) > 1:
        return start
    group = group_of(start, axes)
    find_bounds(start, group, probing.outcome)
    call = resized(start.call, axes, max(group.accepted))
    seen = probing.outcome(call)
    return replace(start, call=call, result=seen.result) if isinstance(seen, Accepted) else start


def _optional(contract: Contract, hints: Hints, probing: Prober) -> Iterator[Port]:
    """Arguments that may be left out and go beside the ids, as their names say: those that are taken with the sizes of
    the ids, moved with them, and refused with others."""
    first = contract.inputs[0] if contract.inputs else None
    specs = dict(call_leaves(contract.example))
    if (
        first is None
        or hints.stated is not None
        or first.dims is None
        or len(specs[first.path].sizes) != IDS_RANK
    ):
        return
    ids = specs[first.path]
    given = {argument.name for argument in contract.example.arguments} | {
        port.name for port in contract.inputs
    }
    free = [
        argument
        for argument in hints.facts.arguments
        if not argument.required and argument.name not in given
    ]
    found = [(argument.name, next(by_name(argument.name, hints.facts), None)) for argument in free]
    likely = [
        (name, spec) for name, spec in found if spec is not None and len(spec.sizes) == IDS_RANK
    ]
    number = len(contract.example.arguments)
    for name, spec in likely[:MOST_OPTIONAL] if ids.may_hold_ids else ():
        beside = replace(spec, sizes=ids.sizes, below=min(spec.below, ids.sizes[1]))
        if _goes_beside(contract.example, first.path, Argument(beside, name), probing):
            yield Port(name, (number,), spec.dtype, first.dims, optional=True)
            number += 1


def _goes_beside(call: Call, path: KeyPath, argument: Argument, probing: Prober) -> bool:
    with_it = Call((*call.arguments, argument))
    axes = ((path, 1), ((len(call.arguments),), 1))
    size = dict(call_leaves(call))[path].sizes[1]
    taken = isinstance(probing.outcome(with_it), Accepted)
    return (
        taken
        and isinstance(probing.outcome(resized(with_it, axes[1:], size + 1)), Rejected)
        and isinstance(probing.outcome(resized(with_it, axes, size + 1)), Accepted)
    )


def _contract(
    candidate: Candidate, start: Example, explored: ExploredAxes, hints: Hints, device: str
) -> Contract:
    call = start.call
    inputs = tuple(
        Port(
            input_name(path, argument_name(hints.facts, call, path)),
            path,
            spec.dtype,
            explored.inputs[path],
        )
        for path, spec in call_leaves(call)
    )
    evidence = [candidate.evidence] if candidate.evidence is not None else []
    names = {port.path: port.name for port in inputs}
    ids = [
        f"{names[path]} holds ids below {spec.below}"
        for path, spec in call_leaves(call)
        if spec.below > WORDS
    ]
    evidence.append(
        Evidence(EvidenceKind.PROBED, "; ".join([f"{device} at {call}", *explored.notes, *ids]))
    )
    return Contract(inputs, explored.outputs, call, start.result, tuple(evidence))


def _settle_exported(stated: Contract, seen: Accepted, probing: Prober) -> Contract:
    """The stated contract, confirmed. A range from 2 is export's own, not the model's, so 1 is tried."""
    dims = [
        (port.path, axis, dim) for port in stated.inputs for axis, dim in enumerate(port.dims or ())
    ]
    ones = set[str]()
    for name in dict.fromkeys(
        dim.name for _, _, dim in dims if isinstance(dim, Free) and dim.low == 2
    ):
        axes = tuple(
            (path, axis) for path, axis, dim in dims if isinstance(dim, Free) and dim.name == name
        )
        if isinstance(probing.outcome(resized(stated.example, axes, 1)), Accepted):
            ones.add(name)
    tried = f"; {', '.join(sorted(ones))} took 1" if ones else ""
    probed = Evidence(EvidenceKind.PROBED, f"{seen.device} at {stated.example}{tried}")
    return replace(
        stated,
        inputs=tuple(_from_one(port, ones) for port in stated.inputs),
        outputs=tuple(_from_one(port, ones) for port in stated.outputs),
        result=seen.result,
        evidence=(*stated.evidence, probed),
    )


def _from_one(port: Port, names: set[str]) -> Port:
    dims = port.dims or ()
    return replace(
        port,
        dims=tuple(
            replace(d, low=1) if isinstance(d, Free) and d.name in names else d for d in dims
        ),
    )


def _with_ids(call: Call, seen: Accepted) -> Call:
    changes = dict[KeyPath, TensorSpec]()
    for number, (path, spec) in enumerate(call_leaves(call)):
        below = ids_below(number, spec, seen.parameter_ops) if spec.may_hold_ids else None
        if below is not None:
            changes[path] = replace(spec, below=below)
    return replace_call_leaf(call, changes)


def _rankless(call: Call, seen: Accepted, hints: Hints, probing: Prober) -> Contract | None:
    """A contract of any rank for a model without parameters that takes one tensor of every rank as it is."""
    inputs = list(call_leaves(call))
    if (
        hints.facts.parameters
        or hints.stated is not None
        or len(inputs) != 1
        or len(call.arguments) != 1
    ):
        return None
    path, spec = inputs[0]
    results = [(spec, seen)]
    for sizes in ((4,), (2, 4), (2, 3, 4), (2, 3, 4, 5)):
        other = replace(spec, sizes=sizes, sample=None)
        observation = probing.outcome(replace_call_leaf(call, {path: other}))
        if not isinstance(observation, Accepted):
            return None
        results.append((other, observation))
    if any(not isinstance(o.result, TensorSpec) or o.result.sizes != s.sizes for s, o in results):
        return None
    assert isinstance(seen.result, TensorSpec)
    given, dtypes = _float_kinds(call, spec, seen.result.dtype, probing)
    detail = f"{seen.device} at {call} and ranks 1, 2, 3, 4" + (
        f", as {', '.join(dtypes)}" if dtypes else ""
    )
    name = argument_name(hints.facts, call, path)
    return Contract(
        (Port(input_name(path, name), path, given, None),),
        (Port(output_name(()), (), given if dtypes else seen.result.dtype, None),),
        call,
        seen.result,
        (Evidence(EvidenceKind.PROBED, detail),),
    )


def _float_kinds(
    call: Call, spec: TensorSpec, result: str, probing: Prober
) -> tuple[str, tuple[str, ...]]:
    """The dtype of a port that takes every float and gives it back, with those that were tried; else its own alone."""
    if spec.dtype not in FLOATS or result != spec.dtype:
        return spec.dtype, ()
    (path, _), *_ = call_leaves(call)
    for dtype in FLOATS:
        seen = probing.outcome(
            replace_call_leaf(call, {path: replace(spec, dtype=dtype, sample=None)})
        )
        same = (
            isinstance(seen, Accepted)
            and isinstance(seen.result, TensorSpec)
            and seen.result.dtype == dtype
        )
        if not same:
            return spec.dtype, ()
    return ANY_FLOAT, FLOATS
