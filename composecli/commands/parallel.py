"""Models in parallel: one input that all of them accept, and outputs that can be merged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from composecli.commands.branches import (
    Branches,
    Bridges,
    at_merging_sizes,
    missing_selection,
)
from composecli.commands.bridging import (
    holds,
    is_allowed,
    plan_bridges,
    steps_of,
    with_bridge_fix,
)
from composecli.commands.composition import (
    Composition,
    Contracts,
    InferenceResult,
    contract_of,
    not_found_finding,
)
from composecli.commands.opened_model import OpenedModel, OpenedModels, all_have_modules
from composecli.commands.parallel_sizes import (
    MergedPair,
    fit_without_merge,
    with_doubt,
    with_fit,
)
from composecli.commands.requests import CheckRequest
from composecli.commands.results import PortRow, SeamReport
from composecli.commands.samples import follow_batch
from composecli.commands.seam_report import Findings, Rows, port_texts, seam_report
from composecli.commands.session import Session
from composecli.commands.shared_call import infer_branches, share_call
from composecli.commands.tried_fixes import with_tried_fixes
from composecli.compose.bridged import bridged_findings
from composecli.compose.compare import format_dims
from composecli.compose.confirm import rejection_finding
from composecli.compose.merge import (
    merge_findings,
    merged_blueprint,
    pairs_behind_bridges,
    widened_ports,
)
from composecli.compose.samples import Seen, branches_finding, fate_of_samples
from composecli.core.blueprint import single_model
from composecli.core.bridge import Bridge
from composecli.core.contract import Port, is_call_of, relations_of
from composecli.core.findings import Finding, Side, Verdict, verdict_of
from composecli.core.fit import Fit, Holds
from composecli.core.observations import Accepted, Observation, Rejected
from composecli.core.pytree import TensorSpec
from composecli.core.relations import format_where
from composecli.core.rules import Rule
from composecli.core.slices import Fate
from composecli.inference import NotFound

# By the number of the model, from 0.
FindingsByModel = dict[int, Findings]


@dataclass(frozen=True, slots=True)
class _WorkingBridges:
    """Bridges with which the merge runs. `result` is the observation of that run.

    `findings` are the sizes at which the bridges hold, by model.
    """

    bridges: Bridges
    result: Accepted
    findings: FindingsByModel

    @property
    def steps(self) -> Bridge:
        """The steps of all branches."""
        return steps_of(self.bridges.values())


def check_parallel(request: CheckRequest, session: Session, parts: OpenedModels) -> Composition:
    """Judge the first model with each of the others, and try the fixes if they do not merge."""
    contracts = infer_branches(session, parts)

    def judge(changed: CheckRequest) -> Composition:
        return _judge_parallel(changed, session, parts, contracts)

    return with_tried_fixes(judge(request), request, judge)


def _judge_parallel(
    request: CheckRequest, session: Session, parts: OpenedModels, contracts: Contracts
) -> Composition:
    """Judge the first model with each of the others: the same input, and outputs that merge."""
    shared = share_call(request, session, parts, contracts)
    if shared is None:
        finding = _without_input(session, parts[0], contracts[0])
        seams = _blocked_seams(finding, parts)
        return Composition(contracts, seams, None, None, None)
    missing = missing_selection(request.options.selections, shared.results, parts)
    if missing is not None:
        seams = _blocked_seams(missing, parts)
        return Composition(contracts, seams, None, shared.call, None)
    branches = Branches(request, session, parts, contracts, shared)
    return _judge(at_merging_sizes(branches))


def _without_input(session: Session, part: OpenedModel, found: InferenceResult) -> Finding:
    """Return the finding that no model has a contract, with the search for the first one's."""
    assert isinstance(found, NotFound)
    stated = session.has_stated_call()
    return not_found_finding(part.name, part.facts, found, stated=stated)


def _blocked_seams(finding: Finding, parts: OpenedModels) -> tuple[SeamReport, ...]:
    """Return a report of every pair with the finding that prevents a comparison."""
    first = parts[0].name
    seams = [seam_report(first, part.name, (), (finding,)) for part in parts[1:]]
    return tuple(seams)


