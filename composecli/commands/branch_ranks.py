"""Parallel models of any rank, at the rank of the model beside them: they share their input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from composecli.commands.composition import InferenceResult, at_own_rank, contract_of
from composecli.commands.opened_model import OpenedModel, OpenedModels
from composecli.commands.session import Session
from composecli.compose.fitting_sizes import needs_of, sizes_for
from composecli.compose.merge import shared_inputs
from composecli.core.blueprint import single_model
from composecli.core.contract import Contract
from composecli.core.contract_at_rank import at_rank, at_rank_of
from composecli.core.observations import Accepted
from composecli.core.pytree import Call
from composecli.core.resizing import free_dims_of, resize, sizes_by_name
from composecli.inference import Found


def at_one_rank(
    session: Session, parts: OpenedModels, contracts: Sequence[InferenceResult]
) -> tuple[InferenceResult, ...]:
    """Return the contracts, those of any rank at the rank of the first one that has only one.

    A flatten head of 3,072 values takes `float32[N, C, H, W] where C*H*W == 3072` beside a model of
    images. It keeps its own rank if no sizes are found that both take.
    """
    known = filter(None, map(contract_of, contracts))
    beside = next((contract for contract in known if contract.any_rank is None), None)
    ranked = list[InferenceResult]()
    for part, found in zip(parts, contracts, strict=True):
        if isinstance(found, Found) and beside is not None:
            ranked.append(at_own_rank(_ranked(session, part, found, beside)))
        else:
            ranked.append(at_own_rank(found))
    return tuple(ranked)


def _ranked(session: Session, part: OpenedModel, found: Found, beside: Contract) -> Found:
    """Return the contract at the rank of another one, if the model takes an input of both."""
    call = _common_call(found.contract, beside)
    if call is None:
        return found
    observation = session.run(single_model(part.handle), call)
    if not isinstance(observation, Accepted):
        return found
    contract = at_rank(found.contract, call, observation.result)
    if contract is None:
        return found
    return replace(found, contract=contract)


def _common_call(contract: Contract, beside: Contract) -> Call | None:
    """Return the call of the other contract at sizes that both take; None if none are found."""
    if contract.any_rank is None:
        return None
    call = beside.example
    pairs = shared_inputs(beside, at_rank_of(contract, call), call)
    sizes = sizes_by_name(beside, call)
    needs = list(needs_of(pairs, sizes))
    changed = sizes_for(needs, free_dims_of(beside, call), sizes)
    if not pairs or changed is None:
        return None
    return resize(beside, call, changed)
