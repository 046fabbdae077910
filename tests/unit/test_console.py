"""Exit codes and streams of a command, whatever happens while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from composecli.commands.results import ProblemReport, Report
from composecli.console import OutputOptions, Work, run
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.report.formats import Output
from composecli.workers.protocol import R, Request, Worker
from tests.schema import parse_report

PROBLEM = Problem(Rule.COULD_NOT_LOAD, "the file is damaged", "a.pt", trace="the worker's trace\n")


class IdleWorker:
    """A worker that is asked nothing, and knows whether it was closed."""

    parallelism = 1

    def __init__(self) -> None:
        self.is_closed = False

    def ask(self, request: Request[R]) -> R:
        raise AssertionError(request)

    def close(self) -> None:
        self.is_closed = True


def output_options(*, format: str = "table", debug: bool = False) -> OutputOptions:
    return OutputOptions(
        (Output(format),), quiet=False, debug=debug, timeout=30, untrusted=True, use_cache=False
    )


@pytest.fixture(autouse=True)
def _no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def run_work(work: Work, options: OutputOptions) -> int:
    """Run the work with an idle worker; return the exit code."""
    worker = IdleWorker()
    with pytest.raises(SystemExit) as ended:
        run(work, options, lambda _: worker)
    assert worker.is_closed
    assert isinstance(ended.value.code, int)
    return ended.value.code


def raising(error: BaseException) -> Work:
    def work(_worker: Worker, _tell: Callable[[str], None]) -> Report:
        raise error

    return work


def test_report_is_printed_and_its_code_is_the_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = ProblemReport(PROBLEM)
    assert run_work(lambda *_: report, output_options(format="json")) == report.exit_code
    out, err = capsys.readouterr()
    assert parse_report(out)["error"]["title"] == PROBLEM.title
    assert not err


def test_problem_goes_to_stderr_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_work(raising(CouldNotAttempt(PROBLEM)), output_options()) == 3
    out, err = capsys.readouterr()
    assert not out
    assert "the file is damaged" in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback_and_that_of_the_worker(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_work(raising(CouldNotAttempt(PROBLEM)), output_options(debug=True)) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "the worker's trace" in err


def test_bug_of_composecli_exits_with_70(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_work(raising(ZeroDivisionError("ours")), output_options()) == 70
    err = capsys.readouterr().err
    assert "ZeroDivisionError: ours" in err
    assert "Traceback" not in err


def test_ctrl_c_exits_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_work(raising(KeyboardInterrupt()), output_options()) == 130
    assert capsys.readouterr().err == "interrupted\n"


SIGTERM_DURING_WORK = """
import os, signal
from composecli.console import OutputOptions, run
from composecli.report.formats import Output

class Worker:
    parallelism = 1
    def close(self):
        print("closed", flush=True)

def work(worker, tell):
    os.kill(os.getpid(), signal.SIGTERM)

options = OutputOptions((Output("table"),), False, False, 30, True, use_cache=False)
run(work, options, lambda _: Worker())
"""


def test_sigterm_closes_the_worker() -> None:
    command = [sys.executable, "-c", SIGTERM_DURING_WORK]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (143, "closed\n")


BROKEN_PIPE = """
from composecli.commands.results import ProblemReport
from composecli.console import OutputOptions, run
from composecli.report.formats import Output
from composecli.core.errors import Problem
from composecli.core.rules import Rule

class Worker:
    def close(self):
        pass

report = ProblemReport(Problem(Rule.COULD_NOT_LOAD, "the file is damaged"))
options = OutputOptions((Output("json"),), False, False, 30, True, use_cache=False)
run(lambda *_: report, options, lambda _: Worker())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_broken_pipe_keeps_the_exit_code() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", BROKEN_PIPE]
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (3, b"")
