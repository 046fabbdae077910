"""A seam at every size that its producer admits: where it holds, and where it would."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from composecli.commands.any_shape import fit_of_any_shape
from composecli.commands.chain import Seam, pair_ports
from composecli.commands.seam_fit import (
    Known,
    SolvedFit,
    known_of,
    restated,
    solve_fit,
    with_counterexample,
    without_other_sizes,
)
from composecli.commands.seam_report import Findings, as_unknown
from composecli.commands.size_runs import SizeRuns, Sizes
from composecli.commands.size_search import SizeSearch, producer_shapes
from composecli.compose.compare import (
    PortPairs,
    compare,
    conditions_text,
    pair_conditions,
)
from composecli.compose.fitting_sizes import fitting_sizes
from composecli.compose.related_sizes import Given, is_never_met
from composecli.compose.shared_symbols import shared_symbol_findings
from composecli.compose.wiring import Wiring, wire
from composecli.core.dims import Shape, admits, fixed_size, unknown_reason
from composecli.core.findings import (
    Side,
    Verdict,
    change_first_error,
    verdict_of,
)
from composecli.core.fit import Fit, Holds, format_sizes
from composecli.core.input_spec import are_exact
from composecli.core.observations import Accepted, Observation, Rejected
from composecli.core.rules import Rule, Severity
from composecli.inference.size_solver import mismatches

_ABOUT_SIZES = (Rule.SIZE_DIFFERS, Rule.SIZE_OUT_OF_RANGE, Rule.RANK_DIFFERS)
_SEARCHED = (*_ABOUT_SIZES, Rule.REFUSED_BY_CONSUMER, Rule.CONTRACT_NOT_FOUND)
_NEVER = Fit(Holds.NEVER)
_RANKS = re.compile(r"\b[1-5]-?D\b|\b[1-5] dimensions\b")


@dataclass(frozen=True, slots=True)
class SizedSeam:
    """The findings about a seam, and the sizes of the input at which it holds.

    `moved` is the seam at other sizes, to be judged again; `known` has the conditions.
    """

    findings: Findings
    fit: Fit
    known: Known | None = None
    moved: Seam | None = None


def with_sizes(
    seam: Seam, pairs: PortPairs, findings: Findings, observation: Observation
) -> SizedSeam:
    """Return at which sizes the seam holds; at the example if it was chosen to fit."""
    if isinstance(observation, Accepted):
        if verdict_of(findings) is Verdict.COMPATIBLE:
            return _solved(seam, pairs, findings, observation)
        return SizedSeam(findings, Fit())
    return _searched(seam, pairs, findings, observation)


def _solved(seam: Seam, pairs: PortPairs, findings: Findings, observation: Accepted) -> SizedSeam:
    """Return at which other sizes a seam holds that holds at the example."""
    strict = seam.chain.request.strict
    runs = seam.runs_beside(observation)
    if _has_any_rank(seam):
        return _of_any_shape(seam, pairs, findings, runs)
    solved = _solve(seam, pairs, runs)
    if solved.by_running:
        findings = restated(findings, solved, _sides(seam, pairs), strict=strict)
    elif strict:
        findings = _strict_findings(pairs, findings)
    findings = with_counterexample(findings, solved.fit, runs, seam.edge.consumer)
    return SizedSeam(findings, solved.fit, solved.known)


def _solve(seam: Seam, pairs: PortPairs, runs: SizeRuns) -> SolvedFit:
    """Return at which sizes a seam holds that was run at its example."""
    known = Known((), ("the contract of the consumer is not known",))
    if pairs and seam.contract is not None:
        known = known_of(pairs)
    parts = seam.chain.parts[: seam.number + 1]
    solved = solve_fit(known, runs, parts)
    if solved.fit.holds is Holds.ALWAYS and _has_unknown_input(seam):
        return replace(solved, fit=replace(solved.fit, holds=Holds.UNKNOWN))
    return solved


def _of_any_shape(seam: Seam, pairs: PortPairs, findings: Findings, runs: SizeRuns) -> SizedSeam:
    """Return at which sizes a seam holds whose first model takes tensors of any rank."""
    # No symbol of its contract stands for a size.
    fit = Fit(Holds.UNKNOWN)
    if pairs and all(consumer.port.dims is None for _, consumer in pairs):
        return SizedSeam(findings, replace(fit, holds=Holds.ALWAYS))
    if len(pairs) == 1 and pairs[0][0].port.dims is None:
        found = fit_of_any_shape(pairs[0], runs, fit, strict=seam.chain.request.strict)
        return SizedSeam((*findings, *found.findings), found.fit)
    return SizedSeam(findings, fit)


def _has_any_rank(seam: Seam) -> bool:
    """Return whether the first model takes tensors of any rank."""
    return any(port.dims is None for port in seam.upstream.first.required)


def _has_unknown_input(seam: Seam) -> bool:
    """Return whether a dim of the chain's input is not known."""
    return any(_has_unknown_dim(port.dims or ()) for port in seam.upstream.first.required)


