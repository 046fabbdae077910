"""Refining: an accepted call made the one that the model was meant for, where that is accepted, too."""

from __future__ import annotations

from dataclasses import replace

from composecli.core.observations import Accepted
from composecli.core.pytree import call_leaves, call_with
from composecli.inference.candidates import Proposal
from composecli.inference.hints import Clues, argument_name
from composecli.inference.parameter_ops import ids_below, recurrent, widened
from composecli.inference.prober import Probing


def as_the_weights_say(proposal: Proposal, seen: Accepted, clues: Clues, probing: Probing) -> tuple[Proposal, Accepted]:
    """What the weights ask for, where that is accepted too: a size of 1 that is only broadcast against them, or a
    width that a traced recurrent layer takes though its weights have another, says nothing of the contract."""
    if clues.stated is not None or proposal.dims:
        return proposal, seen
    asked = widened(proposal, seen.meetings) or recurrent(proposal, clues.facts)
    if asked is None:
        return proposal, seen
    again = probing.watch(asked.call)
    return (asked, again) if isinstance(again, Accepted) else (proposal, seen)


def as_numbers(proposal: Proposal, seen: Accepted, clues: Clues, probing: Probing) -> tuple[Proposal, Accepted]:
    """Guessed whole numbers that index nothing as floats, where these are taken too."""
    if proposal.evidence is not None or proposal.call == clues.given:
        return proposal, seen
    for number, (path, spec) in enumerate(list(call_leaves(proposal.call))):
        name = argument_name(clues.facts, proposal.call, path) or ""
        index = ids_below(number, spec, seen.meetings) is not None or name.endswith(("ids", "mask"))
        if spec.dtype == "int64" and not index:
            as_float = replace(spec, dtype=clues.facts.float_dtype, below=2)
            changed = replace(proposal, call=call_with(proposal.call, {path: as_float}))
            again = probing.watch(changed.call)
            if isinstance(again, Accepted):
                proposal, seen = changed, again
    return proposal, seen


def near_the_given(proposal: Proposal, seen: Accepted, clues: Clues, probing: Probing) -> tuple[Proposal, Accepted]:
    """The given tensor with its dtype alone changed, where that is accepted: then its rank is no difference."""
    given = list(call_leaves(clues.given)) if clues.given is not None else []
    found = list(call_leaves(proposal.call))
    if len(given) != 1 or len(found) != 1 or proposal.dims or given[0][1].dtype == found[0][1].dtype:
        return proposal, seen
    path, spec = given[0]
    near = replace(spec, dtype=found[0][1].dtype, below=found[0][1].below)
    assert clues.given is not None
    retyped = replace(proposal, call=call_with(clues.given, {path: near}), asked=())
    again = probing.watch(retyped.call)
    return (retyped, again) if isinstance(again, Accepted) else (proposal, seen)
