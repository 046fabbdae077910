"""Candidates: calls worth trying, from the model's signature and its first parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from composecli.core.contract import Evidence
from composecli.core.dims import Shape
from composecli.core.facts import ArgumentFact, ModelFacts
from composecli.core.pytree import (
    Argument,
    Axis,
    Call,
    KeyPath,
    Literal,
    TensorSpec,
    Tree,
    TreeSequence,
    call_leaves,
    replace_call_leaf,
)
from composecli.core.relations import Where
from composecli.inference.conventions import (
    MAX_LAYERS,
    ids,
    lengths,
    literal_values,
    setting_values,
    spatial_sizes,
    tensors_by_name,
    usual_tensors,
)
from composecli.inference.parameter_ops import layer_inputs

MAX_LENGTH = 16_000
# Attention over more tokens costs gigabytes.
MAX_IDS_LENGTH = 1024
MAX_SPATIAL_SIZES = 10
_COMMON_FRAME_COUNTS = (16, 32, 8)

SizesByAxis = dict[int, int]


class SizePoint(NamedTuple):
    """One evaluation: at this size of the input, an operand of the op had this size."""

    input_size: int
    op_size: int


@dataclass(frozen=True, slots=True)
class SizeTarget:
    """A size to solve for: resize `axes` of the input until the operand of `op` has size `want`.

    `points` are the sizes that were tried before.
    """

    axes: tuple[Axis, ...]
    op: str
    want: int
    points: tuple[SizePoint, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A call worth trying.

    `dims` are the dims of ports that are stated, by path; `fixed_axes` are axes whose size a
    parameter implies; `target` is the size that this candidate was solved for. `layouts` are the
    names of the axes of images, such as `HWC`, by path. `is_partial`: it has some of the arguments,
    by name, and the others are to be found. `where` are stated relations between the dims.
    """

    call: Call
    evidence: Evidence | None = None
    dims: tuple[tuple[KeyPath, Shape], ...] = ()
    fixed_axes: tuple[Axis, ...] = ()
    target: SizeTarget | None = None
    layouts: tuple[tuple[KeyPath, str], ...] = ()
    is_partial: bool = False
    where: Where = ()


def initial_candidates(facts: ModelFacts, partial: Candidate | None = None) -> Iterator[Candidate]:
    """Yield the calls to begin with.

    Each argument follows from its name and type, else from the first layers with parameters, else
    it is a tensor of each rank. The arguments of `partial` are as they are stated.
    """
    if partial is not None:
        yield from _with_statements(facts, partial)
        return
    if not facts.arguments:
        yield Candidate(Call(()))
    yield from _with_states(facts)
    arguments: tuple[ArgumentFact | None, ...] = facts.needed_arguments or (None,)
    values_by_argument = [_values(argument, facts) for argument in arguments]
    proposed = set[Call]()
    for number in range(MAX_LAYERS):
        call = _nth_call(arguments, values_by_argument, number)
        if call not in proposed:
            proposed.add(call)
            yield Candidate(call)


def _with_statements(facts: ModelFacts, partial: Candidate) -> Iterator[Candidate]:
    """Yield calls with the stated arguments, and values that are likely for the others.

    In parallel, a model may lack an argument that is stated for another one.
    """
    stated = {argument.name: argument.value for argument in partial.call.arguments}
    needed = facts.needed_arguments
    arguments = [fact for fact in facts.arguments if fact in needed or fact.name in stated]
    values_by_argument = list[list[Tree]]()
    for fact in arguments:
        if fact.name in stated:
            values_by_argument.append([stated[fact.name]])
        else:
            values_by_argument.append(_values(fact, facts))
    numbers = {fact.name: number for number, fact in enumerate(arguments)}
    dims = list[tuple[KeyPath, Shape]]()
    for (number, *rest), shape in partial.dims:
        assert isinstance(number, int)
        name = partial.call.arguments[number].name or ""
        if name in numbers:
            dims.append(((numbers[name], *rest), shape))
    for number in range(MAX_LAYERS):
        call = _nth_call(tuple(arguments), values_by_argument, number)
        yield Candidate(call, partial.evidence, tuple(dims), where=partial.where)


