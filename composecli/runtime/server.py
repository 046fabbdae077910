"""The child's loop: it reads requests, answers each of them, and ends when its parent does."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from dataclasses import replace

import torch

from composecli.core.errors import CouldNotAttempt, Problem, system_problem
from composecli.core.observations import Rejected, RejectionKind
from composecli.core.rules import Rule
from composecli.core.slices import Followed
from composecli.runtime.guarded_kernels import guarded_kernels
from composecli.runtime.in_process import InProcessWorker
from composecli.runtime.loading.library_classes import import_early
from composecli.runtime.loading.own_code import import_libraries
from composecli.runtime.sandbox import apply_sandbox, forbid_opening_files, renew_time_limit
from composecli.runtime.warm_up import read_system_files
from composecli.workers.channel import Channel, ChannelClosed
from composecli.workers.isolation import require_isolation
from composecli.workers.protocol import (
    AnyReply,
    AnyRequest,
    Failed,
    FollowRequest,
    ProbeRequest,
    Ready,
    Sandbox,
    SandboxRequest,
)

PR_SET_PDEATHSIG = 1
MAX_NOTE_LENGTH = 300


def serve(reading: int, writing: int) -> None:
    """Answer requests until there are no more."""
    _end_with_parent()
    torch.set_num_threads(1)
    channel = Channel(reading, writing)
    channel.send(Ready())
    server = Server()
    with guarded_kernels():
        while True:
            try:
                request: AnyRequest = channel.receive(AnyRequest)
            except ChannelClosed:
                return
            channel.send(server.answer(request))


class Server:
    """Answers requests by a worker in this process; confines the process when asked to."""

    def __init__(self) -> None:
        self._worker = InProcessWorker()
        self._sandbox_request: SandboxRequest | None = None
        self._sandbox: Sandbox | None = None
        self._refusal: Failed | None = None

    def answer(self, request: AnyRequest) -> AnyReply:
        """Return the reply to a request, within the limits of the sandbox.

        A probe may open no file. If the model has to import a module, and Landlock denies all
        other files, it is run again with permission to open files.
        """
        if self._refusal is not None:
            return self._refusal
        if isinstance(request, SandboxRequest):
            return self._confine(request)
        if self._sandbox_request is None or self._sandbox is None:
            return self._attempt(request)
        renew_time_limit(self._sandbox_request.seconds)
        if not isinstance(request, ProbeRequest | FollowRequest) or not self._sandbox_request.files:
            return self._attempt(request)
        with forbid_opening_files():
            reply = self._attempt(request)
        if self._sandbox.restricts_files and _may_need_files(reply):
            return self._attempt(request)
        return reply

    def _confine(self, request: SandboxRequest) -> AnyReply:
        """Apply the sandbox. If that fails, this process answers no request any more."""
        reply = self._attempt(request)
        if isinstance(reply, Failed):
            self._refusal = reply
        return reply

    def _attempt(self, request: AnyRequest) -> AnyReply:
        """Return the reply; `Failed` if there is an error of any kind."""
        try:
            return self._perform(request)
        except CouldNotAttempt as failure:
            return _failed(failure.problem, failure.__cause__)
        except MemoryError as error:
            title = "the models need more memory than the limit allows"
            help = ("use --max-memory SIZE to allow more",)
            problem = Problem(Rule.MEMORY_RAN_OUT, title, None, (), help)
            return _failed(problem, error)
        except OSError as error:
            return _failed(system_problem(error), error)
        except Exception as error:
            title = f"a bug in composecli's worker: {type(error).__name__}"
            notes = (str(error)[:MAX_NOTE_LENGTH],)
            help = ("run it again with --debug and report what it prints",)
            problem = Problem(Rule.A_BUG_OF_OURS, title, None, notes, help)
            return _failed(problem, error)

    def _perform(self, request: AnyRequest) -> AnyReply:
        """Have the worker answer, except for the sandbox, which confines this whole process."""
        if not isinstance(request, SandboxRequest):
            reply: AnyReply = self._worker.ask(request)
            return reply
        import_libraries(request.imports)
        import_early(request.libraries)
        read_system_files()
        sandbox = apply_sandbox(request)
        require_isolation(sandbox, required=request.required)
        self._sandbox_request = request
        self._sandbox = sandbox
        return sandbox


def _failed(problem: Problem, cause: BaseException | None) -> Failed:
    """Return the reply with the traceback of the cause in it, which `--debug` shows."""
    if cause is None:
        return Failed(problem)
    trace = "".join(traceback.format_exception(cause))
    return Failed(replace(problem, trace=trace))


def _may_need_files(reply: AnyReply) -> bool:
    """Whether a probe may have failed only because it could open no file."""
    if isinstance(reply, Rejected | Followed):
        return reply.kind is RejectionKind.NO_FILE
    return isinstance(reply, Failed)


def _end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends.

    Only Linux can do that. Elsewhere the process ends at its next request, by the closed pipe.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before the call, in which case no signal will come.
    if os.getppid() == 1:
        os._exit(0)
