"""Confirming: what really running a pair adds to what the comparison found."""

from __future__ import annotations

from dataclasses import replace

from composecli.compose.compare import ConsumerPort, ProducerPort
from composecli.core.findings import Finding, Side
from composecli.core.observations import Accepted, Observation, Rejected
from composecli.core.pytree import TensorSpec
from composecli.core.rules import Rule, Severity

IN_EVAL = "in eval mode it runs: --training eval"


PortPairs = tuple[tuple[ProducerPort, ConsumerPort], ...]


def confirm(
    findings: tuple[Finding, ...], observation: Observation, pairs: PortPairs
) -> tuple[Finding, ...]:
    """The findings of the comparison with what really running the pairs adds to them or takes from them."""
    consumer = pairs[0][1].model
    errors = [
        finding
        for finding in findings
        if finding.severity is Severity.ERROR and not finding.rule.about_every_size
    ]
    match observation:
        case Accepted() if errors:
            return _contradict(findings, errors, pairs, observation)
        case Accepted():
            return findings
        case Rejected() if errors:
            return _with_refusal(findings, observation, consumer)
        case Rejected():
            offer, ask = pairs[0]
            return (*findings, refusal_finding(observation, consumer, (offer.side, ask.side)))


def _contradict(
    findings: tuple[Finding, ...], errors: list[Finding], pairs: PortPairs, seen: Accepted
) -> tuple[Finding, ...]:
    others = tuple(finding for finding in findings if finding not in errors)
    said = tuple(f"the comparison says: {finding.title}" for finding in errors)
    ran = f"the probe ran on {seen.device} and gave {_text(seen)}"
    if any(_is_one(finding, pairs) for finding in errors):
        title = "it runs, and only because a size of 1 is broadcast"
        return (
            *others,
            Finding(
                Rule.FITS_BY_BROADCASTING, title, errors[0].sides, errors[0].axis, (*said, ran)
            ),
        )
    title = "comparison and probe disagree"
    return (
        *others,
        Finding(
            Rule.COMPARISON_AND_PROBE_DISAGREE, title, errors[0].sides, errors[0].axis, (*said, ran)
        ),
    )


def _is_one(finding: Finding, pairs: PortPairs) -> bool:
    axis = finding.axis
    return axis is not None and any(
        offer.side in finding.sides
        and axis < len(offer.found.sizes)
        and offer.found.sizes[axis] == 1
        for offer, _ in pairs
    )


def _text(seen: Accepted) -> str:
    return str(seen.result) if isinstance(seen.result, TensorSpec) else "a result"


def _with_refusal(
    findings: tuple[Finding, ...], refused: Rejected, consumer: str
) -> tuple[Finding, ...]:
    first = next(finding for finding in findings if finding.severity is Severity.ERROR)
    given = (
        f", which was given {', '.join(map(str, refused.tensors[:4]))}" if refused.tensors else ""
    )
    notes = [f"{consumer} refuses it at {refused.where}{given}"]
    if refused.runs_in_eval:
        notes.append(IN_EVAL)
    return tuple(
        replace(finding, notes=(*finding.notes, *notes)) if finding is first else finding
        for finding in findings
    )


def refusal_finding(refused: Rejected, consumer: str, sides: tuple[Side, ...] = ()) -> Finding:
    """What a refusal is: a lack of memory, a matter of values or of training mode, or a mismatch inside the model."""
    notes = [f"at {refused.where}, on {refused.device}"]
    if refused.tensors:
        notes.append(f"the op was given {', '.join(map(str, refused.tensors[:4]))}")
    notes.append(error_text(refused))
    if refused.out_of_memory:
        return Finding(
            Rule.OUT_OF_MEMORY, f"{consumer} ran out of memory", sides, notes=tuple(notes)
        )
    if refused.runs_in_eval:
        notes.append(IN_EVAL)
        return Finding(
            Rule.RUNS_IN_EVAL_MODE,
            f"{consumer} refuses in train mode what it takes in eval mode",
            sides,
            notes=tuple(notes),
        )
    if refused.runs_on_zeros:
        notes.append("zeros of the same sizes pass, so it is the values and not the shapes")
        return Finding(
            Rule.DEPENDS_ON_VALUES, f"{consumer} refuses these values", sides, notes=tuple(notes)
        )
    return Finding(
        Rule.REFUSED_BY_CONSUMER, f"{consumer} refuses what it is given", sides, notes=tuple(notes)
    )


def error_text(refused: Rejected) -> str:
    return refused.message if refused.error == "Error" else f"{refused.error}: {refused.message}"
