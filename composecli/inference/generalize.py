"""Generalize one accepted call to a contract: find ranges, ties and output dims by probing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from composecli.core.contract import (
    Contract,
    Evidence,
    EvidenceKind,
    Port,
    input_name,
    with_output_names,
)
from composecli.core.dims import unknown_reason
from composecli.core.facts import ModelFacts
from composecli.core.observations import Accepted
from composecli.core.pytree import (
    Axis,
    Call,
    Fill,
    KeyPath,
    TensorSpec,
    call_leaves,
    filled,
    leaves,
    replace_call_leaf,
    resized,
    size_of,
)
from composecli.inference.axis_groups import Example, Leaves, make_group
from composecli.inference.bounds import find_bounds
from composecli.inference.candidates import Candidate
from composecli.inference.conventions import setting_values
from composecli.inference.exported_contract import confirm_exported
from composecli.inference.flattening import with_any_rank
from composecli.inference.free_dims import ExploredAxes, explore_axes
from composecli.inference.hints import Hints, argument_name
from composecli.inference.optional_inputs import optional_inputs
from composecli.inference.parameter_ops import (
    fixed_axes,
    fixed_recurrent_axes,
    ids_below,
    recurrent_widths,
)
from composecli.inference.prober import Prober
from composecli.inference.relate import relate_axes
from composecli.inference.shape_preserving import shape_preserving_contract
from composecli.inference.tables import MAX_TABLE_LENGTH, MIN_TABLE_LENGTH, table_lengths

# A vocabulary of fewer ids is not worth mentioning.
MIN_REPORTED_VOCABULARY = 9
_LENGTH_SETTINGS = (
    "max_length",
    "max_position_embeddings",
    "max_source_positions",
    "context_length",
)
# Pixels and samples that share one use of a weight, by input rank: convolutions are strided.
_ELEMENTS_PER_USE = {2: 300, 3: 64}
_ELEMENTS_PER_USE_OF_IMAGES = 500
# The share of its work that a transformer of width 2,500 does without its weights: about 30
# operations per layer and feature, beside 12 products with as many weights as there are features.
_SHARE_OF_OTHER_OPS = 0.001
# A size that has the usual steps as divisors, and is far above those that are only broadcast.
_ROUND_SIZE = 48


def generalize(candidate: Candidate, accepted: Accepted, hints: Hints, prober: Prober) -> Contract:
    """Return the contract of a model that accepted the candidate.

    `Embedding(100, 16)` followed by `Linear(16, 3)` accepted `int64[2, 8]` and returned
    `float32[2, 8, 3]`. The trace shows that the input indexes a table of 100 rows, so its ids are
    below 100. Both axes accept other sizes, and the output follows them. The contract is
    `int64[N, T] -> float32[N, T, 3]`.

    If an exported program records its contract, that is confirmed instead; if a model without
    parameters accepts every rank, its contract has no dims. A model that flattens its input gets
    the ports for any rank, too, unless the user stated a rank.
    """
    call = _with_vocabulary(candidate.call, accepted)
    if hints.exported is not None and candidate.call == hints.exported.example:
        return confirm_exported(hints.exported, accepted, prober)
    contract = shape_preserving_contract(call, accepted, hints, prober)
    if contract is not None:
        return contract
    example = _to_example(candidate, call, accepted, hints, prober)
    explored = explore_axes(example, prober.outcome)
    if explored.equalized is not None and not _is_asked_for(call, hints):
        explored = explore_axes(explored.equalized, prober.outcome)
    if explored.coupled:
        example = _at_joint_end(explored.example, explored.coupled, prober)
        explored = explore_axes(example, prober.outcome)
    explored = relate_axes(explored, prober.outcome)
    if not _is_asked_for(call, hints):
        explored = _with_rounder_sizes(explored, prober)
    contract = _to_contract(candidate, explored, hints, accepted.device)
    optional = optional_inputs(contract, hints, prober)
    inputs = (*contract.inputs, *optional)
    contract = with_output_names(replace(contract, inputs=inputs))
    if hints.stated is not None:
        return contract
    return with_any_rank(contract, prober)


def _is_asked_for(call: Call, hints: Hints) -> bool:
    """Return whether the sizes of the call are those that the user or a producer wants."""
    return hints.stated is not None or call == hints.given


def _with_vocabulary(call: Call, accepted: Accepted) -> Call:
    """Limit the ids of each integer input to the rows of the embedding that it indexes."""
    changes = dict[KeyPath, TensorSpec]()
    for number, (path, spec) in enumerate(call_leaves(call)):
        if not spec.may_hold_ids:
            continue
        below = ids_below(number, spec, accepted.parameter_ops)
        if below is not None:
            changes[path] = replace(spec, below=below)
    return replace_call_leaf(call, changes)


def _to_example(
    candidate: Candidate, call: Call, accepted: Accepted, hints: Hints, prober: Prober
) -> Example:
    """Collect the known properties of the axes before they are varied."""
    specs = [spec for _, spec in call_leaves(call)]
    fixed = set[Axis]()
    for axis in fixed_recurrent_axes(call, hints.facts):
        if _is_recurrent_width(call, axis, prober):
            fixed.add(axis)
    fixed_by_ops = fixed_axes(call, accepted.parameter_ops)
    implied = (*candidate.fixed_axes, *fixed_by_ops)
    for axis in dict.fromkeys(implied):
        if not _accepts_next_size(call, axis, prober):
            fixed.add(axis)
    # The rows of an embedding of tokens do not limit how many tokens there are.
    vocabularies = {spec.below for spec in specs if spec.may_hold_ids}
    lengths = possible_limits(hints.facts) - vocabularies
    limits = tuple(sorted(lengths))
    cost = multiplications_per_element(hints.facts, specs, accepted.unread)
    stated = dict(candidate.dims)
    others: tuple[Leaves, ...] = ()
    if accepted.reads_values:
        others = tuple(_results_of_other_values(call, prober))
    layouts = dict(candidate.layouts)
    example = Example(call, accepted.result, frozenset(fixed), stated, limits, cost)
    return replace(example, other_values=others, layouts=layouts, where=candidate.where)


def _results_of_other_values(call: Call, prober: Prober) -> Iterator[Leaves]:
    """Yield the results of the call with other values of the same sizes, if it is accepted."""
    calls = [filled(call, fill) for fill in (Fill.ZEROS, Fill.POSITIVE, Fill.NEGATIVE)]
    for other in (*calls, _with_larger_lengths(call)):
        observation = prober.outcome(other)
        if isinstance(observation, Accepted):
            yield tuple(leaves(observation.result))


def _with_larger_lengths(call: Call) -> Call:
    """Return the call with every length greater by 1."""
    changes = dict[KeyPath, TensorSpec]()
    for path, spec in call_leaves(call):
        if spec.fill is Fill.POSITIVE:
            changes[path] = replace(spec, below=spec.below + 1)
    return replace_call_leaf(call, changes)


def _accepts_next_size(call: Call, axis: Axis, prober: Prober) -> bool:
    """Return whether an axis that a parameter seems to fix accepts another size all the same."""
    path, number = axis
    specs = dict(call_leaves(call))
    size = specs[path].sizes[number]
    larger = resized(call, (axis,), size + 1)
    observation = prober.outcome(larger)
    return isinstance(observation, Accepted)


def _is_recurrent_width(call: Call, axis: Axis, prober: Prober) -> bool:
    """Return whether an axis as long as a recurrent layer is wide is the width of its sequence.

    If it is not, as behind a transpose, the layer gets a sequence of its own width at another size
    of the axis, too. A smaller one is tried: the kernel would read beyond a weight for a larger.
    """
    path, number = axis
    size = dict(call_leaves(call))[path].sizes[number]
    if size < 2:
        return True
    observation = prober.trace(resized(call, (axis,), size - 1))
    if not isinstance(observation, Accepted):
        return True
    return size not in recurrent_widths(observation.parameter_ops)


def possible_limits(facts: ModelFacts) -> set[int]:
    """Return lengths at which a free axis may end: those of tables, and the model's settings."""
    limits = set(table_lengths(facts))
    for values in setting_values(facts, *_LENGTH_SETTINGS):
        limits |= set(values)
    return {limit for limit in limits if MIN_TABLE_LENGTH <= limit <= MAX_TABLE_LENGTH}


