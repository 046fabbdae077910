"""Models in parallel at every size: where all take the input, and where their outputs merge."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.commands.opened_model import OpenedModels
from composecli.commands.seam_fit import (
    Known,
    known_of,
    restated,
    solve_fit,
    with_counterexample,
)
from composecli.commands.seam_report import Findings, as_unknown
from composecli.commands.session import Session
from composecli.commands.size_runs import SizeRuns
from composecli.compose.merge import (
    BranchOutput,
    MergeSpec,
    merge_conditions,
    merged_blueprint,
    outputs_in_symbols_of,
    shared_inputs,
)
from composecli.core.contract import Contract, Port
from composecli.core.dims import fixed_size
from composecli.core.findings import Verdict, change_first_error, verdict_of
from composecli.core.fit import Fit, Holds
from composecli.core.pytree import Call
from composecli.core.resizing import ranges_by_name
from composecli.core.rules import Rule, Severity

_NEVER = (
    Rule.MERGE_NEEDS_TENSORS,
    Rule.MERGE_DIM_OUT_OF_RANGE,
    Rule.NO_SUCH_OUTPUT,
)


@dataclass(frozen=True, slots=True)
class MergedPair:
    """Two models that take the same call, whose outputs merge. A contract may not be known."""

    call: Call
    parts: OpenedModels
    contracts: tuple[Contract | None, Contract | None]
    outputs: tuple[BranchOutput, BranchOutput]
    merge: MergeSpec


def with_fit(session: Session, pair: MergedPair, findings: Findings) -> tuple[Findings, Fit]:
    """Return the findings about a pair, and the sizes at which both take the input and merge."""
    first, call = pair.contracts[0], pair.call
    if first is None or any(port.dims is None for port in first.required):
        return findings, Fit()
    blueprint = merged_blueprint(dict(enumerate(pair.outputs)), {}, pair.merge)
    runs = SizeRuns(session, blueprint, first, call, ranges_by_name(first, call))
    solved = solve_fit(_known(pair), runs, pair.parts)
    one, other = pair.outputs
    findings = restated(findings, solved, (one.side, other.side), strict=pair.merge.strict)
    return with_counterexample(findings, solved.fit, runs, "the merge"), solved.fit


def _known(pair: MergedPair) -> Known:
    """Return the conditions on which a pair merges, by the dims of its inputs and outputs."""
    first, other = pair.contracts
    if first is None or other is None:
        return Known((), ("a contract is not known",))
    inputs = shared_inputs(first, other, pair.call)
    if not inputs:
        return Known((), ("the inputs are not alike",))
    known = known_of(inputs)
    merging, unknown = merge_conditions(*pair.outputs, pair.merge)
    return Known((*known.conditions, *merging), (*known.undecided, *unknown))


def fit_without_merge(
    findings: Findings, contracts: tuple[Contract | None, Contract | None], call: Call
) -> Fit:
    """Return whether models that do not merge at the example never do."""
    if any(finding.rule in _NEVER for finding in findings):
        return Fit(Holds.NEVER)
    first, other = contracts
    if first is None or other is None:
        return Fit()
    rules = {finding.rule for finding in findings}
    if Rule.INPUTS_NOT_SHARED in rules and _inputs_differ(first, other, call):
        return Fit(Holds.NEVER)
    for finding in findings:
        if finding.rule is Rule.MERGE_SIZES_DIFFER and finding.axis is not None:
            outputs = (first.outputs, outputs_in_symbols_of(first, other, call))
            if _are_fixed(outputs, finding.axis):
                return Fit(Holds.NEVER)
    return Fit()


def with_doubt(
    findings: Findings,
    outputs: tuple[BranchOutput, BranchOutput],
    merge: MergeSpec,
    *,
    is_stated: bool,
) -> tuple[Findings, Fit]:
    """Return the findings of outputs that differ at the example, and whether they always do.

    Sizes that were stated are judged as they are. Otherwise the pair is unknown if nothing excludes
    the sizes that were not tried; a bridge is offered all the same, with a note.
    """
    conditions, undecided = merge_conditions(*outputs, merge)
    for condition in conditions:
        if condition.is_never_met:
            reason = condition.why_never
            return _with_note(findings, reason), Fit(Holds.NEVER)
    about_sizes = [finding.rule for finding in findings if finding.severity is Severity.ERROR]
    is_about_sizes = set(about_sizes) == {Rule.MERGE_SIZES_DIFFER}
    if is_stated or not is_about_sizes or not (conditions or undecided):
        return findings, Fit()
    if verdict_of(findings) is Verdict.BRIDGEABLE:
        return _with_note(findings, "other sizes may fit without a bridge; none was found"), Fit()
    return as_unknown(findings, "no size was found that fits, nor a reason why none does"), Fit()


def _with_note(findings: Findings, note: str | None) -> Findings:
    """Return the findings, the first error of them with this note."""
    if note is None:
        return findings
    return change_first_error(findings, lambda error: error.noted(note))


def _inputs_differ(first: Contract, other: Contract, call: Call) -> bool:
    """Return whether an axis has another fixed size for each model, or the dtypes differ."""
    for producer, consumer in shared_inputs(first, other, call):
        if consumer.port.dims is None or len(consumer.port.dims) != len(producer.dims):
            continue
        if producer.port.dtype != consumer.port.dtype:
            return True
        for one, another in zip(producer.dims, consumer.port.dims, strict=True):
            sizes = fixed_size(one), fixed_size(another)
            if None not in sizes and sizes[0] != sizes[1]:
                return True
    return False


def _are_fixed(outputs: tuple[tuple[Port, ...], ...], axis: int) -> bool:
    """Return whether each model has one output, whose axis has one size."""
    for ports in outputs:
        if len(ports) != 1 or ports[0].dims is None or axis >= len(ports[0].dims):
            return False
        if fixed_size(ports[0].dims[axis]) is None:
            return False
    return True