def keeps_statements(candidate: Candidate, facts: ModelFacts, partial: Candidate | None) -> bool:
    """Return whether a candidate has the arguments that the user stated."""
    if partial is None:
        return True
    stated = {argument.name: argument.value for argument in partial.call.arguments}
    needed = facts.needed_arguments
    arguments = [fact for fact in facts.arguments if fact in needed or fact.name in stated]
    values = zip(arguments, candidate.call.arguments, strict=False)
    return all(stated.get(fact.name, argument.value) == argument.value for fact, argument in values)


def _nth_call(
    arguments: tuple[ArgumentFact | None, ...], values_by_argument: list[list[Tree]], number: int
) -> Call:
    """Return the call with the value of this number for each argument, or the last that it has."""
    chosen = list[Argument]()
    for argument, values in zip(arguments, values_by_argument, strict=True):
        last_number = len(values) - 1
        value = values[min(number, last_number)]
        name = None
        if argument is not None:
            name = argument.call_name
        chosen.append(Argument(value, name))
    return Call(tuple(chosen))


def _with_states(facts: ModelFacts) -> Iterator[Candidate]:
    """Yield the input of a recurrent layer with its states, batch second and batch first."""
    arguments = facts.needed_arguments
    if len(arguments) < 2 or not all(_may_be_state(argument, facts) for argument in arguments[1:]):
        return
    for layer in facts.layers:
        specs = list(layer_inputs(layer))
        if len(specs) != 2:
            continue
        sequence, state = specs
        if len(sequence.sizes) != len(state.sizes):
            continue
        states = (Argument(state),) * (len(arguments) - 1)
        call = Call((Argument(sequence), *states))
        yield Candidate(call)
        if len(sequence.sizes) == 3:
            length, batch, width = sequence.sizes
            batch_first = replace(sequence, sizes=(batch, length, width))
            call = Call((Argument(batch_first), *states))
            yield Candidate(call)
        return


def _may_be_state(argument: ArgumentFact, facts: ModelFacts) -> bool:
    """Return whether an argument may be a recurrent state, by its name and type."""
    if literal_values(argument.type_name) or _is_optional(argument) or argument.keyword_only:
        return False
    return not any(tensors_by_name(argument.name, facts))


def _is_optional(argument: ArgumentFact) -> bool:
    """Return whether the type allows None."""
    return argument.type_name.startswith(("Optional[", "typing.Optional["))


def _values(argument: ArgumentFact | None, facts: ModelFacts) -> list[Tree]:
    """Return values for one argument (None if the signature is unknown), the most likely first."""
    if argument is None:
        return list(dict.fromkeys(usual_tensors(facts)))
    type_name = argument.type_name
    literals = literal_values(type_name)
    if literals:
        return literals
    if _is_optional(argument):
        inner = type_name.partition("[")[2].removesuffix("]")
        return [Literal(None), *_values(replace(argument, type_name=inner), facts)]
    named = tensors_by_name(argument.name, facts)
    proposed = (*named, *usual_tensors(facts))
    tensors = list(dict.fromkeys(proposed))
    if "LongTensor" in type_name:
        tensors = [tensor for tensor in tensors if tensor.dtype == "int64"]
        if not tensors:
            tensors = [ids(facts)]
    elif "FloatTensor" in type_name:
        tensors = [tensor for tensor in tensors if tensor.dtype not in ("int64", "bool")]
    bare_type = type_name.replace("typing.", "")
    container, _, _ = bare_type.lower().partition("[")
    if container in ("list", "sequence"):
        return [TreeSequence("list", (tensor, tensor)) for tensor in tensors]
    if container == "tuple":
        count = max(1, type_name.count("Tensor"))
        return [TreeSequence("tuple", (tensor,) * count) for tensor in tensors]
    return list(tensors)


def other_sizes(candidate: Candidate, path: KeyPath, facts: ModelFacts) -> Iterator[Candidate]:
    """Yield the candidate with one input at other usual sizes.

    Inputs that are equal to it are resized first together with it, then it alone.
    """
    specs = dict(call_leaves(candidate.call))
    spec = specs[path]
    equal_paths = [other for other, other_spec in specs.items() if other_spec == spec]
    for sizes_by_axis in _usual_sizes(candidate, path, spec, facts):
        sizes = tuple(sizes_by_axis.get(axis, size) for axis, size in enumerate(spec.sizes))
        if sizes == spec.sizes:
            continue
        changed = replace(spec, sizes=sizes, sample=None)
        if len(equal_paths) > 1:
            yield _with_equal_tensors(candidate, equal_paths, changed)
        yield _with_equal_tensors(candidate, [path], changed)


