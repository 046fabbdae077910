"""Compositions: the result of checking models together, and findings about a model in one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from composecli.commands.results import SeamReport
from composecli.commands.suggestions import stated_input_fix
from composecli.compose.confirm import format_error, rejection_finding
from composecli.core.blueprint import Blueprint
from composecli.core.facts import ModelFacts
from composecli.core.findings import Finding, Side
from composecli.core.pytree import Call, Tree, keystr, leaves
from composecli.core.rules import Rule
from composecli.inference import Found, NotFound

MAX_SHOWN_CALLS = 3
InferenceResult = Found | NotFound
Contracts = tuple[InferenceResult, ...]


@dataclass(frozen=True, slots=True)
class Composition:
    """The models of a command together.

    `contracts` has one entry for each model. `blueprint` and `result`, the value that the last
    model returns, are known only if every seam holds or is bridged; `bridged` are the numbers of
    the seams that have a bridge.
    """

    contracts: Contracts
    seams: tuple[SeamReport, ...]
    blueprint: Blueprint | None
    call: Call | None
    result: Tree | None
    bridged: tuple[int, ...] = ()


def not_found_finding(name: str, facts: ModelFacts, found: NotFound, *, stated: bool) -> Finding:
    """Return the finding that a model has no contract.

    If the user stated an input, it is the refusal of that input; otherwise a summary of the calls
    that were tried.
    """
    if stated and found.tried:
        return _stated_refused(name, found)
    return Finding(
        Rule.CONTRACT_NOT_FOUND,
        f"what {name} takes could not be found",
        (Side(name, "its input"),),
        notes=_notes(facts, found),
        fix=stated_input_fix(name, facts, tuple(call for call, _ in found.tried)),
    )


def _stated_refused(name: str, found: NotFound) -> Finding:
    call, rejected = found.tried[0]
    finding = rejection_finding(rejected, name, (Side(name, str(call)),))
    if finding.rule in (Rule.DEPENDS_ON_VALUES, Rule.OUT_OF_MEMORY):
        return finding
    title = f"{name} refuses the input that was stated for it"
    return replace(finding, rule=Rule.PRODUCER_REFUSED, title=title)


def _notes(facts: ModelFacts, found: NotFound) -> tuple[str, ...]:
    notes = list[str]()
    for call, rejected in found.tried[:MAX_SHOWN_CALLS]:
        notes.append(f"tried {call}: refused at {rejected.where}")
    if found.tried:
        _, furthest = found.tried[0]
        notes.append(f"the best try ended with {format_error(furthest)}")
    arguments = list[str]()
    for argument in facts.arguments:
        if argument.required:
            arguments.append(f"{argument.name}: {argument.type_name or 'any type'}")
    if arguments:
        notes.append(f"forward takes {', '.join(arguments)}")
    if found.stopped:
        notes.append(f"no more was tried: {found.stopped}")
    return tuple(notes)


def no_such_output(name: str, port: str, result: Tree) -> Finding:
    """Return the finding that a model has no output of this name."""
    outputs = ", ".join(keystr(path) or "the tensor itself" for path, _ in leaves(result))
    return Finding(
        Rule.NO_SUCH_OUTPUT,
        f"{name} has no output {port}",
        (Side(name, port),),
        notes=(f"outputs there: {outputs}",),
    )
