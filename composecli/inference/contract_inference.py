"""The two phases of inference, and the adjustments between them.

Evidence is used in the order of its cost: statements of the user, records in the file, then the
inputs that the model's first parameters imply. Every contract is confirmed by a probe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, combinations, islice

from composecli.core.contract import Contract, Evidence, EvidenceKind
from composecli.core.dims import Shape
from composecli.core.facts import ModelFacts
from composecli.core.observations import Accepted, ParameterOp
from composecli.core.pytree import (
    Axis,
    Call,
    KeyPath,
    TensorSpec,
    call_leaves,
    replace_call_leaf,
    resized,
)
from composecli.inference.candidates import Candidate, initial_candidates
from composecli.inference.generalize import generalize
from composecli.inference.hints import Hints, argument_name
from composecli.inference.parameter_ops import ELEMENTWISE, RECURRENT, ids_below
from composecli.inference.prober import Ask, Budget, Prober
from composecli.inference.result import Found, NotFound
from composecli.inference.search import FoundCandidate, search

MAX_COMMON_BATCHES = 6


def infer(hints: Hints, ask: Ask, budget: Budget | None = None) -> Found | NotFound:
    """Return the contract of a model, or the failed attempts. `ask` runs one forward."""
    prober = Prober(ask, budget or Budget())
    guesses: Iterator[Candidate] = iter(())
    if hints.stated is None:
        guesses = initial_candidates(hints.facts, hints.partial)
    stated = _stated_candidates(hints)
    found = search(stated, guesses, hints, prober.trace)
    if not isinstance(found, FoundCandidate):
        return NotFound(tuple(found), prober.count, prober.stopped)
    found = _match_weights(found, hints, prober)
    found = _prefer_rank_of_channels(found, hints, prober)
    found = _prefer_given_rank(found, hints, prober)
    found = _prefer_floats(found, hints, prober)
    found = _prefer_common_batch(found, hints, prober)
    contract = generalize(found.candidate, found.accepted, hints, prober)
    contract = _with_batch(contract, found, hints, prober)
    return Found(contract, prober.count, prober.stopped)


def _stated_candidates(hints: Hints) -> Iterator[Candidate]:
    """Yield the user's input alone, or else the file's records and a producer's real output."""
    if hints.stated is not None:
        yield hints.stated
        return
    if hints.partial is not None:
        return
    if hints.exported is not None:
        dims = list[tuple[KeyPath, Shape]]()
        for port in hints.exported.inputs:
            if port.dims is not None:
                dims.append((port.path, port.dims))
        evidence = hints.exported.evidence[0]
        yield Candidate(hints.exported.example, evidence, tuple(dims))
    if hints.given is not None:
        yield Candidate(hints.given)
    if hints.traced is not None:
        evidence = Evidence(EvidenceKind.TRACED, f"example {hints.traced}")
        yield Candidate(hints.traced, evidence)


def _match_weights(found: FoundCandidate, hints: Hints, prober: Prober) -> FoundCandidate:
    """Change sizes that the weights contradict, if the model accepts that too.

    A size of 1 may only be broadcast against a parameter. A traced recurrent layer accepts any
    width.
    """
    if hints.stated is not None or found.candidate.dims:
        return found
    changed = _without_broadcasting(found.candidate, found.accepted.parameter_ops)
    if changed is None:
        changed = _with_recurrent_width(found.candidate, hints.facts)
    if changed is None:
        return found
    return _if_accepted(changed, prober) or found


def _without_broadcasting(
    candidate: Candidate, parameter_ops: tuple[ParameterOp, ...]
) -> Candidate | None:
    """Replace sizes of 1 that are broadcast against a parameter; None if there are none."""
    for path, spec in call_leaves(candidate.call):
        for parameter_op in parameter_ops:
            sizes = ELEMENTWISE.unbroadcast_sizes(spec, parameter_op)
            if sizes is None:
                continue
            fixed_axes = list(candidate.fixed_axes)
            for axis, size in enumerate(sizes):
                if size != spec.sizes[axis]:
                    fixed_axes.append((path, axis))
            resized = replace(spec, sizes=sizes, sample=None)
            call = replace_call_leaf(candidate.call, {path: resized})
            return replace(candidate, call=call, fixed_axes=tuple(fixed_axes))
    return None


def _with_recurrent_width(candidate: Candidate, facts: ModelFacts) -> Candidate | None:
    """Resize the last axis to the width of a recurrent first layer; None if it has that width."""
    width = RECURRENT.width(facts)
    path, spec = next(call_leaves(candidate.call), ((), None))
    if width is None or spec is None:
        return None
    if len(spec.sizes) < 2:
        return None
    *others, last = spec.sizes
    if last == width:
        return None
    resized = replace(spec, sizes=(*others, width), sample=None)
    call = replace_call_leaf(candidate.call, {path: resized})
    return replace(candidate, call=call)


def _prefer_rank_of_channels(found: FoundCandidate, hints: Hints, prober: Prober) -> FoundCandidate:
    """Give a guessed input as many axes as a parameter of channels, if the model accepts that.

    Rows are accepted beside a scale of `(1, 8, 1, 1)` only because they are broadcast.
    """
    candidate = found.candidate
    if not _is_guess(candidate, hints):
        return found
    for path, spec in call_leaves(candidate.call):
        for parameter_op in found.accepted.parameter_ops:
            sizes = ELEMENTWISE.sizes_by_channels(spec, parameter_op)
            if sizes is None:
                continue
            ranked = replace(spec, sizes=sizes, sample=None)
            call = replace_call_leaf(candidate.call, {path: ranked})
            fixed_axes = (*candidate.fixed_axes, (path, 1))
            changed = replace(candidate, call=call, fixed_axes=fixed_axes)
            return _if_accepted(changed, prober) or found
    return found


