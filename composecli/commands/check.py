"""The commands as stories: one function each, from a request to a report. Each imports what it alone needs."""

from __future__ import annotations

from dataclasses import replace

from composecli.commands.composition import Composition
from composecli.commands.opened_model import OpenedModel
from composecli.commands.portability import device_notes
from composecli.commands.requests import CheckRequest, Options
from composecli.commands.resolve import Target, identify
from composecli.commands.results import CheckReport
from composecli.commands.session import Progress, Session
from composecli.core.blueprint import Mode
from composecli.core.pytree import leaves
from composecli.workers.protocol import Worker


def _silent(_: str) -> None:
    return


def check(request: CheckRequest, worker: Worker, tell: Progress = _silent) -> CheckReport:
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
            request.mode,
            device,
            strict,
            models,
            (),
            None,
            None,
            interrupted=True,
            isolation=session.confined,
        )


def _identify(model: str, options: Options) -> Target:
    return identify(model, options.trust, options.allowed_ops)


def _identify_all(models: tuple[str, ...], options: Options) -> tuple[Target, ...]:
    return tuple(_identify(model, options) for model in models)


def _open_all(request: CheckRequest, session: Session) -> tuple[OpenedModel, ...]:
    targets = _identify_all(request.models, request.options)
    session.confine(targets)
    return tuple(session.open(target) for target in targets)


def _judge(request: CheckRequest, session: Session, parts: tuple[OpenedModel, ...]) -> Composition:
    if request.mode is Mode.SEQUENTIAL:
        from composecli.commands.sequential import check_sequential

        return check_sequential(request, session, parts)
    if request.mode is Mode.PAIRS:
        from composecli.commands.pairs import check_pairs

        return check_pairs(request, session, parts)
    from composecli.commands.parallel import check_parallel

    return check_parallel(request, session, parts)


def _check_report(
    request: CheckRequest,
    session: Session,
    parts: tuple[OpenedModel, ...],
    composition: Composition,
) -> CheckReport:
    result = None
    if composition.result is not None:
        result = ", ".join(str(spec) for _, spec in leaves(composition.result))
    notes = tuple(device_notes(parts, session))
    seams = tuple(
        replace(seam, findings=(*seam.findings, *notes)) if not number else seam
        for number, seam in enumerate(composition.seams)
    )
    return CheckReport(
        request.mode,
        session.options.device,
        request.strict,
        tuple(
            session.report(part, found)
            for part, found in zip(parts, composition.contracts, strict=True)
        ),
        seams,
        str(composition.call) if composition.call is not None else None,
        result,
        isolation=session.confined,
    )
