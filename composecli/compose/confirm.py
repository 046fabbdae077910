"""Confirming: combine the findings of the comparison with the result of running the pair."""

from __future__ import annotations

from dataclasses import replace

from composecli.compose.compare import PortPair, PortPairs
from composecli.core.findings import Finding, Place, Side, change_first_error
from composecli.core.observations import Accepted, Observation, Rejected, Remedy
from composecli.core.pytree import TensorSpec
from composecli.core.rules import Rule, Severity

_RUNS_IN_EVAL = "it runs in eval mode: --training eval"
MAX_NOTED_OPERANDS = 4


def confirm(
    findings: tuple[Finding, ...], observation: Observation, pairs: PortPairs
) -> tuple[Finding, ...]:
    """Return the findings of the comparison, corrected by the result of running the pairs.

    An error is contradicted if the consumer accepts the example: `float32[2, 1]` is not
    `float32[N, 5]`, but a consumer that adds a bias of size 5 broadcasts it. If the consumer fails
    too, its first error notes the place. An unexpected failure is a finding of its own, unless a
    size follows the values of the input: then it may be due to the values of the probe.
    """
    errors = [finding for finding in findings if _is_about_example(finding)]
    match observation:
        case Accepted():
            if not errors:
                return findings
            return _contradict(findings, errors, pairs, observation)
        case Rejected():
            if errors:
                _, consumer = pairs[0]
                return _add_rejection(findings, observation, consumer.model)
            if any(finding.rule is Rule.SIZE_FOLLOWS_VALUES for finding in findings):
                return findings
            return (*findings, _unexpected(observation, pairs[0]))


def _unexpected(rejected: Rejected, pair: PortPair) -> Finding:
    """Return the finding about a failure of which the comparison says nothing."""
    producer, consumer = pair
    if rejected.lookup is not None and rejected.lookup.is_given:
        return lookup_finding(rejected, pair)
    return rejection_finding(rejected, consumer.model, (producer.side, consumer.side))


def _is_about_example(finding: Finding) -> bool:
    """Return whether a run of the example can contradict the finding: an error at these sizes."""
    return finding.severity is Severity.ERROR and not finding.rule.about_every_size


def _contradict(
    findings: tuple[Finding, ...], errors: list[Finding], pairs: PortPairs, accepted: Accepted
) -> tuple[Finding, ...]:
    """Replace the errors by one finding: the probe ran, by broadcasting or against all rules."""
    others = tuple(finding for finding in findings if finding not in errors)
    claims = tuple(f"according to the contracts: {finding.title}" for finding in errors)
    result = _describe_result(accepted)
    probe = f"the probe ran on {accepted.device} and returned {result}"
    rule = Rule.COMPARISON_AND_PROBE_DISAGREE
    title = "the contracts and the probe disagree"
    if any(_is_broadcast(finding, pairs) for finding in errors):
        rule = Rule.FITS_BY_BROADCASTING
        title = "it runs, but only because a size of 1 is broadcast"
    first = errors[0]
    notes = (*claims, probe)
    contradiction = Finding(rule, title, first.sides, first.axis, notes)
    return (*others, contradiction)


def _is_broadcast(finding: Finding, pairs: PortPairs) -> bool:
    """Return whether the axis that the finding marks has size 1 in the producer's example."""
    axis = finding.axis
    if axis is None:
        return False
    for producer, _ in pairs:
        if producer.side not in finding.sides:
            continue
        sizes = producer.example.sizes
        if axis < len(sizes) and sizes[axis] == 1:
            return True
    return False


def _describe_result(accepted: Accepted) -> str:
    """Return the text of a tensor; containers are not spelled out."""
    if isinstance(accepted.result, TensorSpec):
        return str(accepted.result)
    return "a result"


def _add_rejection(
    findings: tuple[Finding, ...], rejected: Rejected, consumer: str
) -> tuple[Finding, ...]:
    """Add a note to the first error about the place where the consumer failed."""
    failure = f"{consumer} fails at {rejected.where}"
    if not rejected.has_place:
        failure = f"{consumer} fails: {format_error(rejected)}"
    if rejected.tensors:
        operands = _describe_operands(rejected)
        failure += f", with operands {operands}"
    notes = [failure]
    if Remedy.EVAL_MODE in rejected.remedies:
        notes.append(_RUNS_IN_EVAL)

    def confirmed(error: Finding) -> Finding:
        return replace(error.noted(*notes), place=place_of(rejected))

    return change_first_error(findings, confirmed)


def rejection_finding(rejected: Rejected, consumer: str, sides: tuple[Side, ...] = ()) -> Finding:
    """Classify a failed run: out of memory, training mode, input values, or a mismatch inside."""
    rule = Rule.REFUSED_BY_CONSUMER
    title = f"{consumer} fails on this input"
    notes = [f"at {rejected.where}, on {rejected.device}"]
    if rejected.tensors:
        operands = _describe_operands(rejected)
        notes.append(f"the operands were {operands}")
    notes.append(format_error(rejected))
    if rejected.out_of_memory:
        rule = Rule.OUT_OF_MEMORY
        title = f"{consumer} ran out of memory"
    elif Remedy.EVAL_MODE in rejected.remedies:
        rule = Rule.RUNS_IN_EVAL_MODE
        title = f"{consumer} fails in train mode on an input that it accepts in eval mode"
        notes.append(_RUNS_IN_EVAL)
    elif Remedy.ZEROS in rejected.remedies:
        rule = Rule.DEPENDS_ON_VALUES
        title = f"{consumer} fails on these input values"
        notes.append("zeros of the same sizes pass, so the cause is the values, not the shapes")
    return Finding(rule, title, sides, notes=tuple(notes), place=place_of(rejected))


def lookup_finding(rejected: Rejected, pair: PortPair) -> Finding:
    """Return the finding that the producer gave an id that the consumer's table does not hold."""
    producer, consumer = pair
    lookup = rejected.lookup
    assert lookup is not None
    bound = f"up to {lookup.largest}"
    if lookup.largest < lookup.rows:
        bound = f"down to {lookup.smallest}"
    title = (
        f"{producer.model} gives ids {bound} here; "
        f"{consumer.model} looks them up in {lookup.rows:,} rows"
    )
    notes = (
        f"{consumer.model} fails at {rejected.where}, on {rejected.device}",
        f"id {lookup.witness} has no row",
        format_error(rejected),
    )
    sides = (producer.side, consumer.side)
    place = place_of(rejected)
    return Finding(Rule.IDS_OUT_OF_RANGE, title, sides, notes=notes, place=place)


def place_of(rejected: Rejected) -> Place | None:
    """Return where a forward failed, if that is known."""
    if rejected.op is None and rejected.submodule is None:
        return None
    return Place(rejected.op, rejected.submodule)


def _describe_operands(rejected: Rejected) -> str:
    """Return the first few operands of the op that failed, as text."""
    noted = rejected.tensors[:MAX_NOTED_OPERANDS]
    return ", ".join(map(str, noted))


def format_error(rejected: Rejected) -> str:
    """Return the error of the failed run in one line, with its type if that tells anything.

    An error may have a type and no message. TorchScript then reports `AssertionError:` as the
    message, and Python has only the name of the type to show.
    """
    message = rejected.message.strip()
    name = message.removesuffix(":")
    if not name:
        error = rejected.error or "Error"
        return f"{error}, without a message"
    ends_after_name = name != message and name.isidentifier()
    if name == rejected.error or ends_after_name:
        return f"{name}, without a message"
    if not rejected.error:
        return message
    return f"{rejected.error}: {message}"
