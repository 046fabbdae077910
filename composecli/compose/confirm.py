"""Confirming: combine the findings of the comparison with the result of running the pair."""

from __future__ import annotations

from dataclasses import replace

from composecli.compose.compare import PortPairs
from composecli.core.findings import Finding, Side
from composecli.core.observations import Accepted, Observation, Rejected, Remedy
from composecli.core.pytree import TensorSpec
from composecli.core.rules import Rule, Severity

_RUNS_IN_EVAL = "in eval mode it runs: --training eval"
MAX_NOTED_OPERANDS = 4


def confirm(
    findings: tuple[Finding, ...], observation: Observation, pairs: PortPairs
) -> tuple[Finding, ...]:
    """Return the findings of the comparison, corrected by the result of running the pairs.

    An error is contradicted if the consumer accepts the example: `float32[2, 1]` is not
    `float32[N, 5]`, but a consumer that adds a bias of size 5 broadcasts it. If the consumer fails
    too, its first error notes the place. An unexpected failure is a finding of its own.
    """
    producer, consumer = pairs[0]
    errors = [finding for finding in findings if _is_about_example(finding)]
    match observation:
        case Accepted():
            if not errors:
                return findings
            return _contradict(findings, errors, pairs, observation)
        case Rejected():
            if errors:
                return _add_rejection(findings, observation, consumer.model)
            sides = (producer.side, consumer.side)
            return (*findings, rejection_finding(observation, consumer.model, sides))


def _is_about_example(finding: Finding) -> bool:
    """Return whether a run of the example can contradict the finding: an error at these sizes."""
    return finding.severity is Severity.ERROR and not finding.rule.about_every_size


def _contradict(
    findings: tuple[Finding, ...], errors: list[Finding], pairs: PortPairs, accepted: Accepted
) -> tuple[Finding, ...]:
    """Replace the errors by one finding: the probe ran, by broadcasting or against all rules."""
    others = tuple(finding for finding in findings if finding not in errors)
    claims = tuple(f"the comparison says: {finding.title}" for finding in errors)
    probe = f"the probe ran on {accepted.device} and gave {_describe_result(accepted)}"
    rule, title = Rule.COMPARISON_AND_PROBE_DISAGREE, "comparison and probe disagree"
    if any(_is_broadcast(finding, pairs) for finding in errors):
        rule, title = (
            Rule.FITS_BY_BROADCASTING,
            "it runs, and only because a size of 1 is broadcast",
        )
    first = errors[0]
    return (*others, Finding(rule, title, first.sides, first.axis, (*claims, probe)))


def _is_broadcast(finding: Finding, pairs: PortPairs) -> bool:
    """Return whether the axis that the finding marks has size 1 in the producer's example."""
    axis = finding.axis
    if axis is None:
        return False
    for producer, _ in pairs:
        sizes = producer.example.sizes
        if producer.side in finding.sides and axis < len(sizes) and sizes[axis] == 1:
            return True
    return False


def _describe_result(accepted: Accepted) -> str:
    if isinstance(accepted.result, TensorSpec):
        return str(accepted.result)
    return "a result"


def _add_rejection(
    findings: tuple[Finding, ...], rejected: Rejected, consumer: str
) -> tuple[Finding, ...]:
    """Add a note to the first error about the place where the consumer failed."""
    first = next(finding for finding in findings if finding.severity is Severity.ERROR)
    place = f"{consumer} refuses it at {rejected.where}"
    if rejected.tensors:
        place += f", which was given {_describe_operands(rejected)}"
    notes = [*first.notes, place]
    if Remedy.EVAL_MODE in rejected.remedies:
        notes.append(_RUNS_IN_EVAL)
    confirmed = replace(first, notes=tuple(notes))
    return tuple(confirmed if finding is first else finding for finding in findings)


def rejection_finding(rejected: Rejected, consumer: str, sides: tuple[Side, ...] = ()) -> Finding:
    """Classify a failed run: out of memory, training mode, input values, or a mismatch inside."""
    rule, title = Rule.REFUSED_BY_CONSUMER, f"{consumer} refuses what it is given"
    notes = [f"at {rejected.where}, on {rejected.device}"]
    if rejected.tensors:
        notes.append(f"the op was given {_describe_operands(rejected)}")
    notes.append(format_error(rejected))
    if rejected.out_of_memory:
        rule, title = Rule.OUT_OF_MEMORY, f"{consumer} ran out of memory"
    elif Remedy.EVAL_MODE in rejected.remedies:
        rule = Rule.RUNS_IN_EVAL_MODE
        title = f"{consumer} refuses in train mode what it takes in eval mode"
        notes.append(_RUNS_IN_EVAL)
    elif Remedy.ZEROS in rejected.remedies:
        rule, title = Rule.DEPENDS_ON_VALUES, f"{consumer} refuses these values"
        notes.append("zeros of the same sizes pass, so it is the values and not the shapes")
    return Finding(rule, title, sides, notes=tuple(notes))


def _describe_operands(rejected: Rejected) -> str:
    return ", ".join(str(spec) for spec in rejected.tensors[:MAX_NOTED_OPERANDS])


def format_error(rejected: Rejected) -> str:
    """Return the error of the failed run in one line, with its type if that tells anything.

    An error may have a type and no message. TorchScript then reports `AssertionError:` as the
    message, and Python has only the name of the type to show.
    """
    message = rejected.message.strip()
    name = message.removesuffix(":")
    if not name:
        return f"{rejected.error or 'Error'}, without a message"
    if name == rejected.error or (name != message and name.isidentifier()):
        return f"{name}, without a message"
    if not rejected.error:
        return message
    return f"{rejected.error}: {message}"