def _judge(branches: Branches) -> Composition:
    """Compare each pair and run the merge, with bridges if they are needed and allowed."""
    numbers = range(1, len(branches.parts))
    findings = {number: _pair_findings(branches, number) for number in numbers}
    working = _try_bridges(branches)
    used = None
    if working is not None:
        for number in numbers:
            fixed = with_bridge_fix(findings[number], working.steps, branches.request)
            conditions = (*working.findings.get(0, ()), *working.findings.get(number, ()))
            findings[number] = (*fixed, *dict.fromkeys(conditions))
        if is_allowed(branches.request.bridge, working.steps):
            used = working
    merged = _run_if_sound(branches, findings, used)
    if isinstance(merged, Rejected):
        refusal = rejection_finding(merged, f"the merge ({branches.request.merge})")
        for number in numbers:
            findings[number] = (*findings[number], refusal)
    seams = tuple(_reports(branches, findings, merged))
    call = branches.shared.call
    if not isinstance(merged, Accepted):
        return Composition(branches.contracts, seams, None, call, None)
    bridges = Bridges()
    bridged = list[int]()
    if used is not None:
        bridges = used.bridges
        for number in numbers:
            if verdict_of(findings[number]) is Verdict.BRIDGEABLE:
                bridged.append(number - 1)
    blueprint = merged_blueprint(branches.outputs, bridges, branches.merge)
    return Composition(branches.contracts, seams, blueprint, call, merged.result, tuple(bridged))


def _reports(
    branches: Branches, findings: FindingsByModel, merged: Observation | None
) -> Iterator[SeamReport]:
    """Yield the report of each pair: its findings with those about other sizes and samples."""
    warnings = FindingsByModel()
    if isinstance(merged, Accepted):
        warnings = _sample_findings(branches)
    for number in range(1, len(branches.parts)):
        found, fit = _with_fit(branches, number, findings[number], merged)
        findings[number] = found
        yield _report(branches, number, (*found, *warnings.get(number, ())), fit)


def _sample_findings(branches: Branches) -> FindingsByModel:
    """Return the warnings about branches of which one keeps the samples apart, the other not."""
    if not all_have_modules(branches.parts):
        return {}
    seen = {number: _follow_branch(branches, number) for number in branches.outputs}
    warnings = FindingsByModel()
    for number, other in seen.items():
        first = seen.get(0)
        if number == 0 or first is None or other is None:
            continue
        sides = (branches.outputs[0].side, branches.outputs[number].side)
        pair = ((first, sides[0]), (other, sides[1]))
        for (keeping, kept), (mixing, mixed) in (pair, pair[::-1]):
            fate = fate_of_samples(mixing.followed)
            is_kept = fate_of_samples(keeping.followed) is Fate.KEPT
            if is_kept and fate in (Fate.MIXED, Fate.LOST):
                warnings[number] = (branches_finding(kept, mixed, fate, mixing),)
    return warnings


def _follow_branch(branches: Branches, number: int) -> Seen | None:
    """Follow the samples of the shared input through one model; None if it has none."""
    call = branches.shared.call
    for found in branches.contracts:
        contract = contract_of(found)
        if contract is not None and is_call_of(contract, call):
            settings = branches.outputs[number].settings
            blueprint = single_model(branches.parts[number].handle, settings)
            return follow_batch(branches.session, blueprint, contract, call)
    return None


def _with_fit(
    branches: Branches, number: int, findings: Findings, merged: Observation | None
) -> tuple[Findings, Fit]:
    """Return the findings of a pair, and at which sizes of the input it merges."""
    call = branches.shared.call
    contracts = (contract_of(branches.contracts[0]), contract_of(branches.contracts[number]))
    if not isinstance(merged, Accepted) or verdict_of(findings) is not Verdict.COMPATIBLE:
        return _without_merge(branches, number, findings)
    outputs = (branches.outputs[0], branches.outputs[number])
    parts = (branches.parts[0], branches.parts[number])
    merge = replace(branches.merge, strict=branches.request.strict)
    pair = MergedPair(call, parts, contracts, outputs, merge)
    return with_fit(branches.session, pair, findings)


def _without_merge(branches: Branches, number: int, findings: Findings) -> tuple[Findings, Fit]:
    """Return the findings of a pair that does not merge, as unknown if it may at other sizes."""
    call = branches.shared.call
    contracts = (contract_of(branches.contracts[0]), contract_of(branches.contracts[number]))
    fit = fit_without_merge(findings, contracts, call)
    one, other = branches.outputs.get(0), branches.outputs.get(number)
    if fit.holds is Holds.NEVER or one is None or other is None:
        return findings, fit
    is_stated = branches.has_stated_sizes
    return with_doubt(findings, (one, other), branches.merge, is_stated=is_stated)


