"""Writing: a joined file is whole and verified, or it is not there."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.protocol import (
    BuildRequest,
    Check,
    R,
    ReferenceRequest,
    Request,
    Verified,
    VerifyRequest,
)
from tests.commands.running import Composecli, environment
from tests.models import Shelf


def load(name: str) -> torch.jit.ScriptModule:
    return torch.jit.load(name)


class _Answering(InProcessWorker):
    """A worker that answers one type of request by calling a function."""

    def __init__(self, kind: type[Request[Any]], answer: Callable[[Any], Any]) -> None:
        super().__init__()
        self.kind = kind
        self.answer = answer

    def ask(self, request: Request[R]) -> R:
        if not isinstance(request, self.kind):
            return super().ask(request)
        reply: R = self.answer(request)
        return reply


@pytest.mark.parametrize("stage", [BuildRequest, ReferenceRequest, VerifyRequest])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, RuntimeError, OSError])
def test_a_failure_leaves_no_partial_file(
    composecli: Composecli,
    shelf: Shelf,
    here: Path,
    stage: type[Request[Any]],
    failure: type[BaseException],
) -> None:
    Path("both.pt").write_text("old")

    def fail(_request: object) -> None:
        raise failure

    composecli.start_worker = lambda _: _Answering(stage, fail)
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    ended = composecli("join", a, b, "-o", "both.pt", "--force")
    assert ended.code != 0 or failure is SystemExit
    assert [path.name for path in here.iterdir()] == ["both.pt"]
    assert Path("both.pt").read_text() == "old"


def test_an_input_that_changes_is_reported_as_the_cause(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    """The worker, which has mapped the file, dies of the change; that is not the message."""
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    Path("a.pt").write_bytes(Path(a).read_bytes())

    def shorten(_request: object) -> None:
        os.truncate("a.pt", 100)
        raise CouldNotAttempt(Problem(Rule.WORKER_CRASHED, "the worker was killed by SIGBUS"))

    composecli.start_worker = lambda _: _Answering(ReferenceRequest, shorten)
    refused = composecli("join", "a.pt", b, "-o", "both.pt")
    assert refused.code == 3
    assert "error[CC928]: the file changed while it was being read\n  a.pt" in refused.err
    assert [path.name for path in here.iterdir()] == ["a.pt"]


def test_a_write_error_keeps_the_old_file(
    composecli: Composecli, shelf: Shelf, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux reports a failed write once, to the first caller that flushes."""
    Path("both.pt").write_text("old")
    told = list[int]()

    def fail_once(descriptor: int) -> None:
        told.append(descriptor)
        if len(told) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail_once)
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    refused = composecli("join", a, b, "-o", "both.pt", "--force")
    assert (refused.code, len(told)) == (3, 1)
    assert "CC921" in refused.err
    assert "Input/output error" in refused.err
    assert [path.name for path in here.iterdir()] == ["both.pt"]
    assert Path("both.pt").read_text() == "old"


def test_a_file_that_fails_its_verification_is_not_kept(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    verified = Verified((Check("outputs", passed=False, detail="other values"),), ())
    composecli.start_worker = lambda _: _Answering(VerifyRequest, lambda _: verified)
    refused = composecli(
        "join",
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("five", nn.Linear(5, 2)),
        "-o",
        "both.pt",
    )
    assert refused.code == 3
    assert "CC923" in refused.err
    assert list(here.iterdir()) == []


def test_a_full_disk_keeps_the_old_file(composecli: Composecli, shelf: Shelf, here: Path) -> None:
    """torch aborts the process if the disk is full, so the command has its own."""
    small = here / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=False
    ).returncode:
        pytest.skip("a small disk takes a mount, which is not allowed here")
    try:
        (small / "both.pt").write_text("old")
        wide = [
            shelf.save("wide", nn.Linear(10, 20000)),
            shelf.save("wide_too", nn.Linear(20000, 2)),
        ]
        words = [
            sys.executable,
            "-m",
            "composecli",
            "join",
            *wide,
            "-o",
            str(small / "both.pt"),
            "--force",
        ]
        ran = subprocess.run(words, capture_output=True, text=True, check=False, env=environment())
        assert ran.returncode == 3
        assert "no space is left" in ran.stderr
        assert [path.name for path in small.iterdir()] == ["both.pt"]
        assert (small / "both.pt").read_text() == "old"
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_file_size_limit_leaves_no_file(shelf: Shelf, here: Path) -> None:
    wide = [shelf.save("wide", nn.Linear(10, 20000)), shelf.save("wide_too", nn.Linear(20000, 2))]
    words = " ".join([sys.executable, "-m", "composecli", "join", *wide, "-o", "both.pt"])
    script = f"ulimit -f 100; {words}"
    ran = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env=environment()
    )
    assert ran.returncode == 3
    assert "Traceback" not in ran.stderr
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_old_file_or_the_new_one(
    shelf: Shelf, here: Path, number: signal.Signals
) -> None:
    Path("both.pt").write_text("old")
    wide = [shelf.save("wide", nn.Linear(10, 20000)), shelf.save("wide_too", nn.Linear(20000, 2))]
    words = [sys.executable, "-m", "composecli", "join", *wide, "-o", "both.pt", "--force"]
    for delay in (1.0, 1.5, 1.9, 2.2):
        command = subprocess.Popen(
            words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
        )
        time.sleep(delay)
        command.send_signal(number)
        _, err = command.communicate(timeout=30)
        assert b"Traceback" not in err
        assert [path.name for path in here.iterdir()] == ["both.pt"]
        # -number: it came when Python was already leaving.
        assert command.returncode in (0, -number, 130 if number is signal.SIGINT else 143)
        if Path("both.pt").read_bytes() != b"old":
            assert load("both.pt")(torch.rand(2, 10)).shape == (2, 2)
        Path("both.pt").write_text("old")
