"""Repairs: candidates that answer a rejection.

They are derived from the op that failed and from the ops before it, never from the text of an
error message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice

from composecli.core.facts import ModelFacts
from composecli.core.observations import ParameterOp, Rejected, Remedy
from composecli.core.pytree import (
    Argument,
    Call,
    KeyPath,
    Literal,
    TensorSpec,
    TreeSequence,
    call_leaves,
)
from composecli.inference.candidates import Candidate, other_sizes, with_tensors
from composecli.inference.conventions import (
    ids,
    images,
    literal_values,
    tensors_by_name,
    usual_tensors,
)
from composecli.inference.parameter_ops import (
    BATCH,
    ELEMENTWISE,
    ImpliedInput,
    bare_op_name,
    image_layouts,
    implied_input,
    input_operands,
    layer_inputs,
)
from composecli.inference.size_solver import from_mismatches

MAX_SOLVED_SIZES = 6
MAX_OTHER_SIZES = 14
MAX_OPTIONAL_ARGUMENTS = 6
MAX_PICTURES = 2
MAX_KINDS = 10
MAX_FACTOR = 1024
_LIST_LENGTHS = (3, 4, 1, 5)
# Sequences that are not sorted by length are sorted first.
_PACKING_OPS = ("_pack_padded_sequence", "index_select")
MAX_CHEAP_ELEMENTS = 1_000_000
# Ops that divide axes by their first number, or by its square.
_DIVIDED_AXES = {
    "pixel_shuffle": ((-3,), 2),
    "pixel_unshuffle": ((-2, -1), 1),
    "channel_shuffle": ((1,), 1),
}
# Ops of complex numbers that convert no others.
_COMPLEX_OPS = ("view_as_real", "imag")
_LOGICAL_OPS = (
    "masked_fill",
    "masked_fill_",
    "where",
    "bitwise_not",
    "bitwise_and",
    "bitwise_or",
    "logical_not",
    "index",
)


def find_repairs(
    candidate: Candidate, rejected: Rejected, facts: ModelFacts
) -> Iterator[tuple[int, Candidate]]:
    """Yield repairs with their costs: 0 for implications of the rejection, more for guesses.

    A model whose first layer is `Linear(10, 5)` rejects `float32[2, 3]`; the weight implies
    `float32[2, 10]` at cost 0. Other dtypes and ranks follow at costs 2 and 3.
    """
    paths = _blamed_inputs(candidate, rejected)
    yield from _at_cost(
        0,
        _by_parameter(candidate, rejected),
        _by_values(candidate, rejected, paths),
        _by_other_operand(candidate, rejected),
        _by_sequence_layout(candidate, rejected),
        _by_divided_axes(candidate, rejected),
    )
    all_solved = from_mismatches(candidate, rejected, paths)
    for solved in islice(all_solved, MAX_SOLVED_SIZES):
        cost = _solver_cost(candidate, solved)
        yield cost, solved
    yield from _at_cost(1, _by_layout(candidate, rejected))
    yield from _at_cost(
        2,
        _by_list_length(candidate, rejected),
        _by_dtype(candidate, rejected, paths, facts),
        _by_optional_argument(candidate, rejected, facts),
    )
    yield from _by_literal(candidate, facts)
    for path in paths[:2]:
        all_resized = other_sizes(candidate, path, facts)
        yield from _at_cost(3, islice(all_resized, MAX_OTHER_SIZES))
    yield from _at_cost(3, _by_kind(candidate, rejected, paths, facts))
    yield from _at_cost(3, _by_batch_of_one(candidate))


def _at_cost(cost: int, *kinds: Iterable[Candidate]) -> Iterator[tuple[int, Candidate]]:
    """Yield repairs of several kinds with this cost."""
    for repaired in chain.from_iterable(kinds):
        yield cost, repaired


def _solver_cost(candidate: Candidate, solved: Candidate) -> int:
    """Return 0 for a later step towards the same target, 1 for a first step."""
    if candidate.target is None or solved.target is None:
        return 1
    if len(solved.target.points) > 1:
        return 0
    return 1


def _blamed_inputs(candidate: Candidate, rejected: Rejected) -> list[KeyPath]:
    """Return the inputs that the failing op's operands were computed from.

    An operand that was computed from one input counts before an operand of several. If no input
    is known, return all of them, the last first.
    """
    paths = [path for path, _ in call_leaves(candidate.call)]
    operands = input_operands(rejected)
    numbers = dict[int, None]()
    for operand in sorted(operands, key=lambda operand: len(operand.inputs)):
        numbers |= dict.fromkeys(operand.inputs)
    blamed = [paths[number] for number in numbers if number < len(paths)]
    return blamed or paths[::-1]


def _by_parameter(candidate: Candidate, rejected: Rejected) -> Iterator[Candidate]:
    """Change each input as implied by the first parameter that it reached."""
    for number, (path, spec) in enumerate(call_leaves(candidate.call)):
        implied = _first_implied(number, spec, rejected.parameter_ops)
        if implied is None or implied.spec == spec:
            continue
        changed = with_tensors(candidate, {path: implied.spec})
        fixed_axes = [axis for axis in changed.fixed_axes if axis[0] != path]
        fixed_axes += [(path, axis) for axis in implied.axes]
        yield replace(changed, fixed_axes=tuple(fixed_axes))


def _by_layout(candidate: Candidate, rejected: Rejected) -> Iterator[Candidate]:
    """Try other layouts of an image that reached a convolution in another form."""
    for number, (path, spec) in enumerate(call_leaves(candidate.call)):
        for parameter_op in rejected.parameter_ops:
            if parameter_op.inputs not in ((), (number,)):
                continue
            for layout, image in image_layouts(spec, parameter_op):
                changed = with_tensors(candidate, {path: image})
                yield replace(changed, layouts=(*candidate.layouts, (path, layout)))


def _by_sequence_layout(candidate: Candidate, rejected: Rejected) -> Iterator[Candidate]:
    """Give a sequence whose batch is its second axis as many lengths, or swap its axes."""
    if bare_op_name(rejected.op) not in _PACKING_OPS:
        return
    leaves = list(call_leaves(candidate.call))
    counts = [leaf for leaf in leaves if len(leaf[1].sizes) == 1 and leaf[1].may_hold_ids]
    for path, spec in leaves:
        if len(spec.sizes) != 3:
            continue
        first, second, width = spec.sizes
        for lengths_path, lengths in counts:
            fewer = replace(lengths, sizes=(second,), sample=None)
            yield with_tensors(candidate, {lengths_path: fewer})
        swapped = replace(spec, sizes=(second, first, width), sample=None)
        yield with_tensors(candidate, {path: swapped})


def _by_divided_axes(candidate: Candidate, rejected: Rejected) -> Iterator[Candidate]:
    """Make axes that the failing op divides multiples of its factor: channels that are shuffled."""
    axes, power = _DIVIDED_AXES.get(bare_op_name(rejected.op), ((), 1))
    if not rejected.numbers:
        return
    factor = abs(rejected.numbers[0]) ** power
    failing = {operand.spec.sizes for operand in input_operands(rejected)}
    for path, spec in call_leaves(candidate.call):
        if spec.sizes not in failing:
            continue
        sizes = list(spec.sizes)
        for axis in axes:
            if -len(sizes) <= axis < len(sizes) and 0 < factor <= MAX_FACTOR:
                sizes[axis] += -sizes[axis] % factor
        yield with_tensors(candidate, {path: replace(spec, sizes=tuple(sizes), sample=None)})


def _by_list_length(candidate: Candidate, rejected: Rejected) -> Iterator[Candidate]:
    """Try lists of other lengths if the model's own code failed, perhaps at an index."""
    if rejected.op is not None:
        return
    arguments = candidate.call.arguments
    for number, argument in enumerate(arguments):
        if not isinstance(argument.value, TreeSequence) or argument.value.kind != "list":
            continue
        items = argument.value.items
        for length in _LIST_LENGTHS:
            if length == len(items):
                continue
            # Keep the tensors that were repaired, and repeat the last one.
            repeated = (*items[:length], *items[-1:] * (length - len(items)))
            value = replace(argument.value, items=repeated)
            changed = list(arguments)
            changed[number] = replace(argument, value=value)
            yield replace(candidate, call=Call(tuple(changed)), target=None)


