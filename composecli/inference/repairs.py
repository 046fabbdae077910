"""Corrections: what a refusal says of the input that was proposed, learned from the op that refused and from the ops
before it, never from the words of a message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from composecli.core.facts import ModelFacts
from composecli.core.observations import Rejected
from composecli.core.pytree import Argument, Call, KeyPath, Literal, call_leaves
from composecli.inference.candidates import (
    Candidate,
    by_name,
    ids,
    images,
    literals,
    other_sizes,
    usual,
    with_tensors,
)
from composecli.inference.layer_inputs import BATCH, layer_inputs
from composecli.inference.parameter_ops import from_parameter_ops
from composecli.inference.size_solver import from_mismatches

MOST_AIMS = 6
MOST_OTHERS = 14
MOST_ARGUMENTS = 6
_LOGICAL = (
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
    candidate: Candidate, refused: Rejected, facts: ModelFacts
) -> Iterator[tuple[int, Candidate]]:
    """Proposals that answer a refusal, each with its cost: 0 for what the refusal asks for, more for guesses."""
    paths = _blamed(candidate, refused)
    for better in (*from_parameter_ops(candidate, refused), *_by_values(candidate, refused, paths)):
        yield 0, better
    for aimed in islice(from_mismatches(candidate, refused, paths), MOST_AIMS):
        yield (
            0
            if candidate.aim is not None and aimed.aim is not None and aimed.aim.points[:-1]
            else 1,
            aimed,
        )
    for better in (
        *_by_dtype(candidate, refused, paths, facts),
        *_by_arguments(candidate, refused, facts),
    ):
        yield 2, better
    yield from _by_literal(candidate, facts)
    for path in paths[:2]:
        for other in islice(other_sizes(candidate, path, facts), MOST_OTHERS):
            yield 3, other
    for other in (*_by_kind(candidate, refused, paths, facts), *_by_batch(candidate)):
        yield 3, other


def _blamed(candidate: Candidate, refused: Rejected) -> list[KeyPath]:
    """The inputs that the op which refused was made from, those that it had alone first; all where none is known."""
    paths = [path for path, _ in call_leaves(candidate.call)]
    operands = sorted(
        (o for o in refused.operands if o.inputs), key=lambda operand: len(operand.inputs)
    )
    numbers = dict.fromkeys(number for operand in operands for number in operand.inputs)
    return [paths[number] for number in numbers if number < len(paths)] or paths[::-1]


def _by_values(
    candidate: Candidate, refused: Rejected, paths: list[KeyPath]
) -> Iterator[Candidate]:
    """Smaller ids, where the same sizes pass with zeros: first below the rows of the embedding that refused."""
    if not refused.runs_on_zeros:
        return
    specs = dict(call_leaves(candidate.call))
    rows = [o.spec.sizes[0] for o in refused.operands if not o.inputs and len(o.spec.sizes) == 2]
    for path in paths:
        spec = specs[path]
        for below in (*rows, 2, 1):
            if spec.may_hold_ids and below < spec.below:
                yield with_tensors(candidate, {path: replace(spec, below=below)})
    whole = {path: replace(spec, below=1) for path, spec in specs.items() if spec.may_hold_ids}
    yield with_tensors(candidate, whole)


def _by_dtype(
    candidate: Candidate, refused: Rejected, paths: list[KeyPath], facts: ModelFacts
) -> Iterator[Candidate]:
    """The same sizes of another dtype, for the inputs that the op which refused had."""
    specs = dict(call_leaves(candidate.call))
    op = (refused.op or "").rpartition("::")[2]
    order = (
        ("bool", facts.float_dtype, "int64")
        if op in _LOGICAL
        else (facts.float_dtype, "int64", "bool")
    )
    for path in paths[:3]:
        spec = specs[path]
        for dtype in order:
            if dtype != spec.dtype:
                below = max(spec.below, ids(facts).below) if dtype == "int64" else 2
                yield with_tensors(
                    candidate, {path: replace(spec, dtype=dtype, below=below, sample=None)}
                )


def _by_kind(
    candidate: Candidate, refused: Rejected, paths: list[KeyPath], facts: ModelFacts
) -> Iterator[Candidate]:
    """Another kind of tensor for one input, first as the layer that was running takes it; then for several."""
    specs = dict(call_leaves(candidate.call))
    here = [layer for layer in facts.layers if refused.module and layer.name == refused.module]
    kinds = list(
        dict.fromkeys([spec for layer in here for spec in layer_inputs(layer)] + list(usual(facts)))
    )
    if refused.op is None:
        first = {(kind.dtype, len(kind.sizes)): kind for kind in reversed(kinds)}
        kinds.sort(key=lambda kind: kind not in first.values())
    for path in paths[:3]:
        yield from (
            with_tensors(candidate, {path: kind}) for kind in kinds[:10] if kind != specs[path]
        )
    others = list(specs)[1:]
    if len(others) > 1:
        yield from (with_tensors(candidate, dict.fromkeys(others, kind)) for kind in kinds[:10])


def _by_arguments(
    candidate: Candidate, refused: Rejected, facts: ModelFacts
) -> Iterator[Candidate]:
    """One more of the optional arguments, where the model's own code refuses: some cannot all be left out."""
    if refused.op is not None:
        return
    given = {argument.name for argument in candidate.call.arguments} | {
        argument.name for argument in facts.needed_arguments
    }
    optional = [
        argument
        for argument in facts.arguments
        if not argument.required and argument.name not in given
    ]
    found = [(argument, next(by_name(argument.name, facts), None)) for argument in optional]
    likely = [(argument, spec) for argument, spec in found if spec is not None]
    likely.sort(key=lambda item: "mask" in item[0].name or "position" in item[0].name)
    seen = [
        argument for argument in optional if "pixel" in argument.name or "image" in argument.name
    ]
    pictures = [(argument, kind) for argument in seen for kind in images(facts)]
    for argument, spec in [*pictures[:2], *likely[:MOST_ARGUMENTS]]:
        more = Argument(spec, argument.name)
        yield replace(candidate, call=Call((*candidate.call.arguments, more)), aim=None)


def _by_literal(candidate: Candidate, facts: ModelFacts) -> Iterator[tuple[int, Candidate]]:
    """Another value for each argument that is a number or a flag: models ask for certain ones, a rate of 16000. A zero
    passes by checks that other numbers are held against, and ends later."""
    kinds = [argument.type_name for argument in facts.needed_arguments]
    arguments = candidate.call.arguments
    for number, (argument, kind) in enumerate(zip(arguments, kinds, strict=False)):
        for value in literals(kind) if isinstance(argument.value, Literal) else ():
            changed = (
                *arguments[:number],
                replace(argument, value=value),
                *arguments[number + 1 :],
            )
            cost = 8 if value == Literal(0) else 2
            yield cost, replace(candidate, call=Call(changed), aim=None)


def _by_batch(candidate: Candidate) -> Iterator[Candidate]:
    """A batch of one: files are exported and traced with it."""
    specs = dict(call_leaves(candidate.call))
    if any(spec.sizes[:1] == (BATCH,) for spec in specs.values()):
        ones = {
            path: replace(spec, sizes=(1, *spec.sizes[1:]), sample=None)
            for path, spec in specs.items()
            if spec.sizes[:1] == (BATCH,)
        }
        yield with_tensors(candidate, ones)
