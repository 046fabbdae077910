"""Compositions: the result of checking models together, and findings about a model in one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from composecli.commands.results import SeamReport
from composecli.commands.suggestions import stated_input_help
from composecli.compose.confirm import format_error, place_of, rejection_finding
from composecli.core.blueprint import Blueprint
from composecli.core.contract import Contract
from composecli.core.facts import ModelFacts
from composecli.core.findings import Finding, Side
from composecli.core.observations import RejectionKind
from composecli.core.pytree import Call, Literal, Tree, leaves, port_names
from composecli.core.rules import Rule
from composecli.inference import Found, NotFound
from composecli.inference.search import Attempt

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


def contract_of(found: InferenceResult) -> Contract | None:
    """Return the contract of a model; None if it was not found."""
    if isinstance(found, NotFound):
        return None
    return found.contract


def at_own_rank(found: InferenceResult) -> InferenceResult:
    """Return the contract at the rank of its example alone: conditions are in the symbols of it."""
    if isinstance(found, NotFound):
        return found
    return replace(found, contract=replace(found.contract, any_rank=None))


def not_found_finding(name: str, facts: ModelFacts, found: NotFound, *, stated: bool) -> Finding:
    """Return the finding that a model has no contract.

    If the user stated an input, it is the refusal of that input; otherwise a summary of the calls
    that were tried.
    """
    if stated and found.tried:
        return _stated_refused(name, found)
    attempts = _best_first(found.tried)
    calls = tuple(call for call, _ in attempts)
    place = None
    if attempts:
        _, furthest = attempts[0]
        place = place_of(furthest)
    return Finding(
        Rule.CONTRACT_NOT_FOUND,
        f"the input of {name} could not be inferred",
        (Side(name, "its input"),),
        notes=_notes(facts, found, attempts),
        help=(stated_input_help(facts, calls),),
        place=place,
    )


def _best_first(attempts: tuple[Attempt, ...]) -> list[Attempt]:
    """Return the attempts, the best first: those that got furthest, and few others got as far."""
    places = Counter(rejected.where for _, rejected in attempts)

    def rank(attempt: Attempt) -> tuple[int, int]:
        """Return the key to sort an attempt by."""
        _, rejected = attempt
        return -rejected.ops, places[rejected.where]

    return sorted(attempts, key=rank)


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


def _notes(facts: ModelFacts, found: NotFound, attempts: list[Attempt]) -> tuple[str, ...]:
    """Return an attempt for each place of failure, the best error, and the arguments of forward."""
    notes = list[str]()
    by_place = {rejected.where: call for call, rejected in reversed(attempts)}
    for _, rejected in attempts:
        call = by_place.pop(rejected.where, None)
        if call is not None and len(notes) < MAX_SHOWN_CALLS:
            notes.append(f"tried {_call_text(call)}: failed at {rejected.where}")
    if attempts:
        _, furthest = attempts[0]
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


def _call_text(call: Call) -> str:
    """Return the tensors of a call, or its plain values if it has none."""
    literals = [item.value for item in call.arguments if isinstance(item.value, Literal)]
    values = ", ".join(repr(literal.value) for literal in literals)
    return str(call) or values or "a call without arguments"


def no_such_output(name: str, port: str, result: Tree) -> Finding:
    """Return the finding that a model has no output of this name."""
    ports = port_names(result)
    names = [ports[path] or "the tensor itself" for path, _ in leaves(result)]
    outputs = ", ".join(names) or "none"
    return Finding(
        Rule.NO_SUCH_OUTPUT,
        f"{name} has no output {port}",
        (Side(name, port),),
        notes=(f"available outputs: {outputs}",),
    )