def _prefer_given_rank(found: FoundCandidate, hints: Hints, prober: Prober) -> FoundCandidate:
    """Keep the rank of the given tensor and change only its dtype, if the model accepts that.

    Otherwise a seam would be reported to differ in rank and in dtype.
    """
    if hints.given is None or found.candidate.dims:
        return found
    given = list(call_leaves(hints.given))
    accepted = list(call_leaves(found.candidate.call))
    if len(given) != 1 or len(accepted) != 1:
        return found
    path, given_spec = given[0]
    _, accepted_spec = accepted[0]
    if given_spec.dtype == accepted_spec.dtype:
        return found
    retyped = replace(given_spec, dtype=accepted_spec.dtype, below=accepted_spec.below)
    call = replace_call_leaf(hints.given, {path: retyped})
    changed = replace(found.candidate, call=call, fixed_axes=())
    return _if_accepted(changed, prober) or found


def _prefer_floats(found: FoundCandidate, hints: Hints, prober: Prober) -> FoundCandidate:
    """Change guessed integers that index nothing to floats, if the model accepts that."""
    if found.candidate.evidence is not None:
        return found
    if found.candidate.call == hints.given:
        return found
    inputs = list(call_leaves(found.candidate.call))
    for number, (path, spec) in enumerate(inputs):
        if spec.dtype != "int64":
            continue
        if _holds_indices(number, path, spec, found, hints.facts):
            continue
        as_float = replace(spec, dtype=hints.facts.float_dtype, below=2)
        call = replace_call_leaf(found.candidate.call, {path: as_float})
        changed = replace(found.candidate, call=call)
        found = _if_accepted(changed, prober) or found
    return found


def _holds_indices(
    number: int, path: KeyPath, spec: TensorSpec, found: FoundCandidate, facts: ModelFacts
) -> bool:
    """Return whether an integer input reached an embedding, or is called ids or a mask."""
    if ids_below(number, spec, found.accepted.parameter_ops) is not None:
        return True
    name = argument_name(facts, found.candidate.call, path) or ""
    return name.endswith(("ids", "mask"))


def _prefer_common_batch(found: FoundCandidate, hints: Hints, prober: Prober) -> FoundCandidate:
    """Give inputs whose batch is 1 the batch of the others, if the model accepts that.

    A batch of 1 is broadcast, which says nothing of other sizes.
    """
    call = found.candidate.call
    if hints.stated is not None or found.candidate.dims or call == hints.given:
        return found
    for axes, size in _common_batches(call):
        changed = replace(found.candidate, call=resized(call, axes, size))
        accepted = _if_accepted(changed, prober)
        if accepted is not None:
            return accepted
    return found


def _common_batches(call: Call) -> Iterator[tuple[tuple[Axis, ...], int]]:
    """Yield batches of 1, and a size for them: all of them, then two, then each beside a larger."""
    batches = {(path, 0): spec.sizes[0] for path, spec in call_leaves(call) if spec.sizes}
    if len(batches) < 2:
        return
    largest = max(batches.values())
    ones = tuple(axis for axis, size in batches.items() if size == 1)
    counts = [len(ones), 2]
    if largest > 1:
        counts.append(1)
    subsets = chain.from_iterable(combinations(ones, count) for count in counts if count)
    for subset in islice(dict.fromkeys(subsets), MAX_COMMON_BATCHES):
        if len(subset) > 1 or largest > 1:
            yield subset, max(2, largest)


def _with_batch(
    contract: Contract, found: FoundCandidate, hints: Hints, prober: Prober
) -> Contract:
    """Return the contract with one more axis in front, if it has free dims and this one has none.

    `x + positions[:x.size(1)]` accepts a square of the width of the table only because its rows
    are taken for steps.
    """
    candidate = found.candidate
    inputs = list(call_leaves(candidate.call))
    if contract.free_inputs or contract.unknown_dims or len(inputs) != 1:
        return contract
    if not _is_guess(candidate, hints):
        return contract
    ((path, spec),) = inputs
    batch = replace(spec, sizes=(2, *spec.sizes), sample=None)
    call = replace_call_leaf(candidate.call, {path: batch})
    larger = _if_accepted(replace(candidate, call=call, fixed_axes=(), layouts=()), prober)
    if larger is None:
        return contract
    with_batch = generalize(larger.candidate, larger.accepted, hints, prober)
    if with_batch.free_inputs:
        return with_batch
    return contract


def _is_guess(candidate: Candidate, hints: Hints) -> bool:
    """Return whether nothing but the layers of the model says what this input is."""
    return candidate.evidence is None and candidate.call != hints.given and not candidate.dims


def _if_accepted(candidate: Candidate, prober: Prober) -> FoundCandidate | None:
    """Probe a candidate; None if the model rejects it."""
    observation = prober.trace(candidate.call)
    if isinstance(observation, Accepted):
        return FoundCandidate(candidate, observation)
    return None
