"""Runs the command line: as a user has it, or in this process.

`installed` runs the installed command in a process of its own, and its models in the sandbox. What
a user sees is tested with it. `composecli` has the worker in this process, so that torch is
imported only once for many tests of details.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from composecli.cli import main
from composecli.console import OutputOptions, StartWorker
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.protocol import Worker
from tests.schema import parse_report


@dataclass(frozen=True)
class Ran:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The report, checked against the schema."""
        return parse_report(self.out)

    @property
    def codes(self) -> list[str]:
        """The codes of all findings of all seams, in order."""
        return [finding["code"] for seam in self.json["seams"] for finding in seam["findings"]]


def environment() -> dict[str, str]:
    """Return the environment for a command in its own process, in any working directory."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}


def start_in_process(_options: OutputOptions) -> Worker:
    """Return a worker in this process."""
    return InProcessWorker()


@dataclass
class Composecli:
    """`composecli("check", a, b)`; `composecli.json(...)` asks for JSON.

    Set `start_worker` to run the commands with another worker.
    """

    start_worker: StartWorker = start_in_process

    def __call__(self, *words: object) -> Ran:
        arguments = [str(word) for word in words]
        result = CliRunner().invoke(main, arguments, obj=self.start_worker, catch_exceptions=False)
        return Ran(result.exit_code, result.stdout, result.stderr)

    def json(self, *words: object) -> Ran:
        """Run the command with `--format json`."""
        return self(*words, "--format", "json")


class Installed:
    """`installed("check", a, b)`; `installed.json(...)` asks for JSON."""

    def __call__(self, *words: object) -> Ran:
        script = Path(sys.executable).with_name("composecli")
        ran = subprocess.run(
            [script, *map(str, words)],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=300,
            check=False,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def json(self, *words: object) -> Ran:
        """Run the command with `--format json`."""
        return self(*words, "--format", "json")


@pytest.fixture
def installed() -> Installed:
    """The installed command, with its default isolation."""
    return Installed()


@pytest.fixture
def composecli(monkeypatch: pytest.MonkeyPatch) -> Composecli:
    """The command line, without a child process, and without changing the signals of pytest."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return Composecli()
