"""The child: it answers, and its crash, hang, nonsense and chatter are each turned into a problem."""

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
from composecli.core.errors import CouldNotAttempt
from composecli.core.findings import Verdict
from composecli.core.model_ref import FileReference, ModelKind
from composecli.workers.channel import Channel, ChannelClosed, DeadlineExceeded, InvalidMessage
from composecli.workers.child import SubprocessWorker
from composecli.workers.protocol import Described, OpenRequest, Reply, Training
from tests.commands.running import environment
from tests.models import Shelf


def request(path: str, kind: ModelKind = ModelKind.PICKLED) -> OpenRequest:
    return OpenRequest(FileReference(path), kind, "cpu", Training.SAVED, trusted=True, key=None)


def child(
    body: str, folder: Path, monkeypatch: pytest.MonkeyPatch, timeout: float = 20
) -> SubprocessWorker:
    """A child that does `body` instead of serving; `reading` and `writing` are its descriptors."""
    code = f"import os, sys, time, signal, struct\nreading, writing = map(int, sys.argv[1:3])\n{body}\n"
    (folder / "odd_child.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return SubprocessWorker(timeout, module="odd_child")


OTHER_ANSWER = """
message = b'{"type": "Described", "rows": []}'
os.write(writing, struct.pack(">I", len(message)) + message)
time.sleep(60)
"""
ENDS = {
    "killed": ("os.kill(os.getpid(), signal.SIGSEGV)", "CC916", "was killed by SIGSEGV"),
    "left": ("os._exit(7)", "CC916", "ended with exit code 7"),
    "hangs": ("time.sleep(60)", "CC917", "took longer than 1 s"),
    "shouts": ("os.write(writing, b'hello to you all'); time.sleep(60)", "CC918", "nonsense"),
    "half an answer": (
        "os.write(writing, struct.pack('>I', 400) + b'{'); time.sleep(60)",
        "CC917",
        "took longer",
    ),
    "too much": (
        "os.write(writing, struct.pack('>I', 2**31)); time.sleep(60)",
        "CC918",
        "nonsense",
    ),
    "no JSON": (
        "os.write(writing, struct.pack('>I', 3) + b'abc'); time.sleep(60)",
        "CC918",
        "nonsense",
    ),
    "another answer": (OTHER_ANSWER, "CC918", "nonsense"),
    "no type": (
        "os.write(writing, struct.pack('>I', 2) + b'[]'); time.sleep(60)",
        "CC918",
        "nonsense",
    ),
    "very deep": (
        "m = b'[' * 100000; os.write(writing, struct.pack('>I', len(m)))\nos.write(writing, m); time.sleep(60)",
        "CC918",
        "nonsense",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_child_that_does_not_answer_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    body, code, words = ENDS[name]
    worker = child(body, tmp_path, monkeypatch, timeout=1 if code == "CC917" else 20)
    try:
        with pytest.raises(CouldNotAttempt) as caught:
            worker.open(request("a.pt"))
    finally:
        worker.close()
    assert caught.value.problem.code == code
    assert words in caught.value.problem.title
    assert caught.value.problem.where == "a.pt"
    assert "it was loading a model" in caught.value.problem.notes


def test_a_child_that_is_gone_is_a_problem_the_second_time_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = child("os._exit(1)", tmp_path, monkeypatch)
    for _ in range(2):
        with pytest.raises(CouldNotAttempt):
            worker.open(request("a.pt"))
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
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while True:
            pass


def test_the_child_does_what_the_worker_in_process_does(shelf: Shelf) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("narrow", nn.Linear(3, 2), "pickled")
    worker = SubprocessWorker(60)
    try:
        assert check(a, b, worker=worker) == check(a, b)
    finally:
        worker.close()


def test_a_model_that_prints_garbles_nothing(shelf: Shelf) -> None:
    worker = SubprocessWorker(60)
    try:
        loud = shelf.save("loud", Loud(), "pickled")
        report = check(
            loud, shelf.save("five", nn.Linear(5, 2)), options=options(trust=[loud]), worker=worker
        )
    finally:
        worker.close()
    assert report.verdict is Verdict.COMPATIBLE


@pytest.mark.parametrize(
    ("name", "module", "timeout", "words"),
    [
        ("crashing", Crashing(), 60, "was killed by SIGSEGV"),
        ("hanging", Hanging(), 8, "took longer than 8 s"),
    ],
)
def test_a_crash_or_a_hang_in_a_forward_is_exit_3(
    shelf: Shelf, name: str, module: nn.Module, timeout: int, words: str
) -> None:
    path = shelf.save(name, module, "pickled")
    command = [
        sys.executable,
        "-m",
        "composecli",
        "check",
        path,
        path,
        "--trust",
        path,
        "--timeout",
        str(timeout),
    ]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=90, env=environment(), check=False
    )
    assert ran.returncode == 3
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert path in ran.stderr


def _children(pid: int) -> list[int]:
    ran = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in ran.stdout.split()]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_the_child_ends_with_the_command(shelf: Shelf, number: int, code: int) -> None:
    path = shelf.save("hanging", Hanging(), "pickled")
    words = [sys.executable, "-m", "composecli", "check", path, path, "--trust", path]
    command = subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
    )
    deadline = time.monotonic() + 30
    while not (children := _children(command.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(3)
    command.send_signal(number)
    _, err = command.communicate(timeout=20)
    assert command.returncode == code
    assert "Traceback" not in err
    assert len(children) == 1
    while _alive(children[0]) and time.monotonic() < deadline + 20:
        time.sleep(0.05)
    assert not _alive(children[0])


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_frames_carry_messages_both_ways() -> None:
    to_other, from_me = os.pipe()
    frames = Channel(to_other, from_me)
    frames.send(Described(()))
    assert frames.receive(Reply) == Described(())
    with pytest.raises(DeadlineExceeded):
        frames.receive(Reply, time.monotonic() + 0.05)
    os.write(from_me, b"\x00\x00\x00\x02{}")
    with pytest.raises(InvalidMessage):
        frames.receive(Reply)
    os.close(from_me)
    with pytest.raises(ChannelClosed):
        frames.receive(Reply)
    os.close(to_other)
    with pytest.raises(ChannelClosed):
        frames.send(Described(()))


class Deadly(nn.Module):
    """Ends its process where the batch is three."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.size(0) == 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        return x * torch.ones(4)


def test_a_child_that_dies_of_a_probe_is_replaced_and_the_rest_goes_on(shelf: Shelf) -> None:
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
    assert "refused 3" in contract.open_dims[0]


def test_ctrl_c_prints_what_is_known_by_then(shelf: Shelf, tmp_path: Path) -> None:
    linear, slow = (
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("hanging", Hanging(), "pickled"),
    )
    words = [sys.executable, "-m", "composecli", "check", linear, slow, "--trust", slow]
    command = subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
    )
    time.sleep(6)
    command.send_signal(signal.SIGINT)
    out, _ = command.communicate(timeout=20)
    assert command.returncode == 130
    assert "float32[N, 10] -> float32[N, 5]" in out
    assert "interrupted: this is what was known by then" in out
