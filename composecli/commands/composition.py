"""Compositions: the result of checking models together, and findings about a model in one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from composecli.commands.results import SeamReport
from composecli.commands.suggestions import stated_input_fix
from composecli.compose.confirm import format_error, rejection_finding
from composecli.core.blueprint import Blueprint
from composecli.core.facts import ModelFacts
from composecli.core.findings import Finding, Side
from composecli.core.observations import RejectionKind
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
    tried = tuple(call for call, _ in found.tried)
    return Finding(
        Rule.CONTRACT_NOT_FOUND,
        f"the input of {name} could not be inferred",
        (Side(name, "its input"),),
        notes=_notes(facts, found),
        fix=stated_input_fix(name, facts, tried),
    )


def _stated_refused(name: str, found: NotFound) -> Finding:
    """Return the finding that a model rejects the stated input."""
    call, rejected = found.tried[0]
    side = Side(name, str(call))
    finding = rejection_finding(rejected, name, (side,))
    if finding.rule in (Rule.DEPENDS_ON_VALUES, Rule.OUT_OF_MEMORY):
        return finding
    title = f"{name} fails on the input that was stated for it"
    rule = Rule.STATED_INPUT_REFUSED
    if rejected.kind is RejectionKind.WORKER_DIED:
        rule = Rule.PRODUCER_REFUSED
    return replace(finding, rule=rule, title=title)


def _notes(facts: ModelFacts, found: NotFound) -> tuple[str, ...]:
    """Return the calls that were tried, the best error, and the arguments of forward."""
    notes = list[str]()
    for call, rejected in found.tried[:MAX_SHOWN_CALLS]:
        notes.append(f"tried {call}: failed at {rejected.where}")
    if found.tried:
        _, furthest = found.tried[0]
        notes.append(f"the best attempt ended with {format_error(furthest)}")
    arguments = list[str]()
    for argument in facts.arguments:
        if argument.required:
            type_name = argument.type_name or "any type"
            arguments.append(f"{argument.name}: {type_name}")
    if arguments:
        accepted = ", ".join(arguments)
        notes.append(f"forward accepts {accepted}")
    if found.stopped:
        notes.append(f"the search stopped: {found.stopped}")
    return tuple(notes)


def no_such_output(name: str, port: str, result: Tree) -> Finding:
    """Return the finding that a model has no output of this name."""
    names = [keystr(path) or "the tensor itself" for path, _ in leaves(result)]
    outputs = ", ".join(names)
    return Finding(
        Rule.NO_SUCH_OUTPUT,
        f"{name} has no output {port}",
        (Side(name, port),),
        notes=(f"available outputs: {outputs}",),
    )
