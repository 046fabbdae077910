"""A worker in a child process. Crashes, hangs and invalid replies become problems."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import Any

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.observations import Detail, Rejected, RejectionKind
from composecli.core.rules import Rule
from composecli.core.slices import Followed
from composecli.workers.channel import ChannelClosed, DeadlineExceeded, InvalidMessage
from composecli.workers.child_process import ChildProcess, child_environment
from composecli.workers.protocol import (
    AnyReply,
    Failed,
    FollowRequest,
    IsolationRequest,
    OpenRequest,
    ProbeRequest,
    R,
    Ready,
    Request,
    SampleRequest,
    Sandbox,
    SandboxRequest,
    reply_types,
)

MAX_RESTARTS = 6
# Waiting for a time limit takes long, and a model that hangs twice is likely to hang again.
MAX_TIMEOUTS = 2
# For importing torch, which the time limit of requests does not include.
START_SECONDS = 120.0

# A new child has to repeat these requests to be in the state of the previous child.
_STATEFUL = (SandboxRequest, OpenRequest, SampleRequest)


class WorkerDied(CouldNotAttempt):
    """The child crashed, took too long or sent an invalid reply."""


class SubprocessWorker:
    """The Worker protocol over pipes.

    The child starts immediately and imports torch while the command reads files. If it dies, a new
    child takes over at the next request; an exploratory probe that it dies of counts as rejected.
    `untrusted`: the child opens untrusted files and gets only the environment variables that it
    needs.
    """

    parallelism = 1

    def __init__(
        self,
        timeout: float,
        *,
        show_output: bool = False,
        untrusted: bool = False,
        module: str = "composecli.runtime",
        start_timeout: float = START_SECONDS,
    ) -> None:
        self._timeout = timeout
        self._start_timeout = start_timeout
        environment = child_environment(untrusted=untrusted)
        self._start = partial(ChildProcess, module, environment, show_output=show_output)
        self._model_name: str | None = None
        self._state = list[Request[Any]]()
        self._sandbox = Sandbox((), ())
        self._restarts = 0
        self._timeouts = 0
        self._closed = False
        self._is_ready = False
        self._is_dead = False
        self._process = self._start()

    def ask(self, request: Request[R]) -> R:
        """Return the child's reply.

        Raises:
            CouldNotAttempt: if the child cannot do what is requested.
            WorkerDied: if it crashed, took too long or sent an invalid reply.
        """
        if isinstance(request, OpenRequest):
            self._model_name = request.reference.name
        reply: R = self._answer(request)
        if not isinstance(reply, reply_types(type(request))):
            raise self._invalid(request, f"a {type(reply).__name__}")
        if isinstance(request, _STATEFUL):
            self._state.append(request)
        return reply

    @property
    def pid(self) -> int:
        """The number of the child's process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the child's process has not ended."""
        return self._process.is_running

    def close(self) -> None:
        """End the child, even in the middle of a request; it is not started again."""
        self._closed = True
        self._process.close()

    def _answer(self, request: Request[Any]) -> Any:
        """Return the reply of the child; its isolation is known without asking it."""
        if isinstance(request, IsolationRequest):
            return self._sandbox
        return self._exchange_or_reject(request)

    def _exchange_or_reject(self, request: Request[Any]) -> Any:
        """Return the reply, of a new child if the last one died; reject a probe that kills it."""
        if self._is_dead and not self._closed:
            self._restart()
        try:
            return self._exchange(request)
        except WorkerDied as death:
            self._is_dead = True
            if self._closed or not _is_exploratory(request):
                raise
            if death.problem.rule is Rule.WORKER_TIMED_OUT and not self._is_shortened(request):
                self._timeouts += 1
            if self._restarts == MAX_RESTARTS or self._timeouts == MAX_TIMEOUTS:
                raise
            title = death.problem.title
            kind = RejectionKind.WORKER_DIED
            if isinstance(request, FollowRequest):
                return Followed((), 0, failed=title, kind=kind)
            return Rejected(0, "ChildEnded", title, "its process", kind=kind)

    def _restart(self) -> None:
        """Start a new child with the same models and samples under the same numbers."""
        self._restarts += 1
        self._process.close()
        self._is_ready = False
        self._process = self._start()
        for request in self._state:
            self._exchange(request)
        self._is_dead = False

    def _exchange(self, request: Request[Any]) -> Any:
        """Send a request and wait for the reply until the time limit.

        The time in which the child starts does not count.
        """
        if not self._is_ready:
            self._receive(request, Ready, self._start_timeout)
            self._is_ready = True
        # A child that has ended does not read: waiting for its reply says how it ended.
        with suppress(ChannelClosed):
            self._process.channel.send(request)
        reply = self._receive(request, AnyReply, self._seconds(request))
        if isinstance(reply, Failed):
            raise CouldNotAttempt(reply.problem)
        if isinstance(reply, Sandbox):
            self._sandbox = reply
        return reply

    def _seconds(self, request: Request[Any]) -> float:
        """Return the time that the reply may take."""
        if isinstance(request, ProbeRequest) and request.seconds is not None:
            return min(request.seconds, self._timeout)
        return self._timeout

    def _is_shortened(self, request: Request[Any]) -> bool:
        """Whether the request has less time than usual, so that being late tells little."""
        return self._seconds(request) < self._timeout

    def _receive(self, request: Request[Any], form: Any, seconds: float) -> Any:
        """Return the next message, which has this form.

        Raises:
            WorkerDied: if there is none within this time, or it is something else.
        """
        deadline = time.monotonic() + seconds
        try:
            return self._process.channel.receive(form, deadline)
        except ChannelClosed:
            title = f"the worker {self._process.describe_exit()}"
            raise self._died(request, Rule.WORKER_CRASHED, title) from None
        except DeadlineExceeded:
            title = f"the worker took longer than {seconds:g} s and was stopped"
            if not self._is_ready:
                title = f"the worker did not start within {seconds:g} s and was stopped"
            raise self._died(request, Rule.WORKER_TIMED_OUT, title) from None
        except InvalidMessage as error:
            raise self._invalid(request, str(error)) from None

    def _invalid(self, request: Request[Any], note: str) -> WorkerDied:
        """End the child, which sent an invalid reply, and return the problem."""
        title = "the worker sent an invalid message"
        return self._died(request, Rule.WORKER_ANSWERED_NONSENSE, title, note)

    def _died(self, request: Request[Any], rule: Rule, title: str, note: str = "") -> WorkerDied:
        """End the child and return the problem, with the last lines that it printed."""
        self._process.kill()
        notes = [f"it was {request.activity}"]
        if note:
            notes.append(note)
        help = "--debug shows its output"
        if rule is Rule.WORKER_TIMED_OUT and self._is_ready:
            help = "use --timeout S to allow more time"
        printed = self._process.printed()
        return WorkerDied(Problem(rule, title, self._model_name, tuple(notes), (help,), printed))


def _is_exploratory(request: Request[Any]) -> bool:
    """Whether the request is a probe that only explores; `Detail.REASON` is for final probes."""
    if isinstance(request, FollowRequest):
        return True
    return isinstance(request, ProbeRequest) and request.detail is not Detail.REASON
