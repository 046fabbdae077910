"""Running the command line in this process, with the worker in this process, so that torch is imported once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from composecli.cli import main
from composecli.runtime.in_process import InProcessWorker
from composecli.workers import child
from tests.schema import parse_report


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return parse_report(self.out)

    @property
    def codes(self) -> list[str]:
        """The codes of all findings of all seams, in order."""
        return [finding["code"] for seam in self.json["seams"] for finding in seam["findings"]]


def environment() -> dict[str, str]:
    """For a command in a process of its own, from any working directory."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}


class _Near(InProcessWorker):
    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()


class Composecli:
    """`composecli("check", a, b)`; `composecli.json(...)` asks for JSON."""

    def __call__(self, *words: object) -> Ran:
        result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
        return Ran(result.exit_code, result.stdout, result.stderr)

    def json(self, *words: object) -> Ran:
        return self(*words, "--format", "json")


@pytest.fixture
def composecli(monkeypatch: pytest.MonkeyPatch) -> Composecli:
    monkeypatch.setattr(child, "SubprocessWorker", _Near)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return Composecli()
