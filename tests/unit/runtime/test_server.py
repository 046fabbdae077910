"""The server answers every request, and turns every error into a reply."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.core.blueprint import single_model
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.observations import Accepted, RejectionKind
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.core.rules import Rule
from composecli.core.slices import Followed
from composecli.runtime.server import Server
from composecli.workers.channel import Channel, ChannelClosed
from composecli.workers.protocol import (
    AnyReply,
    DescribeRequest,
    Failed,
    FollowRequest,
    Measure,
    MeasureKind,
    Opened,
    OpenRequest,
    ProbeRequest,
    R,
    Ready,
    Request,
    Sandbox,
    SandboxRequest,
    Training,
)
from tests.commands.running import environment


def open_request(path: Path | str) -> OpenRequest:
    return OpenRequest(
        FileReference(str(path)),
        ModelKind.TORCHSCRIPT,
        "cpu",
        Training.SAVED,
        trusted=False,
        key=None,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.jit.script(nn.Linear(3, 2)).save(str(tmp_path / "linear.pt"))
    return tmp_path / "linear.pt"


def test_requests_are_answered_in_order(path: Path) -> None:
    server = Server()
    opened = server.answer(open_request(path))
    assert isinstance(opened, Opened)
    call = Call((Argument(TensorSpec("float32", (2, 3))),))
    probe = ProbeRequest(single_model(opened.handle), call)
    assert isinstance(server.answer(probe), Accepted)


def test_model_that_cannot_be_opened_is_a_failure(tmp_path: Path) -> None:
    reply = Server().answer(open_request(tmp_path / "missing.pt"))
    assert isinstance(reply, Failed)
    assert reply.problem.where


def test_unexpected_error_is_reported_as_a_bug_with_its_traceback() -> None:
    reply = Server().answer(DescribeRequest(99, None))
    assert isinstance(reply, Failed)
    assert reply.problem.rule is Rule.A_BUG_OF_OURS
    assert "KeyError" in reply.problem.title
    assert "Traceback" in (reply.problem.trace or "")


class _NoFileAtFirst:
    """A worker whose first forward finds no file."""

    def __init__(self) -> None:
        self.kinds = [None, RejectionKind.NO_FILE]

    def ask(self, request: Request[R]) -> Followed:
        return Followed((), 2, kind=self.kinds.pop())


def test_slices_that_no_file_could_follow_are_followed_with_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sandbox = Sandbox((Measure(MeasureKind.LANDLOCK, "4"),), ())
    functions = {
        "apply_sandbox": lambda _request: sandbox,
        "forbid_opening_files": nullcontext,
        "read_system_files": lambda: None,
        "renew_time_limit": lambda _seconds: None,
    }
    for name, function in functions.items():
        monkeypatch.setattr(f"composecli.runtime.server.{name}", function)
    server = Server()
    server.answer(SandboxRequest((), (), None, 30.0, files=True))
    monkeypatch.setattr(server, "_worker", _NoFileAtFirst())
    reply = server.answer(FollowRequest(single_model(0), Call(()), ()))
    assert isinstance(reply, Followed)
    assert reply.kind is None


def test_server_ends_when_its_pipe_is_closed(path: Path) -> None:
    """`serve` changes its process, so this test runs it in a process of its own."""
    requests_read, requests_write = os.pipe()
    replies_read, replies_write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "composecli.runtime", str(requests_read), str(replies_write)],
        pass_fds=(requests_read, replies_write),
        env=environment(),
    )
    os.close(requests_read)
    os.close(replies_write)
    channel = Channel(replies_read, requests_write)
    assert channel.receive(Ready) == Ready()
    channel.send(open_request(path))
    assert isinstance(channel.receive(AnyReply), Opened)
    os.close(requests_write)
    with pytest.raises(ChannelClosed):
        channel.receive(AnyReply)
    os.close(replies_read)
    assert process.wait(timeout=30) == 0