def multiplications_per_element(facts: ModelFacts, specs: list[TensorSpec], unread: int) -> float:
    """Estimate how many multiplications one element of the input causes.

    A token is multiplied with every weight, a pixel with few. Nothing is multiplied with weights
    that are not read, which have `unread` bytes, but there are the ops between them.
    """
    share_read = 1 - min(1.0, unread / max(1, facts.size))
    parameters = facts.parameters * max(share_read, _SHARE_OF_OTHER_OPS)
    if any(spec.may_hold_ids for spec in specs):
        return parameters
    ranks = [len(spec.sizes) for spec in specs]
    rank = max(ranks, default=0)
    elements_per_use = _ELEMENTS_PER_USE.get(rank, _ELEMENTS_PER_USE_OF_IMAGES)
    return parameters / elements_per_use


def _at_joint_end(example: Example, axes: tuple[Axis, ...], prober: Prober) -> Example:
    """Return the example at the largest size that all these axes accept jointly."""
    specs = dict(call_leaves(example.call))
    sizes = {specs[path].sizes[axis] for path, axis in axes}
    if len(sizes) > 1:
        return example
    group = make_group(example, axes)
    find_bounds(example, group, prober.outcome)
    return _if_accepted(example, axes, max(group.accepted), prober) or example


def _if_accepted(
    example: Example, axes: tuple[Axis, ...], size: int, prober: Prober
) -> Example | None:
    """Return the example with this size on each of these axes; None if the model rejects it."""
    call = resized(example.call, axes, size)
    observation = prober.outcome(call)
    if isinstance(observation, Accepted):
        return replace(example, call=call, result=observation.result)
    return None


