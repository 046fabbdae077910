"""Runs a command at a console: starts its worker, prints its report, returns its exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import NoReturn

from composecli.commands.results import INTERRUPTED, OUR_BUG, ProblemReport, Report
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.report.formats import FORMATS
from composecli.workers.protocol import Worker

TERMINATED = 143
DEFAULT_COLUMNS = 80
MIN_PROGRESS_COLUMNS = 20
_ELLIPSIS = " ..."


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How a command runs and prints.

    `untrusted`: the command trusts none of the files that it opens. `use_cache`: reuse cached
    results for `models`. `workers`: the number of workers to start.
    """

    format: str
    quiet: bool
    debug: bool
    timeout: float
    untrusted: bool
    models: tuple[str, ...] = ()
    use_cache: bool = True
    workers: int = 1


Work = Callable[[Worker, Callable[[str], None]], Report]
StartWorker = Callable[[OutputOptions], Worker]


def start_subprocess(options: OutputOptions) -> Worker:
    """Start one worker in a child process."""
    from composecli.workers.child import SubprocessWorker

    return SubprocessWorker(options.timeout, show_output=options.debug, untrusted=options.untrusted)


def run(work: Work, options: OutputOptions, start_worker: StartWorker | None = None) -> NoReturn:
    """Run a command, print its report, and exit with its exit code.

    `start_worker` starts one worker; by default, a child process.
    """
    signal.signal(signal.SIGTERM, _terminate)
    is_for_people = FORMATS[options.format].is_for_people
    is_shown = sys.stderr.isatty() and not options.quiet and is_for_people
    progress = _Progress(is_shown=is_shown)
    worker = None
    try:
        worker = _start(options, start_worker or start_subprocess)
        report = work(worker, progress.show)
    except CouldNotAttempt as failure:
        report = _report_problem(failure, debug=options.debug)
    except KeyboardInterrupt:
        progress.clear()
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except Exception as error:
        report = _report_bug(error, debug=options.debug)
    finally:
        progress.clear()
        if worker is not None:
            worker.close()
    _print(report, options)
    sys.exit(report.exit_code)


def _start(options: OutputOptions, start_worker: StartWorker) -> Worker:
    """Return the worker of a command. If all results are cached, no real worker is started."""
    if not options.use_cache or options.debug:
        return _start_real(options, start_worker)
    from composecli.workers.cache_store import Cache, default_folder
    from composecli.workers.caching import CachingWorker

    start = partial(_start_real, options, start_worker)
    worker = CachingWorker(start, Cache(default_folder()), options.workers)
    worker.prepare(options.models)
    return worker


def _start_real(options: OutputOptions, start_worker: StartWorker) -> Worker:
    """Start as many workers as the command is worth."""
    if options.workers == 1:
        return start_worker(options)
    from composecli.workers.pool import WorkerPool

    return WorkerPool(partial(start_worker, options), options.workers)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    """Turn SIGTERM into an exception, so that temporary files and the child are cleaned up."""
    sys.exit(TERMINATED)


def _report_problem(failure: CouldNotAttempt, *, debug: bool) -> ProblemReport:
    """Return the report of a problem, after its tracebacks if they are wanted."""
    if debug:
        traceback.print_exception(failure)
        sys.stderr.write(failure.problem.trace or "")
    return ProblemReport(failure.problem)


def _report_bug(error: Exception, *, debug: bool) -> ProblemReport:
    """Return the report of an exception that composecli did not expect."""
    if debug:
        traceback.print_exception(error)
    note = f"{type(error).__name__}: {error}"
    help = ("run it again with --debug and report what it prints",)
    problem = Problem(OUR_BUG, "a bug in composecli", None, (note,), help)
    return ProblemReport(problem)


def _print(report: Report, options: OutputOptions) -> None:
    """Print the report. If the reader has closed the pipe, keep the exit code."""
    try:
        _render(report, options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout again when it exits, which must not fail.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())


def _render(report: Report, options: OutputOptions) -> None:
    """Render the report; problems for people go to stderr, everything else to stdout."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    output_format = FORMATS[options.format]
    file = sys.stdout
    if output_format.is_for_people and isinstance(report, ProblemReport):
        file = sys.stderr
    output_format.render(report, file, quiet=options.quiet)


class _Progress:
    """One line on the terminal's stderr that shows the current activity and is then erased."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._length = 0
        self._lock = threading.Lock()

    def show(self, text: str) -> None:
        """Replace the line. Any thread may call this."""
        if not self._is_shown:
            return
        with self._lock:
            self.clear()
            line = text
            if not text.isprintable():
                line = ascii(text)
            limit = max(MIN_PROGRESS_COLUMNS, _columns() - len(_ELLIPSIS))
            line = line[:limit] + _ELLIPSIS
            sys.stderr.write(line)
            sys.stderr.flush()
            self._length = len(line)

    def clear(self) -> None:
        """Erase the line."""
        if self._length:
            sys.stderr.write(f"\r{' ' * self._length}\r")
            sys.stderr.flush()
            self._length = 0


def _columns() -> int:
    """Return the width of the terminal on stderr, or a default if it is none."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return DEFAULT_COLUMNS
