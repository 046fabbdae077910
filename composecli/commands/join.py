"""composecli join: one file that combines the models, written only if it is verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from composecli.commands.check import check_report, judge
from composecli.commands.composition import Composition
from composecli.commands.opened_model import OpenedModels
from composecli.commands.progress import Progress, silent
from composecli.commands.provenance import provenance_json
from composecli.commands.references import locate
from composecli.commands.remedies import remedies_written_out
from composecli.commands.requests import JoinRequest
from composecli.commands.resolve import Target, identify_all, paths_of
from composecli.commands.results import JoinReport, Written
from composecli.commands.session import Session
from composecli.commands.writing import (
    Workspace,
    build,
    lacks_backward,
    plan_splice,
    refuse_failed,
    write_and_verify,
)
from composecli.compose.other_sizes import calls_far_away, free_names, with_other_sizes
from composecli.core.blueprint import Blueprint, bridges, merge_of, settings_of
from composecli.core.contract import Contract, is_call_of
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.findings import Finding
from composecli.core.model_ref import ModelKind
from composecli.core.observations import Accepted
from composecli.core.pytree import Call, Literal
from composecli.core.rules import Rule
from composecli.files.members import lacks_checksums
from composecli.files.writing.digests import Digests
from composecli.files.writing.staged_output import resolve_output, staged
from composecli.inference import Found
from composecli.workers.protocol import (
    BuildRequest,
    Built,
    ReferenceRequest,
    Training,
    Verified,
    Worker,
)

MAX_NAMED_PARAMETERS = 3


def join(request: JoinRequest, worker: Worker, progress: Progress = silent) -> JoinReport:
    """Check the models, and write the joined file if they fit together.

    Raises:
        CouldNotAttempt: if a model cannot be read or run, or the output cannot be written.
    """
    with remedies_written_out(request):
        return _join(request, worker, progress)


def _join(request: JoinRequest, worker: Worker, progress: Progress) -> JoinReport:
    """Check the models, and write the file in a place of its own until it is verified."""
    asked = request.judged
    # A mistake in the command line is told before any file is read.
    located = [locate(model).path for model in asked.models]
    paths = tuple(path for path in located if path is not None)
    output = resolve_output(request.output, paths, force=request.force)
    targets = identify_all(asked.models, asked.options)
    _refuse_contracts(targets)
    session = Session(worker, asked.options, progress)
    with staged(output) as stage, Digests(paths) as digests:
        session.confine(targets, (str(stage.path.parent),))
        parts = tuple(session.open(target) for target in targets)
        composition = judge(asked, session, parts)
        report = check_report(asked, session, parts, composition)
        is_whole = composition.blueprint is not None and composition.call is not None
        if not is_whole or report.fails_on_warnings:
            return JoinReport(report, None)
        workspace = Workspace(stage, digests)
        written = _write(request, session, parts, composition, workspace)
    return JoinReport(report, written, composition.bridged)


def _refuse_contracts(targets: tuple[Target, ...]) -> None:
    """Refuse contract files, which hold nothing to join.

    Raises:
        CouldNotAttempt: if there is one.
    """
    for target in targets:
        if not target.kind.traits.has_module:
            title = "a contract file holds no module to join"
            help = ("join the model that it describes, or check them with 'composecli check'",)
            raise CouldNotAttempt(Problem(Rule.CONTRACT_ALONE, title, target.name, help=help))


def _verification_calls(
    session: Session, composition: Composition, blueprint: Blueprint, call: Call, built: Built
) -> tuple[Call, ...]:
    """Return the calls to verify the file with, the example first.

    In the second one, every free dim of the input has another size, unless some part accepts only
    that of the example. A call without such a dim is run twice with different values. A trace is
    also compared far from the example, and at the example with other values.
    """
    contracts = [found.contract for found in composition.contracts if isinstance(found, Found)]
    owner = next((contract for contract in contracts if is_call_of(contract, call)), None)
    if owner is None or not free_names(owner, call):
        return call, call

    def runs(other: Call) -> bool:
        return isinstance(session.run(blueprint, other), Accepted)

    calls = [call, _call_at_other_sizes(owner, call, runs)]
    if built.is_traced:
        others = dict.fromkeys(calls_far_away(owner, call))
        calls += [other for other in others if other not in calls and runs(other)]
        calls.append(call)
    return tuple(calls)


def _call_at_other_sizes(owner: Contract, call: Call, runs: Callable[[Call], bool]) -> Call:
    """Return the call with another size of each free dim for which the models run."""
    names = free_names(owner, call)
    all_changed = with_other_sizes(owner, call, names)
    if runs(all_changed):
        return all_changed
    if len(names) == 1:
        return call
    changed = call
    for name in names:
        candidate = with_other_sizes(owner, changed, (name,))
        if runs(candidate):
            changed = candidate
    return changed


def _write(
    request: JoinRequest,
    session: Session,
    parts: OpenedModels,
    composition: Composition,
    workspace: Workspace,
) -> Written:
    """Build the file, compare a fresh load of it with its parts, and only then give it its name."""
    stage, blueprint, call = workspace.stage, composition.blueprint, composition.call
    assert blueprint is not None
    assert call is not None
    session.progress("building the join")
    building = BuildRequest(blueprint, call, str(stage.path), request.seed)
    built = build(session.worker, building, stage.output)
    session.progress("writing and verifying the join")
    calls = _verification_calls(session, composition, blueprint, call, built)
    reference = ReferenceRequest(blueprint, calls, request.seed)

    def provenance() -> bytes:
        text = provenance_json(request, parts, composition, blueprint, workspace.digests)
        return text.encode()

    plan = plan_splice(built, parts, workspace, provenance)
    spliced, verified = write_and_verify(session.worker, reference, plan, workspace)
    refuse_failed(verified, stage.output, built, strict=request.check.strict)
    stage.commit()
    notes = _notes(request, parts, built, reference, verified)
    return Written(
        stage.output.path,
        spliced.size,
        spliced.sha256,
        bridges(blueprint),
        merge_of(blueprint),
        tuple(check for check in verified.checks if check.passed),
        tuple(notes),
    )


def _notes(
    request: JoinRequest,
    parts: OpenedModels,
    built: Built,
    reference: ReferenceRequest,
    verified: Verified,
) -> Iterator[Finding]:
    """Yield the facts about the joined file that its users should know."""
    for note in built.notes:
        yield Finding(Rule.LOST_IN_TRACING, note)
    yield from _training_notes(request, parts)
    yield from _settings_notes(reference.blueprint, parts)
    yield from _gradient_notes(built, verified)
    yield from _refusal_notes(verified)
    yield from _verification_notes(reference, verified)
    yield from _checksum_notes(parts)


def _settings_notes(blueprint: Blueprint, parts: OpenedModels) -> Iterator[Finding]:
    """Yield a note for each value that is stated for a later model, and not an input."""
    for number, part in enumerate(parts):
        for argument in settings_of(blueprint, number):
            if isinstance(argument.value, Literal):
                value = repr(argument.value.value)
                title = f"{argument.name}={value} of {part.name} is built into the file"
                yield Finding(Rule.VALUE_BUILT_IN, title)


def _gradient_notes(built: Built, verified: Verified) -> Iterator[Finding]:
    """Yield a note if gradients differ because TorchScript lacks the backward of a function."""
    if any(lacks_backward(check, built) for check in verified.failed):
        names = ", ".join(built.functions)
        title = f"its gradients are not those of the models: the backward of {names} is lost"
        yield Finding(Rule.LOST_IN_TRACING, title)


def _verification_notes(reference: ReferenceRequest, verified: Verified) -> Iterator[Finding]:
    """Yield notes on untrained steps, parameters without a gradient, and a single size."""
    for bridge in bridges(reference.blueprint):
        for step in bridge:
            if step.parameter_count > 0:
                title = f"{step}: it must be fitted before its outputs mean anything"
                yield Finding(Rule.BRIDGE_IS_UNTRAINED, title)
    if verified.cut:
        names = ", ".join(verified.cut[:MAX_NAMED_PARAMETERS])
        if len(verified.cut) > MAX_NAMED_PARAMETERS:
            names += ", …"
        count = len(verified.cut)
        title = f"{count} parameters get no gradient, nor do they in the separate models: {names}"
        yield Finding(Rule.GRADIENT_IS_CUT, title)
    if len(set(reference.calls)) == 1:
        title = "verified at one size with two seeds: the joined models accept no other size"
        yield Finding(Rule.ONE_BATCH_SIZE_VERIFIED, title)


def _refusal_notes(verified: Verified) -> Iterator[Finding]:
    """Yield a note for each reason why the file refuses sizes that the models accept."""
    calls_by_reason = dict[str, list[str]]()
    for refusal in verified.refusals:
        calls_by_reason.setdefault(refusal.message, []).append(str(refusal.call))
    for reason, calls in calls_by_reason.items():
        title = f"the file refuses {calls[0]}, at which the models run: {reason}"
        notes = tuple(f"it refuses {call}, too" for call in calls[1:])
        yield Finding(Rule.HOLDS_AT_SOME_SIZES, title, notes=notes)


def _training_notes(request: JoinRequest, parts: OpenedModels) -> Iterator[Finding]:
    """Yield a note if the models are not joined in the modes that they were saved in."""
    training = request.check.options.training
    if training is not Training.SAVED:
        title = f"the written file is in {training} mode, because of --training {training}"
        exported = [part.name for part in parts if part.target.kind is ModelKind.EXPORTED]
        if exported:
            names = ", ".join(dict.fromkeys(exported))
            title += f", except {names}, which stays in the mode it was exported in"
        yield Finding(Rule.TRAINING_MODE_WRITTEN, title)


def _checksum_notes(parts: OpenedModels) -> Iterator[Finding]:
    """Yield a note for each file whose records have no checksums."""
    targets = tuple(part.target for part in parts)
    for path in dict.fromkeys(paths_of(targets)):
        if lacks_checksums(path):
            title = f"{path} was saved without checksums: its weights could not be verified"
            yield Finding(Rule.NO_CHECKSUMS, title)
