"""composecli check: whether models fit together, seam by seam."""

from __future__ import annotations

from composecli.commands.composition import Composition
from composecli.commands.opened_model import OpenedModels
from composecli.commands.portability import with_device_notes
from composecli.commands.progress import Progress, silent
from composecli.commands.remedies import remedies_written_out
from composecli.commands.requests import CheckRequest
from composecli.commands.resolve import identify_all
from composecli.commands.results import CheckReport, ModelReport
from composecli.commands.session import Session
from composecli.core.blueprint import Mode
from composecli.core.pytree import leaves
from composecli.workers.protocol import Worker


def check(request: CheckRequest, worker: Worker, progress: Progress = silent) -> CheckReport:
    """Return the verdict of every seam.

    Raises:
        CouldNotAttempt: if a model cannot be read or run, or is not trusted.
        KeyboardInterrupt: if the user ended it before any contract was known.
    """
    with remedies_written_out(request):
        return _check(request, worker, progress)


def _check(request: CheckRequest, worker: Worker, progress: Progress) -> CheckReport:
    """Return the verdict of every seam, or of those that were known when the user stopped."""
    session = Session(worker, request.options, progress)
    try:
        if request.mode is Mode.PAIRS:
            from composecli.commands.pairs import check_pairs

            return check_pairs(request, session)
        targets = identify_all(request.models, request.options)
        session.confine(targets)
        parts = tuple(session.open(target) for target in targets)
        return check_report(request, session, parts, judge(request, session, parts))
    except KeyboardInterrupt:
        if not session.partial_results:
            raise
        return _interrupted_report(request, session)


def judge(request: CheckRequest, session: Session, parts: OpenedModels) -> Composition:
    """Judge opened models together, in a chain or in parallel."""
    # Each mode is imported when it is used: a command does not wait for the others.
    if request.mode is Mode.PARALLEL:
        from composecli.commands.parallel import check_parallel

        return check_parallel(request, session, parts)
    from composecli.commands.sequential import check_sequential

    return check_sequential(request, session, parts)


def check_report(
    request: CheckRequest,
    session: Session,
    parts: OpenedModels,
    composition: Composition,
) -> CheckReport:
    """Return the report of a composition."""
    call = result = None
    if composition.call is not None:
        call = str(composition.call)
    if composition.result is not None:
        texts = [str(spec) for _, spec in leaves(composition.result)]
        result = ", ".join(texts)
    models = list[ModelReport]()
    for part, found in zip(parts, composition.contracts, strict=True):
        models.append(session.report(part, found))
    return CheckReport(
        request.mode,
        request.options.device,
        request.strict,
        tuple(models),
        with_device_notes(composition.seams, parts, session.options),
        call,
        result,
        isolation=session.sandbox,
        fail_on=request.fail_on,
    )


def _interrupted_report(request: CheckRequest, session: Session) -> CheckReport:
    """Return the report of the contracts that were known when the user stopped."""
    return CheckReport(
        request.mode,
        request.options.device,
        request.strict,
        tuple(session.partial_results),
        seams=(),
        example=None,
        result=None,
        interrupted=True,
        isolation=session.sandbox,
        fail_on=request.fail_on,
    )