def _first_implied(
    number: int, spec: TensorSpec, parameter_ops: tuple[ParameterOp, ...]
) -> ImpliedInput | None:
    """Return the input implied by the first parameter that it reached alone; None if none is."""
    for parameter_op in parameter_ops:
        if parameter_op.inputs in ((), (number,)):
            implied = implied_input(spec, parameter_op)
            if implied is not None:
                return implied
    return None


def _by_other_operand(candidate: Candidate, rejected: Rejected) -> Iterator[Candidate]:
    """Give an input that is itself an operand the sizes of the other operand.

    A decoder adds a skip, `float32[2, 3, 64, 64]`, to a value computed from another input,
    `float32[2, 8, 128, 128]`. In a concatenation, each keeps its size along the concatenated axis.
    """
    leaves = list(call_leaves(candidate.call))
    for operand in rejected.operands:
        if len(operand.inputs) != 1 or operand.inputs[0] >= len(leaves):
            continue
        path, spec = leaves[operand.inputs[0]]
        if operand.spec.sizes != spec.sizes:
            continue
        for other in rejected.operands:
            sizes = _combined_sizes(spec, other.spec, rejected)
            if other.inputs and sizes not in (None, spec.sizes):
                changes = dict(leaves)
                changes[path] = replace(spec, sizes=sizes, sample=None)
                yield with_tensors(candidate, _shrink(changes))


