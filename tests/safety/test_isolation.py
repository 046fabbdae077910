"""What a user may ask of the isolation, and what the report says about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from torch import nn

from composecli import options
from composecli.cli import main
from composecli.commands.inspect import inspect
from composecli.commands.requests import InspectRequest, Limits, Options, parse_memory
from composecli.core.errors import CouldNotAttempt
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.child import SubprocessWorker
from composecli.workers.protocol import (
    Isolation,
    Measure,
    MeasureKind,
    R,
    Request,
    Sandbox,
    SandboxRequest,
)
from tests.commands.running import environment
from tests.models import Shelf, encoder
from tests.schema import parse_report

linux = pytest.mark.skipif(sys.platform != "linux", reason="these measures exist only on Linux")


@pytest.fixture(autouse=True)
def _no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)


def _inspect(path: str, *words: str) -> Any:
    arguments = ["inspect", path, "--format", "json", *words]
    ran = CliRunner().invoke(main, arguments, catch_exceptions=False)
    return parse_report(ran.stdout)


@linux
def test_report_lists_the_measures_that_were_applied(shelf: Shelf) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    isolation = _inspect(path, "--max-memory", "6G")["isolation"]
    assert isolation["had"][:3] == ["no core file", "no new privileges", "memory 6.0 GB"]
    assert len(isolation["had"]) + len(isolation["missing"]) == 5


def test_isolation_none_applies_no_measure(shelf: Shelf) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    assert _inspect(path, "--isolation", "none")["isolation"] is None


def test_command_stops_if_a_required_measure_is_not_available(shelf: Shelf) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    request = InspectRequest(path, Options(limits=Limits(Isolation.REQUIRED)))
    with pytest.raises(CouldNotAttempt) as caught:
        inspect(request, InProcessWorker())
    assert caught.value.problem.code == "CC930"


@linux
def test_too_little_memory_is_not_reported_as_a_bug(shelf: Shelf) -> None:
    path = shelf.save("large_norm", nn.BatchNorm1d(4_000_000))
    report = _inspect(path, "--max-memory", "1M")
    assert report["exit_code"] == 3
    assert report["error"]["code"] in ("CC931", "CC901", "CC913", "CC916")


def test_trusted_file_may_open_all_files(shelf: Shelf) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    measures = _inspect(path, "--trust", path)["isolation"]["had"]
    assert not any(measure.startswith("Landlock") for measure in measures)


@pytest.mark.parametrize(
    ("text", "size"), [("8G", 8 * 10**9), ("500M", 500 * 10**6), ("1.5GB", 15 * 10**8), ("9", 9)]
)
def test_memory_sizes_are_parsed(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "G", "8X", "-1G", "0", "8 G"])
def test_other_texts_are_not_memory_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_memory(text)


class _WithoutLandlock(InProcessWorker):
    """A worker on a system whose kernel has no Landlock."""

    def ask(self, request: Request[R]) -> R:
        reply = super().ask(request)
        if isinstance(reply, Sandbox):
            return Sandbox(  # type: ignore[return-value]
                (Measure(MeasureKind.NO_CORE_FILE),), ("the kernel has no Landlock",)
            )
        return reply


def test_missing_measure_is_shown(shelf: Shelf) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    ran = CliRunner().invoke(
        main, ["inspect", path], obj=lambda _: _WithoutLandlock(), catch_exceptions=False
    )
    assert ran.exit_code == 0
    assert "isolation: the kernel has no Landlock" in ran.output


PRINT_ENVIRONMENT = """
import sys
from composecli.workers.child import SubprocessWorker
from composecli.workers.protocol import SandboxRequest
worker = SubprocessWorker(60, untrusted=sys.argv[1] == "untrusted")
worker.ask(SandboxRequest((), (), None, 60, files=False))
print(open(f"/proc/{worker.pid}/environ").read().replace("\\0", "\\n"))
worker.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("trust", ["untrusted", "trusted"])
def test_untrusted_file_gets_no_secrets_from_the_environment(trust: str) -> None:
    variables = {**environment(), "CI_SECRET": "hush", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    command = [sys.executable, "-c", PRINT_ENVIRONMENT, trust]
    ran = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert ("CI_SECRET=hush" in ran.stdout) == (trust == "trusted")
    assert "TORCH_FORCE" not in ran.stdout
    assert "PYTHONPATH" in ran.stdout


def test_child_is_confined_before_it_opens_anything(shelf: Shelf) -> None:
    """A child that is restarted repeats these requests, so it is confined again."""
    worker = SubprocessWorker(60)
    try:
        inspect(InspectRequest(shelf.save("linear", nn.Linear(10, 5)), options()), worker)
        assert isinstance(worker._state[0], SandboxRequest)
    finally:
        worker.close()


def test_sample_file_may_be_read(shelf: Shelf, tmp_path: Path) -> None:
    import torch

    torch.save(torch.rand(2, 10), tmp_path / "sample.pt")
    path = shelf.save("linear", nn.Linear(10, 5))
    assert os.path.isabs(path)
    assert _inspect(path, "--input", f"@{tmp_path / 'sample.pt'}")["exit_code"] == 0


@linux
@pytest.mark.parametrize("megabytes", [180, 200, 220, 260])
def test_memory_limit_does_not_narrow_a_contract(shelf: Shelf, megabytes: int) -> None:
    """A run that fails for lack of memory is no evidence of what the model accepts."""
    report = _inspect(shelf.save("encoder", encoder()), "--max-memory", f"{megabytes}M")
    contract = report["model"]["contract"] if "model" in report else None
    complete = (
        "float32[N, 3, H, W] -> float32[N, 64, ceil(H/8), ceil(W/8)]",
        "float32[3, T, L] -> float32[64, ceil(T/8), ceil(L/8)]",
    )
    assert contract is None or contract["text"] in complete or "?" in contract["text"]
