"""The commands as stories: one function each, from a request to a report. Each imports what it alone needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from composecli.blueprint import Mode
from composecli.contract import Contract
from composecli.errors import CouldNotAttempt, Problem
from composecli.infer import Found
from composecli.judgement import Judged, not_found_finding
from composecli.portability import device_notes, ties
from composecli.protocol import DescribeRequest, Worker
from composecli.requests import CheckRequest, InspectRequest, JoinRequest, Options
from composecli.results import CheckReport, InspectReport, JoinReport
from composecli.session import Part, Session, Tell
from composecli.targets import Target, identify
from composecli.trees import leaves
from composecli.wiring import at, select


def _silent(_: str) -> None:
    return


def check(request: CheckRequest, worker: Worker, tell: Tell = _silent) -> CheckReport:
    """The verdict of every seam.

    Raises:
        CouldNotAttempt: a model cannot be read or run, or is not trusted.
    """
    session = Session(worker, request.options, tell)
    try:
        parts = _open_all(request, session)
        return _check_report(request, session, parts, _judge(request, session, parts))
    except KeyboardInterrupt:
        if not session.known:
            raise
        device, strict, models = request.options.device, request.strict, tuple(session.known)
        return CheckReport(
            request.mode, device, strict, models, (), None, None, interrupted=True, isolation=session.confined
        )


def join(request: JoinRequest, worker: Worker, tell: Tell = _silent) -> JoinReport:
    """The check, and where it allows it the combined module, written and verified.

    Raises:
        CouldNotAttempt: a model cannot be read or run, or the output cannot be written.
    """
    from composecli.files.digests import Digests
    from composecli.files.output import allow, staged
    from composecli.joining import Work, write

    asked = request.check
    targets = _identify_all(asked.models, asked.options)
    output = allow(request.output, tuple(target.path for target in targets), force=request.force)
    session = Session(worker, asked.options, tell)
    with staged(output) as stage, Digests(target.path for target in targets) as digests:
        session.confine(targets, (str(stage.path.parent),))
        parts = tuple(session.open(target) for target in targets)
        judged = _judge(asked, session, parts)
        report = _check_report(asked, session, parts, judged)
        if judged.blueprint is None or judged.call is None:
            return JoinReport(report, None)
        written = write(request, session, parts, judged, Work(stage, digests))
    return JoinReport(report, written, judged.bridged)


def inspect(request: InspectRequest, worker: Worker, tell: Tell = _silent) -> InspectReport:
    """The contract of one model with its evidence, its layers, and what is worth knowing of it.

    Raises:
        CouldNotAttempt: the model cannot be read or run, or is not trusted.
    """
    session = Session(worker, request.options, tell)
    target = _identify(request.model, request.options)
    session.confine((target,))
    part = session.open(target)
    try:
        found = session.infer(part, stated=session.stated(part))
    except KeyboardInterrupt:
        if not session.known:
            raise
        size = Path(part.target.path).stat().st_size
        return InspectReport(
            session.known[0], part.facts, (), None, (), None, size, interrupted=True, isolation=session.confined
        )
    report = session.report(part, found)
    contract = found.contract if isinstance(found, Found) else None
    if contract is not None:
        report = replace(report, contract=_selected(contract, request.options, part))
    example = contract.example if contract is not None else None
    layers = worker.describe(DescribeRequest(part.real, example)).rows
    finding = (
        None
        if isinstance(found, Found)
        else not_found_finding(part.name, part.facts, found, stated=bool(request.options.inputs))
    )
    file = part.target.file
    return InspectReport(
        report,
        part.facts,
        layers,
        finding,
        ties(part),
        file.provenance if file is not None else None,
        Path(part.target.path).stat().st_size,
        isolation=session.confined,
    )


def _identify(model: str, options: Options) -> Target:
    return identify(model, options.trust, options.allowed_ops)


def _identify_all(models: tuple[str, ...], options: Options) -> tuple[Target, ...]:
    return tuple(_identify(model, options) for model in models)


def _open_all(request: CheckRequest, session: Session) -> tuple[Part, ...]:
    targets = _identify_all(request.models, request.options)
    session.confine(targets)
    return tuple(session.open(target) for target in targets)


def _judge(request: CheckRequest, session: Session, parts: tuple[Part, ...]) -> Judged:
    if request.mode is Mode.SEQUENTIAL:
        from composecli.chain import judge_chain

        return judge_chain(request, session, parts)
    if request.mode is Mode.PAIRS:
        from composecli.pairs import judge_pairs

        return judge_pairs(request, session, parts)
    from composecli.beside import judge_beside

    return judge_beside(request, session, parts)


def _check_report(request: CheckRequest, session: Session, parts: tuple[Part, ...], judged: Judged) -> CheckReport:
    result = None
    if judged.result is not None:
        result = ", ".join(str(spec) for _, spec in leaves(judged.result))
    notes = tuple(device_notes(parts, session))
    seams = tuple(
        replace(seam, findings=(*seam.findings, *notes)) if not number else seam
        for number, seam in enumerate(judged.seams)
    )
    return CheckReport(
        request.mode,
        session.options.device,
        request.strict,
        tuple(session.report(part, found) for part, found in zip(parts, judged.contracts, strict=True)),
        seams,
        str(judged.call) if judged.call is not None else None,
        result,
        isolation=session.confined,
    )


def _selected(contract: Contract, options: Options, part: Part) -> Contract:
    """The contract with the output that `--select` names, all of them where it names none."""
    for selection in options.selections:
        try:
            path = select(contract.result, selection.port)
        except KeyError:
            ports = ", ".join(port.name for port in contract.outputs)
            problem = Problem("CC103", f"no output {selection.port}", part.name, (f"outputs there: {ports}",))
            raise CouldNotAttempt(problem) from None
        outputs = tuple(port for port in contract.outputs if port.path[: len(path)] == path)
        return replace(contract, outputs=outputs, result=at(contract.result, path))
    return contract