def _shrink(specs: dict[KeyPath, TensorSpec]) -> dict[KeyPath, TensorSpec]:
    """Halve the spatial axes of all inputs until they are cheap, as long as they can be halved.

    Each level of a decoder doubles the sizes of the ones before it.
    """
    elements = sum(spec.elements for spec in specs.values())
    spatial = [size for spec in specs.values() for size in spec.sizes[2:]]
    if elements <= MAX_CHEAP_ELEMENTS or any(size % 2 for size in spatial) or not spatial:
        return specs
    halved = dict[KeyPath, TensorSpec]()
    for path, spec in specs.items():
        sizes = (*spec.sizes[:2], *(size // 2 for size in spec.sizes[2:]))
        halved[path] = replace(spec, sizes=sizes, sample=None)
    return _shrink(halved)


def _combined_sizes(
    spec: TensorSpec, other: TensorSpec, rejected: Rejected
) -> tuple[int, ...] | None:
    """Return the sizes with which a tensor can be combined with the other; None if no op is."""
    rank = len(spec.sizes)
    op = bare_op_name(rejected.op)
    if len(other.sizes) != rank:
        return None
    if op == "cat" and rejected.numbers:
        axis = rejected.numbers[-1] % rank
        return (*other.sizes[:axis], spec.sizes[axis], *other.sizes[axis + 1 :])
    if ELEMENTWISE.owns_op(op):
        return other.sizes
    return None


def _by_values(
    candidate: Candidate, rejected: Rejected, paths: list[KeyPath]
) -> Iterator[Candidate]:
    """Lower the ids if zeros pass: first below the number of rows of the failing embedding."""
    if Remedy.ZEROS not in rejected.remedies:
        return
    specs = dict(call_leaves(candidate.call))
    row_counts = list[int]()
    for operand in rejected.operands:
        if not operand.inputs and len(operand.spec.sizes) == 2:
            row_counts.append(operand.spec.sizes[0])
    for path in paths:
        spec = specs[path]
        for below in (*row_counts, 2, 1):
            if spec.may_hold_ids and below < spec.below:
                lowered = replace(spec, below=below)
                yield with_tensors(candidate, {path: lowered})
    zeros = dict[KeyPath, TensorSpec]()
    for path, spec in specs.items():
        if spec.may_hold_ids:
            zeros[path] = replace(spec, below=1)
    yield with_tensors(candidate, zeros)


def _by_dtype(
    candidate: Candidate, rejected: Rejected, paths: list[KeyPath], facts: ModelFacts
) -> Iterator[Candidate]:
    """Change the dtype of one of the blamed inputs; masks before ids if the op is logical."""
    specs = dict(call_leaves(candidate.call))
    if bare_op_name(rejected.op) in _LOGICAL_OPS:
        dtypes: tuple[str, ...] = ("bool", facts.float_dtype, "int64")
    elif bare_op_name(rejected.op) in _COMPLEX_OPS:
        dtypes = ("complex64",)
    else:
        dtypes = (facts.float_dtype, "int64", "bool")
    if rejected.op is None:
        dtypes = (*dtypes, "uint8")
    for path in paths[:3]:
        spec = specs[path]
        for dtype in dtypes:
            if dtype == spec.dtype:
                continue
            below = 2
            if dtype == "int64":
                vocabulary = ids(facts).below
                below = max(spec.below, vocabulary)
            changed = replace(spec, dtype=dtype, below=below, sample=None)
            yield with_tensors(candidate, {path: changed})


def _by_kind(
    candidate: Candidate, rejected: Rejected, paths: list[KeyPath], facts: ModelFacts
) -> Iterator[Candidate]:
    """Try another kind of tensor for one input, then for all inputs but the first together."""
    specs = dict(call_leaves(candidate.call))
    kinds = _kinds(rejected, facts)
    for path in paths[:3]:
        for kind in kinds[:MAX_KINDS]:
            if kind != specs[path]:
                yield with_tensors(candidate, {path: kind})
    later_paths = list(specs)[1:]
    if len(later_paths) > 1:
        for kind in kinds[:MAX_KINDS]:
            yield with_tensors(candidate, dict.fromkeys(later_paths, kind))


def _kinds(rejected: Rejected, facts: ModelFacts) -> list[TensorSpec]:
    """Return kinds of tensors, first those that the running layer expects.

    If no op failed but the model's own code, one kind of each dtype and rank comes first.
    """
    kinds = dict[TensorSpec, None]()
    for layer in facts.layers:
        if rejected.module and layer.name == rejected.module:
            kinds.update(dict.fromkeys(layer_inputs(layer)))
    kinds.update(dict.fromkeys(usual_tensors(facts)))
    ordered = list(kinds)
    if rejected.op is None:
        first_of_form = dict[tuple[str, int], TensorSpec]()
        for kind in ordered:
            form = (kind.dtype, len(kind.sizes))
            first_of_form.setdefault(form, kind)
        first_kinds = first_of_form.values()
        ordered.sort(key=lambda kind: kind not in first_kinds)
    return ordered


def _by_optional_argument(
    candidate: Candidate, rejected: Rejected, facts: ModelFacts
) -> Iterator[Candidate]:
    """Add one optional argument if the model's own code failed: some models need at least one.

    Pictures come first, masks and positions last.
    """
    if rejected.op is not None:
        return
    used = {argument.name for argument in candidate.call.arguments}
    used |= {argument.name for argument in facts.needed_arguments}
    pictures = list[Argument]()
    others = list[Argument]()
    for argument in facts.arguments:
        if argument.required or argument.name in used:
            continue
        if "pixel" in argument.name or "image" in argument.name:
            pictures += [Argument(picture, argument.name) for picture in images(facts)]
        tensors = tensors_by_name(argument.name, facts)
        tensor = next(tensors, None)
        if tensor is not None:
            others.append(Argument(tensor, argument.name))
    others.sort(key=_is_mask_or_position)
    chosen = [*pictures[:MAX_PICTURES], *others[:MAX_OPTIONAL_ARGUMENTS]]
    for added in chosen:
        call = Call((*candidate.call.arguments, added))
        yield replace(candidate, call=call, target=None)


def _is_mask_or_position(argument: Argument) -> bool:
    """Return whether an argument is called a mask or a position."""
    name = argument.name or ""
    return "mask" in name or "position" in name


def _by_literal(candidate: Candidate, facts: ModelFacts) -> Iterator[tuple[int, Candidate]]:
    """Try another value for each number or flag: some models accept only a rate of 16000.

    Zero costs most: it often passes the checks that other numbers fail, and then fails later.
    """
    types = [argument.type_name for argument in facts.needed_arguments]
    arguments = candidate.call.arguments
    typed_arguments = zip(arguments, types, strict=False)
    for number, (argument, type_name) in enumerate(typed_arguments):
        if not isinstance(argument.value, Literal):
            continue
        for value in literal_values(type_name):
            changed = list(arguments)
            changed[number] = replace(argument, value=value)
            cost = 2
            if value == Literal(0):
                cost = 8
            call = Call(tuple(changed))
            yield cost, replace(candidate, call=call, target=None)


def _by_batch_of_one(candidate: Candidate) -> Iterator[Candidate]:
    """Set the batch to 1: files are often exported and traced with it."""
    changes = dict[KeyPath, TensorSpec]()
    for path, spec in call_leaves(candidate.call):
        if spec.sizes[:1] == (BATCH,):
            sizes = (1, *spec.sizes[1:])
            changes[path] = replace(spec, sizes=sizes, sample=None)
    if changes:
        yield with_tensors(candidate, changes)
