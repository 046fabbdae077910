"""The child answers, and its crashes, hangs, invalid replies and output do no harm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from composecli import check, options
from composecli.core.blueprint import single_model
from composecli.core.errors import CouldNotAttempt
from composecli.core.findings import Verdict
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.workers.child import SubprocessWorker
from composecli.workers.protocol import Done, OpenRequest, ProbeRequest, ReferenceRequest, Training
from tests.commands.running import environment
from tests.models import Shelf

CALL = Call((Argument(TensorSpec("float32", (2, 10))),))


def open_request(path: str, kind: ModelKind = ModelKind.PICKLED) -> OpenRequest:
    return OpenRequest(FileReference(path), kind, "cpu", Training.SAVED, trusted=True, key=None)


HEADER = "import os, sys, time, signal, struct\nreading, writing = map(int, sys.argv[1:3])\n"
READY = """
message = b'{"type": "Ready"}'
os.write(writing, struct.pack(">I", len(message)) + message)
"""


def start_child(
    body: str, folder: Path, monkeypatch: pytest.MonkeyPatch, timeout: float = 20
) -> SubprocessWorker:
    """Start a child that says it is ready and runs `body`; `reading`, `writing` are its pipes."""
    (folder / "odd_child.py").write_text(f"{HEADER}{READY}{body}\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return SubprocessWorker(timeout, module="odd_child")


OTHER_REPLY = """
message = b'{"type": "Described", "rows": []}'
os.write(writing, struct.pack(">I", len(message)) + message)
time.sleep(60)
"""
DEEP_REPLY = """
message = b'[' * 100000
os.write(writing, struct.pack('>I', len(message)))
os.write(writing, message)
time.sleep(60)
"""


def reply_bytes(length: int, text: str = "") -> str:
    return f"os.write(writing, struct.pack('>I', {length}) + b'{text}'); time.sleep(60)"


ENDS = {
    "killed": ("os.kill(os.getpid(), signal.SIGSEGV)", "CC916", "was killed by SIGSEGV"),
    "exits": ("os._exit(7)", "CC916", "ended with exit code 7"),
    "hangs": ("time.sleep(60)", "CC917", "took longer than 1 s"),
    "shouts": (
        "os.write(writing, b'hello to you all'); time.sleep(60)",
        "CC918",
        "invalid message",
    ),
    "half a reply": (reply_bytes(400, "{"), "CC917", "took longer"),
    "too long": (reply_bytes(2**31), "CC918", "invalid message"),
    "not JSON": (reply_bytes(3, "abc"), "CC918", "invalid message"),
    "another reply": (OTHER_REPLY, "CC918", "invalid message"),
    "no type": (reply_bytes(2, "[]"), "CC918", "invalid message"),
    "very deep": (DEEP_REPLY, "CC918", "invalid message"),
}


@pytest.mark.parametrize("name", ENDS)
def test_child_that_does_not_answer_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    body, code, words = ENDS[name]
    timeout = 1 if code == "CC917" else 20
    worker = start_child(body, tmp_path, monkeypatch, timeout)
    try:
        with pytest.raises(CouldNotAttempt) as caught:
            worker.ask(open_request("a.pt"))
    finally:
        worker.close()
    assert caught.value.problem.code == code
    assert words in caught.value.problem.title
    assert caught.value.problem.where == "a.pt"
    assert "it was loading a model" in caught.value.problem.notes


def test_child_that_does_not_start_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_child.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = SubprocessWorker(60, module="slow_child", start_timeout=0.5)
    try:
        with pytest.raises(CouldNotAttempt) as caught:
            worker.ask(open_request("a.pt"))
    finally:
        worker.close()
    assert caught.value.problem.code == "CC917"
    assert "did not start within 0.5 s" in caught.value.problem.title


def test_time_limit_does_not_include_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = """
message = b'{"type": "Done"}'
os.write(writing, struct.pack(">I", len(message)) + message)
time.sleep(60)
"""
    (tmp_path / "slow_child.py").write_text(f"{HEADER}time.sleep(2){READY}{answer}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = SubprocessWorker(1, module="slow_child")
    try:
        assert worker.ask(ReferenceRequest(single_model(0), (CALL,), 0)) == Done()
    finally:
        worker.close()


def test_child_that_ended_is_a_problem_the_second_time_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start_child("os._exit(1)", tmp_path, monkeypatch)
    for _ in range(2):
        with pytest.raises(CouldNotAttempt):
            worker.ask(open_request("a.pt"))
    worker.close()
    worker.close()


class Loud(nn.Module):
    """Prints to both streams, from Python and below it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sys.stdout.write("{" * 1000)
        os.write(1, b"\x00\x00\x00\x05hello" * 1000)
        os.write(2, b"x" * 300_000)
        return self.fc(x)