def _with_rounder_sizes(explored: ExploredAxes, prober: Prober) -> ExploredAxes:
    """Explore again with a size of many divisors on the unknown axes, if that leaves fewer unknown.

    Behind `x.chunk(2, 1)` a product of both chunks accepts 3, whose chunks of 2 and 1 broadcast,
    and any even size. Nothing follows from 3; from 48 it follows that the sizes are even. A batch
    stays as it is: beside 48 samples a view takes most sizes of the other axes.
    """
    axes, example = _unknown_axes(explored), explored.example
    small = list[Axis]()
    for axis in axes:
        _, number = axis
        if number > 0 and size_of(example.call, axis) < _ROUND_SIZE:
            small.append(axis)
    if not small or example.where:
        return explored
    rounder = _if_accepted(example, tuple(small), _ROUND_SIZE, prober)
    if rounder is None:
        return explored
    again = explore_axes(rounder, prober.outcome)
    if len(_unknown_axes(again)) < len(axes):
        return again
    return explored


def _unknown_axes(explored: ExploredAxes) -> list[Axis]:
    """Return the axes of the inputs whose dim is unknown."""
    unknown = list[Axis]()
    for path, dims in explored.inputs.items():
        for number, dim in enumerate(dims):
            if unknown_reason(dim) is not None:
                unknown.append((path, number))
    return unknown


def _to_contract(
    candidate: Candidate, explored: ExploredAxes, hints: Hints, device: str
) -> Contract:
    """Combine the explored dims with names and evidence."""
    call, result = explored.example.call, explored.example.result
    inputs = list[Port]()
    id_notes = list[str]()
    for path, spec in call_leaves(call):
        argument = argument_name(hints.facts, call, path)
        name = input_name(path, argument)
        port = Port(name, path, spec.dtype, explored.inputs[path])
        inputs.append(port)
        if spec.below >= MIN_REPORTED_VOCABULARY:
            id_notes.append(f"{name} holds ids below {spec.below}")
    evidence = list[Evidence]()
    if candidate.evidence is not None:
        evidence.append(candidate.evidence)
    tried = f"{device} at {call}"
    if not call.arguments:
        tried = f"{device} without an input"
    details = [tried, *explored.notes, *id_notes]
    probed = Evidence(EvidenceKind.PROBED, "; ".join(details))
    evidence.append(probed)
    ports = (tuple(inputs), explored.outputs)
    return Contract(*ports, call, result, tuple(evidence), explored.where)
