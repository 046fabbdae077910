"""What a probe says of a seam, set beside what the comparison said."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

from composecli.blueprint import Blueprint
from composecli.findings import Finding, Fix, Side
from composecli.infer import Found, NotFound
from composecli.observations import Accepted, Observation, Refused
from composecli.protocol import ModelFacts
from composecli.results import SeamReport
from composecli.rules import Severity
from composecli.trees import Call, Literal, TensorSpec, Tree, leaves, path_text
from composecli.verdict import Ask, Offer

# Said of other sizes than the example's, so that a probe at the example says nothing against it.
EVERY_SIZE = "CC206"
IN_EVAL = "in eval mode it runs: --training eval"

Pairs = tuple[tuple[Offer, Ask], ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of the whole: `blueprint` and `result` only where every seam lets it be built.

    `contracts` has one entry for each model, `bridged` the numbers of the seams that a bridge mends.
    """

    contracts: tuple[Found | NotFound, ...]
    seams: tuple[SeamReport, ...]
    blueprint: Blueprint | None
    call: Call | None
    result: Tree | None
    bridged: tuple[int, ...] = ()


def confirm(findings: tuple[Finding, ...], observation: Observation, pairs: Pairs) -> tuple[Finding, ...]:
    """The findings of the comparison with what really running the pairs adds to them or takes from them."""
    consumer = pairs[0][1].model
    errors = [finding for finding in findings if finding.severity is Severity.ERROR and finding.code != EVERY_SIZE]
    match observation:
        case Accepted() if errors:
            return _ran_all_the_same(findings, errors, pairs, observation)
        case Accepted():
            return findings
        case Refused() if errors:
            return _with_refusal(findings, observation, consumer)
        case Refused():
            offer, ask = pairs[0]
            return (*findings, refusal_finding(observation, consumer, (offer.side, ask.side)))


def _ran_all_the_same(
    findings: tuple[Finding, ...], errors: list[Finding], pairs: Pairs, seen: Accepted
) -> tuple[Finding, ...]:
    others = tuple(finding for finding in findings if finding not in errors)
    said = tuple(f"the comparison says: {finding.title}" for finding in errors)
    ran = f"the probe ran on {seen.device} and gave {_text(seen)}"
    if any(_is_one(finding, pairs) for finding in errors):
        title = "it runs, and only because a size of 1 is broadcast"
        return (*others, Finding("CC208", title, errors[0].sides, errors[0].axis, (*said, ran)))
    title = "comparison and probe disagree"
    return (*others, Finding("CC303", title, errors[0].sides, errors[0].axis, (*said, ran)))


def _is_one(finding: Finding, pairs: Pairs) -> bool:
    axis = finding.axis
    return axis is not None and any(
        offer.side in finding.sides and axis < len(offer.found.sizes) and offer.found.sizes[axis] == 1
        for offer, _ in pairs
    )


def _text(seen: Accepted) -> str:
    return str(seen.result) if isinstance(seen.result, TensorSpec) else "a result"


def _with_refusal(findings: tuple[Finding, ...], refused: Refused, consumer: str) -> tuple[Finding, ...]:
    first = next(finding for finding in findings if finding.severity is Severity.ERROR)
    given = f", which was given {', '.join(map(str, refused.tensors[:4]))}" if refused.tensors else ""
    notes = [f"{consumer} refuses it at {refused.where}{given}"]
    if refused.runs_in_eval:
        notes.append(IN_EVAL)
    return tuple(
        replace(finding, notes=(*finding.notes, *notes)) if finding is first else finding for finding in findings
    )


def refusal_finding(refused: Refused, consumer: str, sides: tuple[Side, ...] = ()) -> Finding:
    """What a refusal is: a lack of memory, a matter of values or of training mode, or a mismatch inside the model."""
    notes = [f"at {refused.where}, on {refused.device}"]
    if refused.tensors:
        notes.append(f"the op was given {', '.join(map(str, refused.tensors[:4]))}")
    notes.append(_said(refused))
    if refused.out_of_memory:
        return Finding("CC307", f"{consumer} ran out of memory", sides, notes=tuple(notes))
    if refused.runs_in_eval:
        notes.append(IN_EVAL)
        return Finding(
            "CC306", f"{consumer} refuses in train mode what it takes in eval mode", sides, notes=tuple(notes)
        )
    if refused.runs_on_zeros:
        notes.append("zeros of the same sizes pass, so it is the values and not the shapes")
        return Finding("CC302", f"{consumer} refuses these values", sides, notes=tuple(notes))
    return Finding("CC301", f"{consumer} refuses what it is given", sides, notes=tuple(notes))


def not_found_finding(name: str, facts: ModelFacts, found: NotFound, *, stated: bool) -> Finding:
    """Why there is no contract: the model refused what was stated for it, or all that was tried."""
    best = found.tried[0] if found.tried else None
    if stated and best is not None:
        finding = refusal_finding(best[1], name, (Side(name, str(best[0])),))
        if finding.code in ("CC302", "CC307"):
            return finding
        return replace(finding, code="CC308", title=f"{name} refuses the input that was stated for it")
    notes = [f"tried {call}: refused at {refused.where}" for call, refused in found.tried[:3]]
    if best is not None:
        notes.append(f"the best try ended with {_said(best[1])}")
    arguments = ", ".join(f"{a.name}: {a.type_name or 'any type'}" for a in facts.arguments if a.required)
    if arguments:
        notes.append(f"forward takes {arguments}")
    if found.stopped:
        notes.append(f"no more was tried: {found.stopped}")
    words = _input_words(best[0]) if best is not None else ["--input", "float32[N,3,224,224]"]
    command = shlex.join(["composecli", "inspect", name, *words])
    return Finding(
        "CC304",
        f"what {name} takes could not be found",
        (Side(name, "its input"),),
        notes=tuple(notes),
        fix=Fix(command, ("with the dtype and the sizes that it takes, once for each input",)),
    )


def _input_words(call: Call) -> list[str]:
    """The call as `--input` says it, one for each argument that is a tensor or a value."""
    words = list[str]()
    for argument in call.arguments:
        name = argument.name or ""
        match argument.value:
            case TensorSpec() as spec:
                words += ["--input", f"{name}={spec}".lstrip("=").replace(" ", "")]
            case Literal(value):
                words += ["--input", f"{name}:={value}"]
    return words


def _said(refused: Refused) -> str:
    return refused.message if refused.error == "Error" else f"{refused.error}: {refused.message}"


def no_such_output(name: str, port: str, result: Tree) -> Finding:
    listed = ", ".join(path_text(path) or "the tensor itself" for path, _ in leaves(result))
    return Finding("CC103", f"{name} has no output {port}", (Side(name, port),), notes=(f"outputs there: {listed}",))