def _sides(seam: Seam, pairs: PortPairs) -> tuple[Side, ...]:
    """Return both sides of the first pair."""
    for producer, consumer in pairs:
        return (producer.side, consumer.side)
    return (Side(seam.edge.producer, "output"), Side(seam.edge.consumer, "its input"))


def _strict_findings(pairs: PortPairs, findings: Findings) -> Findings:
    """Return the findings, with those about other sizes as errors."""
    kept = list(without_other_sizes(findings))
    for producer, consumer in pairs:
        kept += compare(producer, consumer, strict=True)
    kept += shared_symbol_findings(pairs, strict=True)
    return tuple(kept)


def _searched(seam: Seam, pairs: PortPairs, findings: Findings, rejected: Rejected) -> SizedSeam:
    """Return whether a seam that fails at the example holds at other sizes, and at which."""
    errors = [finding for finding in findings if finding.severity is not Severity.NOTE]
    if not all(finding.rule in _SEARCHED for finding in errors):
        is_unknown = any(finding.severity is Severity.UNKNOWN for finding in errors)
        return SizedSeam(findings, Fit() if is_unknown else _NEVER)
    sizes, runs = seam.upstream.sizes, seam.runs_beside(rejected)
    if seam.searched or _has_any_rank(seam) or runs.fits(sizes) is not False:
        return SizedSeam(findings, Fit())
    failed = Fit(Holds.UNKNOWN, (), None, sizes)
    found = _other_sizes(seam, pairs, findings, runs)
    if found is None or found == _Never():
        undecided = _undecided(seam, pairs, findings, rejected)
        if undecided is not None:
            return SizedSeam(undecided, failed)
    if isinstance(found, _Never):
        if found.reason:
            findings = _with_note(findings, found.reason)
        return SizedSeam(findings, replace(failed, holds=Holds.NEVER))
    moved = None
    if found is not None:
        moved = _at_sizes(seam, runs, found)
    if moved is None:
        return SizedSeam(findings, failed)
    if are_exact(seam.chain.session.options.inputs_of_first):
        return _would_fit(seam, moved, findings)
    return SizedSeam(findings, failed, None, moved)


@dataclass(frozen=True, slots=True)
class _Never:
    """No size fits, and why, if there is more to say than the finding does."""

    reason: str = ""


def _other_sizes(
    seam: Seam, pairs: PortPairs, findings: Findings, runs: SizeRuns
) -> Sizes | _Never | None:
    """Return sizes at which the chain was run and works; None if none are found, nor a reason."""
    sizes = seam.upstream.sizes
    if not sizes or _is_constant_mismatch(pairs, findings, runs.at(sizes)):
        return _Never()
    changed = fitting_sizes(pairs, tuple(runs.ranges.values()), sizes)
    if changed and runs.fits({**sizes, **changed}) is True:
        return {**sizes, **changed}
    shapes = producer_shapes(pairs, [port.dims or () for port in seam.upstream.outputs])
    search = SizeSearch(runs, sizes, shapes)
    is_declared = not seam.chain.parts[seam.number].has_module
    if is_declared and (_differs_in_rank(findings) or _refuses_constant(pairs)):
        return _Never()
    is_constant = _refuses_constant(pairs) or _refuses_rank(findings, runs.at(sizes))
    if search.is_about_other_things(is_constant=is_constant):
        return _Never()
    found = search.find()
    if found is not None:
        return found
    reason = search.reason_for_never() or _impossible(pairs)
    if reason is not None:
        return _Never(reason)
    return None


def _undecided(
    seam: Seam, pairs: PortPairs, findings: Findings, rejected: Rejected
) -> Findings | None:
    """Return the findings as unknown if a dim that is not known may lead to a size that fits.

    Sizes that were stated are judged as they are.
    """
    if not _has_unknown_input(seam) or are_exact(seam.chain.session.options.inputs_of_first):
        return None
    if not any(_has_unknown_dim(producer.dims) for producer, _ in pairs):
        return None
    if _refuses_constant(pairs) or not any(mismatches(rejected)):
        return None
    reason = f"not every size that {seam.edge.producer} gives is known"
    return as_unknown(findings, reason)