def _try_bridges(branches: Branches) -> _WorkingBridges | None:
    """Plan a bridge for each output that is too narrow, and return them if the merge then runs.

    As in a chain, they have to hold at more than the example that composecli chose.
    """
    if not all_have_modules(branches.parts):
        return None
    ports = widened_ports(branches.outputs, branches.merge)
    needs = list[tuple[TensorSpec, Port]]()
    for number, port in ports.items():
        tensor = branches.outputs[number].tree
        assert isinstance(tensor, TensorSpec)
        needs.append((tensor, port))
    planned = plan_bridges(needs)
    if not planned:
        return None
    bridges = dict(zip(ports, planned, strict=True))
    pairs = pairs_behind_bridges(branches.outputs, branches.merge, branches.ranges)
    request = branches.request
    if not all(holds(pair, bridges.get(number, ()), request) for number, pair in pairs.items()):
        return None
    findings = FindingsByModel()
    for number, (producer, consumer) in pairs.items():
        bridge = bridges.get(number, ())
        findings[number] = bridged_findings(producer, bridge, consumer, strict=request.strict)
    result = branches.run(bridges)
    if isinstance(result, Rejected):
        return None
    return _WorkingBridges(bridges, result, findings)


def _run_if_sound(
    branches: Branches, findings: FindingsByModel, used: _WorkingBridges | None
) -> Observation | None:
    """Run the merge, with the bridges that are used; None if a pair does not fit."""
    sound = [Verdict.COMPATIBLE]
    if used is not None:
        sound.append(Verdict.BRIDGEABLE)
    if any(verdict_of(pair) not in sound for pair in findings.values()):
        return None
    if used is not None:
        return used.result
    return branches.run({})


def _pair_findings(branches: Branches, number: int) -> Findings:
    """Return the reasons why the first model and this one cannot be merged."""
    refusals, parts = branches.shared.refusals, branches.parts
    if 0 not in refusals and number not in refusals:
        return merge_findings(branches.outputs[0], branches.outputs[number], branches.merge)
    refusing_number, accepting_number = 0, number
    if number in refusals:
        refusing_number, accepting_number = number, 0
    refusing, accepting = parts[refusing_number], parts[accepting_number]
    finding = rejection_finding(refusals[refusing_number], refusing.name)
    if finding.rule is not Rule.REFUSED_BY_CONSUMER:
        return (finding,)
    found = branches.contracts[refusing_number]
    if isinstance(found, NotFound) and not branches.session.has_stated_call():
        return (not_found_finding(refusing.name, refusing.facts, found, stated=False),)
    title = f"{refusing.name} fails on the input that {accepting.name} accepts"
    sides = (*_input_sides(branches, 0), *_input_sides(branches, number))
    changed = replace(finding, rule=Rule.INPUTS_NOT_SHARED, title=title, sides=sides)
    return (changed,)


def _input_sides(branches: Branches, number: int) -> list[Side]:
    """Return one side for each input that every call of a model needs."""
    contract = contract_of(branches.contracts[number])
    if contract is None:
        return []
    name = branches.parts[number].name
    sides = list[Side]()
    for port in contract.required:
        dims = format_dims(port.dims)
        where = format_where(relations_of(port.dims or (), contract.where))
        sides.append(Side(name, port.name, port.dtype, dims, where))
    return sides


def _report(branches: Branches, number: int, findings: Findings, fit: Fit) -> SeamReport:
    """Return the report of the first model with another one."""
    one, other = branches.parts[0].name, branches.parts[number].name
    rows = _rows(branches, number, findings)
    return seam_report(one, other, rows, findings, fit)


def _rows(branches: Branches, number: int, findings: Findings) -> Rows:
    """Return the inputs of both models, then their outputs.

    The findings are about the last row; about all of them if the models do not share an input.
    """
    rows = _input_rows(branches, number)
    if 0 in branches.outputs and number in branches.outputs:
        left, right = branches.outputs[0].side, branches.outputs[number].side
        texts = (left.port, left.text, right.port, right.text)
        rows.append(PortRow(*texts, Verdict.COMPATIBLE))
    rules = [finding.rule for finding in findings]
    first = len(rows) - 1
    if Rule.INPUTS_NOT_SHARED in rules or Rule.CONTRACT_NOT_FOUND in rules:
        first = 0
    for index in range(max(first, 0), len(rows)):
        rows[index] = replace(rows[index], verdict=Verdict.UNKNOWN)
    return tuple(rows)


def _input_rows(branches: Branches, number: int) -> list[PortRow]:
    """Return the required inputs of both models side by side; extra ones are left out."""
    one = contract_of(branches.contracts[0])
    other = contract_of(branches.contracts[number])
    if one is None or other is None:
        return []
    rows = list[PortRow]()
    lefts = port_texts(one.required, one.where)
    rights = port_texts(other.required, other.where)
    for left, right in zip(lefts, rights, strict=False):
        rows.append(PortRow(*left, *right, Verdict.COMPATIBLE))
    return rows
