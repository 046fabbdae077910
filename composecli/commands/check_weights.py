"""composecli check of one factory: whether the weights of a file fit its module."""

from __future__ import annotations

from composecli.commands.progress import Progress, silent
from composecli.commands.remedies import remedies_written_out
from composecli.commands.requests import CheckRequest
from composecli.commands.resolve import identify_all
from composecli.commands.results import WeightsReport
from composecli.commands.session import Session
from composecli.core.errors import CouldNotAttempt
from composecli.core.rules import Rule
from composecli.workers.protocol import Worker


def check_weights(
    request: CheckRequest, worker: Worker, progress: Progress = silent
) -> WeightsReport:
    """Return whether the weights fit, or the causes for which they do not. No forward is run.

    Raises:
        CouldNotAttempt: if the file holds no weights, or the factory fails.
    """
    (model,) = request.models
    session = Session(worker, request.options, progress)
    try:
        with remedies_written_out(request):
            targets = identify_all(request.models, request.options)
            session.confine(targets)
            part = session.open(targets[0])
    except CouldNotAttempt as failure:
        if failure.problem.rule is not Rule.KEYS_DO_NOT_FIT:
            raise
        return WeightsReport(model, failure.problem, isolation=session.sandbox)
    return WeightsReport(model, None, part.facts, isolation=session.sandbox)