class Crashing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGSEGV)
        return x


class Hanging(nn.Module):
    """Creates a file, and then never returns."""

    def __init__(self, started: Path) -> None:
        super().__init__()
        self.started = started

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.started.touch()
        while True:
            pass


def test_child_gives_the_same_report_as_a_worker_in_this_process(shelf: Shelf) -> None:
    a = shelf.save("linear", nn.Linear(10, 5))
    b = shelf.save("narrow", nn.Linear(3, 2), "pickled")
    worker = SubprocessWorker(60)
    try:
        assert check(a, b, worker=worker) == check(a, b)
    finally:
        worker.close()


def test_model_that_prints_does_not_garble_messages(shelf: Shelf) -> None:
    loud = shelf.save("loud", Loud(), "pickled")
    five = shelf.save("five", nn.Linear(5, 2))
    worker = SubprocessWorker(60)
    try:
        report = check(loud, five, options=options(trust=[loud]), worker=worker)
    finally:
        worker.close()
    assert report.verdict is Verdict.COMPATIBLE


@pytest.mark.parametrize(
    ("name", "module", "timeout", "words"),
    [
        ("crashing", Crashing(), 60, "was killed by SIGSEGV"),
        ("hanging", Hanging(Path(os.devnull)), 2, "took longer than 2 s"),
    ],
)
def test_crash_or_hang_in_a_forward_exits_with_3(
    shelf: Shelf, name: str, module: nn.Module, timeout: int, words: str
) -> None:
    path = shelf.save(name, module, "pickled")
    command = [sys.executable, "-m", "composecli", "check", path, path]
    command += ["--trust", path, "--timeout", str(timeout)]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env=environment(), check=False
    )
    assert ran.returncode == 3
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert path in ran.stderr


def _children(pid: int) -> list[int]:
    command = ["ps", "-o", "pid=", "--ppid", str(pid)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(word) for word in ran.stdout.split()]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_child_ends_with_the_command(shelf: Shelf, tmp_path: Path, number: int, code: int) -> None:
    started = tmp_path / "started"
    path = shelf.save(f"hanging_{code}", Hanging(started), "pickled")
    arguments = [sys.executable, "-m", "composecli", "check", path, path, "--trust", path]
    command = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
    )
    _wait_for(started)
    children = _children(command.pid)
    command.send_signal(number)
    _, err = command.communicate(timeout=20)
    assert command.returncode == code
    assert "Traceback" not in err
    assert len(children) == 1
    deadline = time.monotonic() + 20
    while _alive(children[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(children[0])


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert path.exists()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Deadly(nn.Module):
    """Ends its process if the batch size is three."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.size(0) == 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        return x * torch.ones(4)


def test_child_that_dies_of_a_probe_is_replaced_and_the_inference_goes_on(shelf: Shelf) -> None:
    from composecli import inspect

    path = shelf.save("deadly", Deadly(), "pickled")
    worker = SubprocessWorker(60)
    try:
        report = inspect(path, options=options(trust=[path], inputs=["2,4"]), worker=worker)
    finally:
        worker.close()
    contract = report.model.contract
    assert contract is not None
    assert str(contract.inputs[0]) == "float32[?, 4]"
    assert "refused 3" in contract.unknown_dims[0]


def test_closed_worker_does_not_start_another_child(shelf: Shelf) -> None:
    worker = SubprocessWorker(30)
    path = shelf.save("linear", nn.Linear(10, 5))
    worker.ask(open_request(path, ModelKind.TORCHSCRIPT))
    worker.close()
    with pytest.raises((CouldNotAttempt, OSError)):
        worker.ask(ProbeRequest(single_model(0), CALL))
    assert not worker.is_running


def test_ctrl_c_prints_the_partial_results(shelf: Shelf, tmp_path: Path) -> None:
    started = tmp_path / "started"
    linear = shelf.save("linear", nn.Linear(10, 5))
    slow = shelf.save("hanging_second", Hanging(started), "pickled")
    arguments = [sys.executable, "-m", "composecli", "check", linear, slow, "--trust", slow]
    command = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
    )
    _wait_for(started)
    command.send_signal(signal.SIGINT)
    out, _ = command.communicate(timeout=20)
    assert command.returncode == 130
    assert "float32[N, 10] -> float32[N, 5]" in out
    assert "interrupted: this is what is known so far" in out
