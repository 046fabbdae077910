"""What a user may ask of the isolation, and what the report says of it."""

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
from composecli.workers.protocol import Isolation, Sandbox, SandboxRequest
from tests.commands.running import environment
from tests.models import Shelf, encoder
from tests.schema import parse_report


@pytest.fixture(autouse=True)
def _no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)


def _inspect(path: str, *words: str) -> Any:
    ran = CliRunner().invoke(
        main, ["inspect", path, "--format", "json", *words], catch_exceptions=False
    )
    return parse_report(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the measures are Linux's")
def test_the_report_says_what_was_had(shelf: Shelf) -> None:
    found = _inspect(shelf.save("linear", nn.Linear(10, 5)), "--max-memory", "6G")["isolation"]
    assert found["had"][:3] == ["no core file", "no new privileges", "memory 6.0 GB"]
    assert len(found["had"]) + len(found["missing"]) == 4


def test_none_gives_up_nothing(shelf: Shelf) -> None:
    assert (
        _inspect(shelf.save("linear", nn.Linear(10, 5)), "--isolation", "none")["isolation"] is None
    )


def test_what_is_required_and_cannot_be_had_stops_the_command(shelf: Shelf) -> None:
    request = InspectRequest(
        shelf.save("linear", nn.Linear(10, 5)), Options(limits=Limits(Isolation.REQUIRED))
    )
    with pytest.raises(CouldNotAttempt) as caught:
        inspect(request, InProcessWorker())
    assert caught.value.problem.code == "CC930"


@pytest.mark.skipif(sys.platform != "linux", reason="the measures are Linux's")
def test_too_little_memory_is_no_bug(shelf: Shelf) -> None:
    found = _inspect(shelf.save("large_norm", nn.BatchNorm1d(4_000_000)), "--max-memory", "1M")
    assert found["exit_code"] == 3
    assert found["error"]["code"] in ("CC931", "CC901", "CC913", "CC916")


def test_a_trusted_file_keeps_all_files(shelf: Shelf) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    had = _inspect(path, "--trust", path)["isolation"]["had"]
    assert not any(measure.startswith("Landlock") for measure in had)


@pytest.mark.parametrize(
    ("text", "size"), [("8G", 8 * 10**9), ("500M", 500 * 10**6), ("1.5GB", 15 * 10**8), ("9", 9)]
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "G", "8X", "-1G", "0", "8 G"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        parse_memory(text)


class _Missing(InProcessWorker):
    def sandbox(self, _request: SandboxRequest) -> Sandbox:
        return Sandbox(("no core file",), ("the kernel has no Landlock",))


def test_a_measure_that_is_missing_is_said(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composecli.workers.child.SubprocessWorker", lambda *_, **__: _Missing())
    path = shelf.save("linear", nn.Linear(10, 5))
    ran = CliRunner().invoke(main, ["inspect", path], catch_exceptions=False)
    assert ran.exit_code == 0
    assert "isolation: the kernel has no Landlock" in ran.output


PROBE = """
import os, sys
from composecli.workers.child import SubprocessWorker
from composecli.workers.protocol import SandboxRequest
worker = SubprocessWorker(60, untrusted=sys.argv[1] == "strangers")
worker.sandbox(SandboxRequest((), (), None, 60, files=False))
print(open(f"/proc/{worker._process.pid}/environ").read().replace("\\0", "\\n"))
worker.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("who", ["strangers", "friends"])
def test_a_stranger_s_file_gets_no_secrets_from_the_environment(who: str) -> None:
    surroundings = {**environment(), "CI_SECRET": "hush", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    words = [sys.executable, "-c", PROBE, who]
    seen = subprocess.run(
        words, env=surroundings, capture_output=True, text=True, check=True
    ).stdout
    assert ("CI_SECRET=hush" in seen) == (who == "friends")
    assert "TORCH_FORCE" not in seen
    assert "PYTHONPATH" in seen


def test_the_child_is_confined_before_it_opens_anything(shelf: Shelf) -> None:
    """A child that is replaced is confined again."""
    worker = SubprocessWorker(60)
    try:
        inspect(InspectRequest(shelf.save("linear", nn.Linear(10, 5)), options()), worker)
        assert isinstance(worker._state[0], SandboxRequest)
    finally:
        worker.close()


def test_a_sample_file_may_be_read(shelf: Shelf, tmp_path: Path) -> None:
    import torch

    torch.save(torch.rand(2, 10), tmp_path / "sample.pt")
    path = shelf.save("linear", nn.Linear(10, 5))
    assert os.path.isabs(path)
    assert _inspect(path, "--input", f"@{tmp_path / 'sample.pt'}")["exit_code"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the measures are Linux's")
@pytest.mark.parametrize("megabytes", [180, 200, 220, 260])
def test_where_memory_ends_a_contract_is_not_narrower(shelf: Shelf, megabytes: int) -> None:
    """What does not run for want of memory says nothing of what the model takes."""
    found = _inspect(shelf.save("encoder", encoder()), "--max-memory", f"{megabytes}M")
    contract = found["model"]["contract"] if "model" in found else None
    true = (
        "float32[N, 3, H, W] -> float32[N, 64, ceil(H/8), ceil(W/8)]",
        "float32[3, T, L] -> float32[64, ceil(T/8), ceil(L/8)]",
    )
    assert contract is None or contract["text"] in true or "?" in contract["text"]
