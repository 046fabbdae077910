"""When a sandbox is too little to run models in, and when its user is warned of it."""

from __future__ import annotations

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.workers.protocol import Sandbox


def require_isolation(sandbox: Sandbox, *, required: bool) -> None:
    """Do nothing if models may run in this sandbox.

    Raises:
        CouldNotAttempt: if a measure is required that the system does not have, or one that it has
            could not be applied.
    """
    if sandbox.failed:
        title = "the isolation that this system has could not be applied"
        help = "--isolation none runs the models without it; do that only if you trust the files"
        raise _missing(title, sandbox.failed, help)
    if required and sandbox.unavailable:
        title = "the required isolation is not available"
        help = "--isolation best continues with the measures that are available"
        raise _missing(title, sandbox.unavailable, help)


def isolation_warning(sandbox: Sandbox) -> Problem | None:
    """Return the warning that models ran without the lock; None if they were locked or trusted."""
    if not sandbox.lacks_lock:
        return None
    title = "untrusted models ran in a process that may open files"
    help = "--isolation required refuses to run them without the lock"
    return Problem(Rule.ISOLATION_MISSING, title, notes=sandbox.unavailable, help=(help,))


def _missing(title: str, reasons: tuple[str, ...], help: str) -> CouldNotAttempt:
    """Return the error for isolation that is not there."""
    problem = Problem(Rule.ISOLATION_MISSING, title, notes=reasons, help=(help,))
    return CouldNotAttempt(problem)
