"""What a probe says of a seam, set beside what the comparison said."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

from composecli.commands.results import SeamReport
from composecli.compose.confirm import error_text, refusal_finding
from composecli.core.blueprint import Blueprint
from composecli.core.facts import ModelFacts
from composecli.core.findings import Finding, Fix, Side
from composecli.core.pytree import Call, Literal, TensorSpec, Tree, keystr, leaves
from composecli.core.rules import Rule
from composecli.inference.result import Found, NotFound


@dataclass(frozen=True, slots=True)
class Composition:
    """What is known of the whole: `blueprint` and `result` only where every seam lets it be built.

    `contracts` has one entry for each model, `bridged` the numbers of the seams that a bridge mends.
    """

    contracts: tuple[Found | NotFound, ...]
    seams: tuple[SeamReport, ...]
    blueprint: Blueprint | None
    call: Call | None
    result: Tree | None
    bridged: tuple[int, ...] = ()


def not_found_finding(name: str, facts: ModelFacts, found: NotFound, *, stated: bool) -> Finding:
    """Why there is no contract: the model refused what was stated for it, or all that was tried."""
    best = found.tried[0] if found.tried else None
    if stated and best is not None:
        finding = refusal_finding(best[1], name, (Side(name, str(best[0])),))
        if finding.rule in (Rule.DEPENDS_ON_VALUES, Rule.OUT_OF_MEMORY):
            return finding
        return replace(
            finding,
            rule=Rule.PRODUCER_REFUSED,
            title=f"{name} refuses the input that was stated for it",
        )
    notes = [f"tried {call}: refused at {refused.where}" for call, refused in found.tried[:3]]
    if best is not None:
        notes.append(f"the best try ended with {error_text(best[1])}")
    arguments = ", ".join(
        f"{a.name}: {a.type_name or 'any type'}" for a in facts.arguments if a.required
    )
    if arguments:
        notes.append(f"forward takes {arguments}")
    if found.stopped:
        notes.append(f"no more was tried: {found.stopped}")
    words = _input_words(best[0]) if best is not None else ["--input", "float32[N,3,224,224]"]
    command = shlex.join(["composecli", "inspect", name, *words])
    return Finding(
        Rule.CONTRACT_NOT_FOUND,
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


def no_such_output(name: str, port: str, result: Tree) -> Finding:
    listed = ", ".join(keystr(path) or "the tensor itself" for path, _ in leaves(result))
    return Finding(
        Rule.NO_SUCH_OUTPUT,
        f"{name} has no output {port}",
        (Side(name, port),),
        notes=(f"outputs there: {listed}",),
    )
