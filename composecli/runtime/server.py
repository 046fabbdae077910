"""The child's loop: reads requests from its own file descriptor, answers each, ends when its parent does."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import assert_never

import torch

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.observations import Rejected
from composecli.core.rules import Rule
from composecli.runtime.in_process import InProcessWorker
from composecli.runtime.sandbox import apply_sandbox, nothing_opened, renew_clock
from composecli.workers.channel import Channel, ChannelClosed
from composecli.workers.protocol import (
    BuildRequest,
    DescribeRequest,
    Failed,
    OpenRequest,
    ProbeRequest,
    ReferenceRequest,
    Reply,
    Request,
    SampleRequest,
    Sandbox,
    SandboxRequest,
    VerifyRequest,
)

PR_SET_PDEATHSIG = 1


def serve(reading: int, writing: int) -> None:
    """Answer requests until there are no more."""
    _end_with_parent()
    frames = Channel(reading, writing)
    torch.set_num_threads(1)
    worker = InProcessWorker()
    confined: _Confinement | None = None
    while True:
        try:
            request: Request = frames.receive(Request)
        except ChannelClosed:
            return
        reply = _confined_answer(worker, request, confined)
        if isinstance(request, SandboxRequest) and isinstance(reply, Sandbox):
            confined = _Confinement(
                request, any(measure.startswith("Landlock") for measure in reply.applied)
            )
        frames.send(reply)


@dataclass(frozen=True, slots=True)
class _Confinement:
    request: SandboxRequest
    landlocked: bool


def _confined_answer(
    worker: InProcessWorker, request: Request, confined: _Confinement | None
) -> Reply:
    """The answer within the time that was given. A probe opens no file; where what it runs has to import more, and
    Landlock holds all other files, it may after all."""
    if confined is None:
        return _answer(worker, request)
    renew_clock(confined.request.seconds)
    if not isinstance(request, ProbeRequest) or not confined.request.files:
        return _answer(worker, request)
    with nothing_opened():
        reply = _answer(worker, request)
    wants_files = isinstance(reply, Failed) or (isinstance(reply, Rejected) and reply.no_descriptor)
    return _answer(worker, request) if wants_files and confined.landlocked else reply


def _answer(worker: InProcessWorker, request: Request) -> Reply:
    try:
        return _dispatch(worker, request)
    except CouldNotAttempt as failure:
        problem = failure.problem
        cause = failure.__cause__
    except MemoryError as error:
        help = ("--max-memory SIZE allows more",)
        problem, cause = (
            Problem(
                Rule.MEMORY_RAN_OUT, "the models need more memory than they may use", None, (), help
            ),
            error,
        )
    except Exception as error:
        title = f"a bug in composecli's worker: {type(error).__name__}"
        help = ("run it again with --debug and report what it prints",)
        problem, cause = Problem(Rule.A_BUG_OF_OURS, title, None, (str(error)[:300],), help), error
    if cause is None:
        return Failed(problem)
    trace = "".join(traceback.format_exception(cause))
    return Failed(
        Problem(problem.rule, problem.title, problem.where, problem.notes, problem.help, trace)
    )


def _dispatch(worker: InProcessWorker, request: Request) -> Reply:
    reply: Reply
    match request:
        case SandboxRequest():
            reply = apply_sandbox(request)
        case OpenRequest():
            reply = worker.open(request)
        case SampleRequest():
            reply = worker.sample(request)
        case ProbeRequest():
            reply = worker.probe(request)
        case DescribeRequest():
            reply = worker.describe(request)
        case BuildRequest():
            reply = worker.build(request)
        case ReferenceRequest():
            reply = worker.run_reference(request)
        case VerifyRequest():
            reply = worker.verify(request)
        case _:
            assert_never(request)
    return reply


def _end_with_parent() -> None:
    """On Linux the kernel ends the child with its parent; elsewhere the closed pipe does, between requests."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(0)
