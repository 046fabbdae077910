"""The call that parallel models share: one that all of them accept, if there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from composecli.commands.branch_ranks import at_one_rank
from composecli.commands.composition import Contracts, InferenceResult
from composecli.commands.opened_model import OpenedModel, OpenedModels
from composecli.commands.requests import CheckRequest
from composecli.commands.session import Session
from composecli.commands.stated_inputs import (
    refuse_inputs_of_no_model,
    refuse_tensors_of_branches,
    with_named_values,
    without_settings,
)
from composecli.compose.fitting_sizes import Need, equal, needs_of, sizes_for
from composecli.compose.merge import MergeSpec, outputs_in_symbols_of, shared_inputs
from composecli.core.blueprint import single_model
from composecli.core.contract import Contract
from composecli.core.dims import as_expr
from composecli.core.input_spec import are_exact
from composecli.core.observations import Accepted, Rejected
from composecli.core.pytree import Call, Tree
from composecli.core.resizing import free_dims_of, resize, sizes_by_name
from composecli.inference import Found, NotFound


@dataclass(frozen=True, slots=True)
class SharedCall:
    """One call given to every model, with the result or the refusal of each."""

    call: Call
    results: dict[int, Tree]
    refusals: dict[int, Rejected]


def infer_branches(session: Session, parts: OpenedModels) -> Contracts:
    """Infer the contract of each of several parallel models.

    A model without a contract is tried again with the first example that another one accepts.

    Raises:
        CouldNotAttempt: if an input is stated for no model, or a tensor for one of them alone.
    """
    refuse_inputs_of_no_model(session.options.inputs, len(parts))
    refuse_tensors_of_branches(session.options.inputs)
    contracts = list[InferenceResult]()
    for number, part in enumerate(parts, 1):
        stated = session.stated_branch(part, number)
        contracts.append(session.infer(part, stated=stated))
    examples = [found.contract.example for found in contracts if isinstance(found, Found)]
    if session.has_stated_call() or not examples:
        return at_one_rank(session, parts, contracts)
    for number, part in enumerate(parts):
        if isinstance(contracts[number], NotFound):
            settings = session.settings(part, number + 1)
            given = Call((*examples[0].arguments, *settings))
            contracts[number] = session.infer(part, given=given)
    return at_one_rank(session, parts, contracts)


def share_call(
    request: CheckRequest, session: Session, parts: OpenedModels, contracts: Contracts
) -> SharedCall | None:
    """Return the call that every model accepts, or else the first one; None if none is known.

    Those known are the examples of the contracts, and a call whose sizes fit all contracts.
    """
    calls = list[Call]()
    for number, found in enumerate(contracts, 1):
        if isinstance(found, Found):
            part = parts[number - 1]
            settings = session.settings(part, number)
            call = without_settings(found.contract.example, settings, part.facts)
            calls.append(_shareable(call, session, part))
    if not calls:
        return None
    return _first_shared(session, parts, _with_common_call(request, contracts, calls))


def _shareable(call: Call, session: Session, part: OpenedModel) -> Call:
    """Return the call with its plain values by name, if a model has one of its own."""
    if all(declared.model == 1 for declared in session.options.inputs):
        return call
    return with_named_values(call, part.facts)


def _first_shared(session: Session, parts: OpenedModels, calls: list[Call]) -> SharedCall:
    """Return the first of these calls that every model accepts, or else the first call."""
    tried = list[SharedCall]()
    for call in dict.fromkeys(calls):
        shared = run_each(session, parts, call)
        if not shared.refusals:
            return shared
        tried.append(shared)
    return tried[0]


def run_each(session: Session, parts: OpenedModels, call: Call) -> SharedCall:
    """Run the same call on every model, and keep results and refusals apart."""
    results = dict[int, Tree]()
    refusals = dict[int, Rejected]()
    for number, part in enumerate(parts):
        settings = session.settings(part, number + 1)
        match session.run(single_model(part.handle, settings), call):
            case Accepted() as accepted:
                results[number] = accepted.result
            case Rejected() as rejected:
                refusals[number] = rejected
    return SharedCall(call, results, refusals)


def _with_common_call(request: CheckRequest, contracts: Contracts, calls: list[Call]) -> list[Call]:
    """Return the calls; first the one that all contracts take, unless sizes are stated."""
    known = [found.contract for found in contracts if isinstance(found, Found)]
    if are_exact(request.options.inputs_of_first) or len(known) < len(contracts):
        return calls
    common = _common_call(tuple(known), MergeSpec(request.merge, request.dim))
    if common is None:
        return calls
    return [common, *calls]


def _common_call(contracts: tuple[Contract, ...], merge: MergeSpec) -> Call | None:
    """Return the first model's call at sizes that all contracts take and whose outputs merge.

    None if its example has such sizes, or none are found.
    """
    first, *others = contracts
    call = first.example
    sizes = sizes_by_name(first, call)
    ranges = free_dims_of(first, call)
    needs = list[Need]()
    for other in others:
        pairs = shared_inputs(first, other, call)
        if not pairs:
            return None
        needs += needs_of(pairs, sizes)
        needs += _merge_needs(first, other, call, merge)
    changed = sizes_for(needs, ranges, sizes)
    if not changed:
        return None
    return resize(first, call, changed)


def _merge_needs(first: Contract, other: Contract, call: Call, merge: MergeSpec) -> Iterator[Need]:
    """Yield the sizes of two outputs that have to be equal, if each model has only one."""
    outputs = outputs_in_symbols_of(first, other, call)
    if len(first.outputs) != 1 or len(outputs) != 1:
        return
    left, right = first.outputs[0].dims or (), outputs[0].dims or ()
    if len(left) != len(right):
        return
    independent = merge.independent_axis(len(left))
    for axis, (one, another) in enumerate(zip(left, right, strict=True)):
        exprs = as_expr(one), as_expr(another)
        if axis != independent and exprs[0] is not None and exprs[1] is not None:
            yield equal(exprs[0], exprs[1])