def _with_equal_tensors(candidate: Candidate, paths: list[KeyPath], spec: TensorSpec) -> Candidate:
    """Return the candidate with the same tensor at each of these paths."""
    call = replace_call_leaf(candidate.call, dict.fromkeys(paths, spec))
    return replace(candidate, call=call, target=None)


def _usual_sizes(
    candidate: Candidate, path: KeyPath, spec: TensorSpec, facts: ModelFacts
) -> list[SizesByAxis]:
    """Return changes of sizes worth trying for one input, by its rank."""
    rank = len(spec.sizes)
    if rank == 0:
        return []
    first = min(1, rank - 1)
    free = list[int]()
    for axis in range(first, rank):
        if (path, axis) not in candidate.fixed_axes:
            free.append(axis)
    if rank < 4:
        return _usual_lengths(spec, free, facts)
    image_sizes = _usual_image_sizes(rank, free, facts)
    if rank == 5:
        return [*_usual_video_sizes(facts), *image_sizes]
    return image_sizes


def _usual_lengths(spec: TensorSpec, free: list[int], facts: ModelFacts) -> list[SizesByAxis]:
    """Return each usual length for each free axis, the last axis first."""
    longest = MAX_LENGTH
    if spec.may_hold_ids or spec.dtype == "bool":
        longest = MAX_IDS_LENGTH
    changes = list[SizesByAxis]()
    for length in dict.fromkeys(lengths(facts)):
        if length <= longest:
            changes += [{axis: length} for axis in reversed(free)]
    return changes


def _usual_image_sizes(rank: int, free: list[int], facts: ModelFacts) -> list[SizesByAxis]:
    """Return heights and widths (the last two axes), then channels (axis 1)."""
    changes = list[SizesByAxis]()
    for height, width in _distinct_spatial_sizes(facts):
        changes.append({rank - 2: height, rank - 1: width})
    if 1 in free:
        for values in setting_values(facts, "num_channels", "in_chans"):
            if len(values) == 1:
                changes.append({1: values[0]})
    return changes


def _usual_video_sizes(facts: ModelFacts) -> list[SizesByAxis]:
    """Return sizes of `(N, C, frames, H, W)`, then of `(N, frames, C, H, W)`."""
    frame_counts = [values[0] for values in setting_values(facts, "num_frames")]
    frame_counts += _COMMON_FRAME_COUNTS
    first_area = _distinct_spatial_sizes(facts)[:1]
    changes = list[SizesByAxis]()
    for frames in frame_counts:
        for height, width in (*first_area, (112, 112)):
            changes.append({2: frames, 3: height, 4: width})
    for height, width in first_area:
        changes.append({1: frame_counts[0], 2: 3, 3: height, 4: width})
    return changes


def _distinct_spatial_sizes(facts: ModelFacts) -> list[tuple[int, int]]:
    """Return the first heights and widths worth trying."""
    distinct = list(dict.fromkeys(spatial_sizes(facts)))
    return distinct[:MAX_SPATIAL_SIZES]


def with_tensors(
    candidate: Candidate, changes: dict[KeyPath, TensorSpec], target: SizeTarget | None = None
) -> Candidate:
    """Return the candidate with other tensors at these paths.

    Axes of a tensor whose rank changes are no longer fixed.
    """
    before = dict(call_leaves(candidate.call))
    fixed_axes = list[Axis]()
    for path, axis in candidate.fixed_axes:
        changed = changes.get(path)
        if changed is None:
            fixed_axes.append((path, axis))
            continue
        rank_before = len(before[path].sizes)
        if len(changed.sizes) == rank_before:
            fixed_axes.append((path, axis))
    call = replace_call_leaf(candidate.call, changes)
    return replace(candidate, call=call, fixed_axes=tuple(fixed_axes), target=target)
