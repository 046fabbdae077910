"""Runs a command at a console: starts its worker, prints its report, returns its exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType
from typing import NoReturn

from composecli import early_signals, streams
from composecli.commands.results import JoinReport, ProblemReport, Report
from composecli.core.errors import CouldNotAttempt, Problem, Terminated, system_problem
from composecli.core.rules import Rule
from composecli.report.formats import DEFAULT_FORMAT, Format, Output
from composecli.report.report_file import write_report
from composecli.workers.isolation import isolation_warning
from composecli.workers.protocol import Worker

DEFAULT_COLUMNS = 80
MIN_PROGRESS_COLUMNS = 20
SECONDS_BETWEEN_DRAWINGS = 0.5


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How a command runs and prints: one of the `outputs` goes to stdout.

    `untrusted`: the command trusts none of the files that it opens. `use_cache`: reuse cached
    results for `models`. `workers`: the number of workers to start.
    """

    outputs: tuple[Output, ...]
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
    is_for_people = _printed(options.outputs).format.is_for_people
    is_shown = sys.stderr.isatty() and not options.quiet and is_for_people
    progress = ProgressLine(is_shown=is_shown)
    worker = None
    try:
        _handle_signals()
        worker = _start(options, start_worker or start_subprocess)
        report = work(worker, progress.show)
    except CouldNotAttempt as failure:
        report = _report_problem(failure, debug=options.debug)
    except (KeyboardInterrupt, Terminated) as stop:
        report = ProblemReport(_problem_of_stop(stop))
    except OSError as error:
        report = _report_problem(CouldNotAttempt(system_problem(error)), debug=options.debug)
    except Exception as error:
        report = _report_bug(error, debug=options.debug)
    finally:
        progress.clear()
        if worker is not None:
            worker.close()
    print_and_exit(report, options.outputs, quiet=options.quiet)


def _handle_signals() -> None:
    """Have the signals that end a command raise an exception."""
    if early_signals.is_handled(signal.SIGINT):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)


def print_and_exit(
    report: Report, outputs: tuple[Output, ...] = (), *, quiet: bool = False
) -> NoReturn:
    """Print a report, and write it to files; exit with its exit code, or that of not being able to.

    Without outputs, the table is printed.
    """
    _warn_of_isolation(report)
    problem = _write_files(report, outputs, quiet=quiet)
    failure = _print(report, _printed(outputs), quiet=quiet)
    code = report.exit_code
    if failure is not None:
        problem = could_not_print(failure)
    if problem is not None:
        if isinstance(report, JoinReport) and report.written is not None:
            note = f"{report.written.path} was written and verified"
            problem = replace(problem, notes=(note,))
        sys.stderr.write(f"{problem}\n")
        code = problem.rule.exit_code
    sys.exit(code)


def _printed(outputs: tuple[Output, ...]) -> Output:
    """Return the output that goes to stdout."""
    for output in outputs:
        if output.path is None:
            return output
    return Output(DEFAULT_FORMAT)


def _write_files(report: Report, outputs: tuple[Output, ...], *, quiet: bool) -> Problem | None:
    """Write the report to each file; return the problem of the first that cannot be written."""
    problem = None
    for output in outputs:
        if output.path is None:
            continue
        render = partial(output.format.render, report, quiet=quiet)
        try:
            write_report(output.path, render)
        except OSError as error:
            title = f"the {output.form} report could not be written: {error.strerror or error}"
            problem = problem or Problem(Rule.COULD_NOT_PRINT, title, output.path)
    return problem


def _warn_of_isolation(report: Report) -> None:
    """Say on stderr that the models were not locked, in every format and even if `quiet`."""
    match report:
        case JoinReport(check=check):
            sandbox = check.isolation
        case ProblemReport():
            sandbox = None
        case _:
            sandbox = report.isolation
    if sandbox is None:
        return
    warning = isolation_warning(sandbox)
    if warning is not None:
        text = warning.text("warning")
        sys.stderr.write(f"{text}\n")


def could_not_print(error: OSError) -> Problem:
    """Return the problem of a report that could not be printed."""
    if streams.failure_of(sys.stdout) is None:
        return system_problem(error)
    reason = error.strerror or str(error)
    return stdout_problem(reason)


def stdout_problem(reason: str) -> Problem:
    """Return the problem of a stdout that cannot be written."""
    help = "redirect stdout to a file on another disk, or to /dev/null"
    title = f"the report could not be printed: {reason}"
    return Problem(Rule.COULD_NOT_PRINT, title, help=(help,))


def _problem_of_stop(stop: BaseException) -> Problem:
    """Return the problem of a command that Ctrl-C or SIGTERM ended before it had a result."""
    if isinstance(stop, Terminated):
        return Problem(Rule.TERMINATED, "terminated")
    return Problem(Rule.INTERRUPTED, "interrupted")


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
    raise Terminated


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
    problem = Problem(Rule.A_BUG_OF_OURS, "a bug in composecli", None, (note,), help)
    return ProblemReport(problem)


def _print(report: Report, output: Output, *, quiet: bool) -> OSError | None:
    """Print the report; return why it could not be printed. A reader may close the pipe early."""
    try:
        _render(report, output.format, quiet=quiet)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout again when it exits, which must not fail.
        streams.discard(sys.stdout)
    except OSError as error:
        streams.discard(sys.stdout)
        return error
    return None


def _render(report: Report, output_format: Format, *, quiet: bool) -> None:
    """Render the report; problems for people go to stderr, everything else to stdout."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if not output_format.is_for_people or not isinstance(report, ProblemReport):
        output_format.render(report, sys.stdout, quiet=quiet)
    elif report.problem.rule in (Rule.INTERRUPTED, Rule.TERMINATED):
        sys.stderr.write(f"{report.problem.title}\n")
    else:
        output_format.render(report, sys.stderr, quiet=quiet)


class ProgressLine:
    """One line on the terminal's stderr that names the step and its seconds; erased at the end.

    It is drawn again twice a second, so that it counts the seconds of one long forward, too.
    """

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._text = ""
        self._length = 0
        self._start = time.monotonic()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, text: str) -> None:
        """Show this text from now on. Any thread may call this, as often as it likes."""
        if not self._is_shown:
            return
        self._text = text
        if self._thread is None:
            self._thread = threading.Thread(target=self._redraw, daemon=True)
            self._thread.start()

    def clear(self) -> None:
        """Erase the line, for good."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._erase()
            self._thread = None

    def _redraw(self) -> None:
        """Draw the line until the end. A fast command is done before, and nothing flickers."""
        while not self._ended.wait(SECONDS_BETWEEN_DRAWINGS):
            self._erase()
            line = _progress_line(self._text, time.monotonic() - self._start)
            sys.stderr.write(line)
            sys.stderr.flush()
            self._length = len(line)

    def _erase(self) -> None:
        sys.stderr.write(f"\r{' ' * self._length}\r")
        sys.stderr.flush()
        self._length = 0


def _progress_line(text: str, seconds: float) -> str:
    """Return the text and the seconds, in the width of the terminal."""
    if not text.isprintable():
        text = ascii(text)
    end = f" {seconds:.0f} s"
    # The last column stays free: some terminals begin a new line after it.
    limit = max(MIN_PROGRESS_COLUMNS, _columns()) - len(end) - 1
    if len(text) > limit:
        kept = text[: limit - 1]
        text = f"{kept}…"
    return text + end


def _columns() -> int:
    """Return the width of the terminal on stderr, or a default if it is none or unknown."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return columns or DEFAULT_COLUMNS
