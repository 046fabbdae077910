"""Refining: an accepted call made the one that the model was meant for, where that is accepted, too."""

from __future__ import annotations

from dataclasses import replace

from composecli.core.observations import Accepted
from composecli.core.pytree import call_leaves, replace_call_leaf
from composecli.inference.candidates import Candidate
from composecli.inference.hints import Hints, argument_name
from composecli.inference.parameter_ops import ids_below, recurrent, widened
from composecli.inference.prober import Prober


def match_weights(
    candidate: Candidate, seen: Accepted, hints: Hints, probing: Prober
) -> tuple[Candidate, Accepted]:
    """What the weights ask for, where that is accepted too: a size of 1 that is only broadcast against them, or a
    width that a traced recurrent layer takes though its weights have another, says nothing of the contract."""
    if hints.stated is not None or candidate.dims:
        return candidate, seen
    asked = widened(candidate, seen.parameter_ops) or recurrent(candidate, hints.facts)
    if asked is None:
        return candidate, seen
    again = probing.trace(asked.call)
    return (asked, again) if isinstance(again, Accepted) else (candidate, seen)


def prefer_floats(
    candidate: Candidate, seen: Accepted, hints: Hints, probing: Prober
) -> tuple[Candidate, Accepted]:
    """Guessed whole numbers that index nothing as floats, where these are taken too."""
    if candidate.evidence is not None or candidate.call == hints.given:
        return candidate, seen
    for number, (path, spec) in enumerate(list(call_leaves(candidate.call))):
        name = argument_name(hints.facts, candidate.call, path) or ""
        index = ids_below(number, spec, seen.parameter_ops) is not None or name.endswith(
            ("ids", "mask")
        )
        if spec.dtype == "int64" and not index:
            as_float = replace(spec, dtype=hints.facts.float_dtype, below=2)
            changed = replace(candidate, call=replace_call_leaf(candidate.call, {path: as_float}))
            again = probing.trace(changed.call)
            if isinstance(again, Accepted):
                candidate, seen = changed, again
    return candidate, seen


def prefer_given_rank(
    candidate: Candidate, seen: Accepted, hints: Hints, probing: Prober
) -> tuple[Candidate, Accepted]:
    """The given tensor with its dtype alone changed, where that is accepted: then its rank is no difference."""
    given = list(call_leaves(hints.given)) if hints.given is not None else []
    found = list(call_leaves(candidate.call))
    if (
        len(given) != 1
        or len(found) != 1
        or candidate.dims
        or given[0][1].dtype == found[0][1].dtype
    ):
        return candidate, seen
    path, spec = given[0]
    near = replace(spec, dtype=found[0][1].dtype, below=found[0][1].below)
    assert hints.given is not None
    retyped = replace(candidate, call=replace_call_leaf(hints.given, {path: near}), asked=())
    again = probing.trace(retyped.call)
    return (retyped, again) if isinstance(again, Accepted) else (candidate, seen)