def without_reason(seam: Seam, pairs: PortPairs, sized: SizedSeam) -> Findings:
    """Return the findings; as unknown if nothing excludes the sizes that were not tried.

    A bridge is offered all the same, with a note. Sizes that were stated are judged as they are.
    """
    findings = sized.findings
    stated = seam.chain.session.options.inputs_of_first
    if sized.fit.holds is not Holds.UNKNOWN or are_exact(stated) or _refuses_constant(pairs):
        return findings
    match verdict_of(findings):
        case Verdict.INCOMPATIBLE:
            return as_unknown(findings, "no size was found that fits, nor a reason why none does")
        case Verdict.BRIDGEABLE:
            return _with_note(findings, "other sizes may fit without a bridge; none was found")
    return findings


def _has_unknown_dim(dims: Shape) -> bool:
    """Return whether a dim is not known."""
    return any(unknown_reason(dim) is not None for dim in dims)


def _is_constant_mismatch(pairs: PortPairs, findings: Findings, observation: Observation) -> bool:
    """Return whether the failing op was given a size that no input size changes."""
    if not isinstance(observation, Rejected):
        return False
    pairs_of_sizes = {(mismatch.have, mismatch.want) for mismatch in mismatches(observation)}
    for finding in findings:
        if finding.rule is not Rule.SIZE_DIFFERS or finding.axis is None:
            continue
        for producer, consumer in pairs:
            if producer.side not in finding.sides or consumer.port.dims is None:
                continue
            have = fixed_size(producer.dims[finding.axis])
            want = fixed_size(consumer.port.dims[finding.axis])
            if (have, want) in pairs_of_sizes:
                return True
    return False


def _refuses_constant(pairs: PortPairs) -> bool:
    """Return whether an axis, or the product of a relation, has one size only, which is refused."""
    for producer, consumer in pairs:
        dims = consumer.port.dims or ()
        if len(dims) != len(producer.dims):
            continue
        related = Given()
        related.add(producer.dims, dims, producer.example.sizes)
        if is_never_met(consumer.own_relations, related):
            return True
        for given, taken in zip(producer.dims, dims, strict=True):
            size = fixed_size(given)
            if size is not None and admits(taken, size) is False:
                return True
    return False


def _refuses_rank(findings: Findings, observation: Observation) -> bool:
    """Return whether an op, and not the model's own code, refuses a tensor of another rank.

    A convolution says so in words before it becomes an op: `Expected 3D or 4D input to conv2d`.
    """
    if not _differs_in_rank(findings) or not isinstance(observation, Rejected):
        return False
    return observation.op is not None or _RANKS.search(observation.message) is not None


def _differs_in_rank(findings: Findings) -> bool:
    """Return whether a finding is about the number of axes. A contract file has one for a port."""
    return any(finding.rule is Rule.RANK_DIFFERS for finding in findings)


def _impossible(pairs: PortPairs) -> str | None:
    """Return the condition on the ports that no size meets; None if there is none."""
    for producer, consumer in pairs:
        for condition in pair_conditions(producer, consumer):
            if condition.why_never is not None:
                return condition.why_never
    return None


def _at_sizes(seam: Seam, runs: SizeRuns, sizes: Sizes) -> Seam | None:
    """Return the seam at sizes at which it runs, with a contract of the consumer for them."""
    upstream = seam.upstream
    observation = runs.at(sizes)
    if not isinstance(observation, Accepted):
        return None
    result = observation.results[-2]
    moved = replace(upstream, call=runs.call_at(sizes), result=result)
    part = seam.chain.parts[seam.number]
    wiring = wire(result, part.facts.arguments, seam.selected, seam.edge)
    if not isinstance(wiring, Wiring):
        return None
    stated = seam.chain.session.stated_input(part, seam.number + 1)
    found = seam.chain.session.infer(part, stated=stated, given=wiring.call)
    seam.chain.contracts[seam.number] = found
    return replace(seam, upstream=moved, wiring=wiring, searched=True)


def _would_fit(seam: Seam, moved: Seam, findings: Findings) -> SizedSeam:
    """Return the seam at the stated sizes, and at which others it would hold."""
    pairs = pair_ports(moved)
    observation = moved.run(moved.stage)
    if not isinstance(observation, Accepted):
        return SizedSeam(findings, Fit())
    solved = _solve(moved, pairs, moved.runs_beside(observation))
    sizes = seam.upstream.sizes
    fit = replace(solved.fit, fails_at=sizes)
    note = f"it would fit at {format_sizes(moved.upstream.sizes)}"
    if fit.holds is Holds.SOMETIMES:
        note = f"it would fit when {conditions_text(solved.known.conditions)}"
    if any(finding.rule is Rule.RANK_DIFFERS for finding in findings):
        taken = ", ".join(consumer.side.text for _, consumer in pairs)
        note = f"{note}, as {seam.edge.consumer} takes {taken}, too"
    return SizedSeam(_with_note(findings, note), fit)


def _with_note(findings: Findings, note: str) -> Findings:
    """Return the findings, the first error of them with this note."""
    return change_first_error(findings, lambda error: error.noted(note))
