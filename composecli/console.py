"""Answering: a command run against a child worker, its report printed, its exit code given."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from composecli.commands.results import INTERRUPTED, OUR_BUG, ProblemReport, Report
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.workers.protocol import Worker

TERMINATED = 143


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How a command answers. `untrusted`: no file that it opens is vouched for; `use_cache`: what was found of the
    `models` before is not found again; `workers`: how many workers it is worth."""

    format: str
    quiet: bool
    debug: bool
    timeout: float
    untrusted: bool
    models: tuple[str, ...] = ()
    use_cache: bool = True
    workers: int = 1


Work = Callable[[Worker, Callable[[str], None]], Report]


def run(work: Work, screen: OutputOptions) -> NoReturn:
    """Run a command against a child worker, print its report, and exit with its code."""
    signal.signal(signal.SIGTERM, _terminate)
    progress = _Progress(
        shown=sys.stderr.isatty() and not screen.quiet and screen.format == "table"
    )
    worker = None
    try:
        worker = _worker(screen)
        report = work(worker, progress.tell)
    except CouldNotAttempt as failure:
        report = ProblemReport(failure.problem)
        if screen.debug:
            traceback.print_exception(failure)
            if failure.problem.trace:
                sys.stderr.write(failure.problem.trace)
    except KeyboardInterrupt:
        progress.clear()
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except Exception as error:
        report = _bug(error, debug=screen.debug)
    finally:
        progress.clear()
        if worker is not None:
            worker.close()
    _print(report, screen)
    sys.exit(report.exit_code)


def _worker(screen: OutputOptions) -> Worker:
    """A child, started when it is needed: at once, unless all files are known."""

    def start_one() -> Worker:
        from composecli.workers.child import SubprocessWorker

        return SubprocessWorker(
            screen.timeout, show_output=screen.debug, untrusted=screen.untrusted
        )

    def start() -> Worker:
        if screen.workers == 1:
            return start_one()
        from composecli.workers.pool import WorkerPool

        return WorkerPool(start_one, screen.workers)

    if not screen.use_cache or screen.debug:
        return start()
    from composecli.workers.cache_store import Cache, default_folder
    from composecli.workers.caching import CachingWorker

    worker = CachingWorker(start, Cache(default_folder()), screen.workers)
    worker.prepare(screen.models)
    return worker


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM unwinds as an exception does, so that temporary files are removed and the child is ended."""
    sys.exit(TERMINATED)


def _bug(error: Exception, *, debug: bool) -> ProblemReport:
    if debug:
        traceback.print_exception(error)
    name = f"{type(error).__name__}: {error}"
    help = ("run it again with --debug and report what it prints",)
    return ProblemReport(Problem(OUR_BUG, "a bug in composecli", None, (name,), help))


def _print(report: Report, screen: OutputOptions) -> None:
    """Print where somebody reads; a reader that went away changes nothing of the exit code."""
    try:
        _render(report, screen)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _render(report: Report, screen: OutputOptions) -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if screen.format == "json":
        from composecli.report import json_v1

        json_v1.render(report, sys.stdout)
        return
    from composecli.report import table

    table.render(
        report, sys.stderr if isinstance(report, ProblemReport) else sys.stdout, quiet=screen.quiet
    )


class _Progress:
    """One line on a terminal's stderr that says what is being done, and is gone when it is done."""

    def __init__(self, *, shown: bool) -> None:
        self.shown = shown
        self.length = 0
        self._lock = threading.Lock()

    def tell(self, text: str) -> None:
        """Say it; from any thread."""
        with self._lock:
            self._tell(text)

    def _tell(self, text: str) -> None:
        if self.shown:
            self.clear()
            line = text if text.isprintable() else ascii(text)
            line = line[: max(20, _columns() - 4)] + " ..."
            sys.stderr.write(line)
            sys.stderr.flush()
            self.length = len(line)

    def clear(self) -> None:
        if self.length:
            sys.stderr.write(f"\r{' ' * self.length}\r")
            sys.stderr.flush()
            self.length = 0


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 80
