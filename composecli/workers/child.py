"""The child that runs models: starts it, asks it, and turns crash, hang and nonsense into problems."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from typing import TypeVar

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.observations import Accepted, Detail, Observation, Rejected
from composecli.core.rules import Rule
from composecli.workers.channel import Channel, ChannelClosed, DeadlineExceeded, InvalidMessage
from composecli.workers.output_tail import Tail
from composecli.workers.protocol import (
    BuildRequest,
    Built,
    Described,
    DescribeRequest,
    Done,
    Failed,
    Opened,
    OpenRequest,
    ProbeRequest,
    ReferenceRequest,
    Reply,
    Request,
    Sampled,
    SampleRequest,
    Sandbox,
    SandboxRequest,
    Verified,
    VerifyRequest,
)

TAIL = 2000
_ACTIVITIES = {
    SandboxRequest: "giving up what it does not need",
    OpenRequest: "loading a model",
    SampleRequest: "loading a sample",
    ProbeRequest: "running a forward",
    DescribeRequest: "listing layers",
    BuildRequest: "building the join",
    ReferenceRequest: "running the parts by hand",
    VerifyRequest: "verifying the join",
}

MAX_RESTARTS = 6

Answer = TypeVar("Answer", bound=Reply)


class WorkerDied(CouldNotAttempt):
    """The child died, hung or answered nonsense."""


class SubprocessWorker:
    """The Worker protocol over pipes. The child starts at once, and imports torch while the command reads files.

    A child that dies of a probe which explores is replaced by another: that input is refused, and the rest goes on.
    `untrusted`: it opens files that nobody vouches for, and gets none of the environment but what the system needs.
    """

    parallelism = 1

    def __init__(
        self,
        timeout: float,
        *,
        show_output: bool = False,
        untrusted: bool = False,
        module: str = "composecli.runtime",
    ) -> None:
        self._timeout = timeout
        self._last = ""
        self._show_output = show_output
        self._module = module
        self._environment = _environment(_SYSTEMS if untrusted else None)
        self._state = list[SandboxRequest | OpenRequest | SampleRequest]()
        self._deaths = 0
        self._closed = False
        self._start()

    def _start(self) -> None:
        to_child, self._from_us = os.pipe()
        self._to_us, from_child = os.pipe()
        self._log = None if self._show_output else Tail(TAIL)
        target = sys.stderr if self._log is None else self._log.writing
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", self._module, str(to_child), str(from_child)],
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=target,
            pass_fds=(to_child, from_child),
            start_new_session=True,
            env=self._environment,
        )
        os.close(to_child)
        os.close(from_child)
        if self._log is not None:
            self._log.start()
        self._frames = Channel(self._to_us, self._from_us)

    def sandbox(self, request: SandboxRequest) -> Sandbox:
        confined = self._ask(request, Sandbox)
        self._state.append(request)
        return confined

    def open(self, request: OpenRequest) -> Opened:
        self._last = request.reference.name
        opened = self._ask(request, Opened)
        self._state.append(request)
        return opened

    def sample(self, request: SampleRequest) -> Sampled:
        sampled = self._ask(request, Sampled)
        self._state.append(request)
        return sampled

    def probe(self, request: ProbeRequest) -> Observation:
        try:
            reply = self._ask_any(request)
        except WorkerDied as ended:
            if request.detail is Detail.REASON or self._closed:
                raise
            self._replace()
            if self._deaths > MAX_RESTARTS:
                raise
            return Rejected(0, "ChildEnded", ended.problem.title, "its process")
        if isinstance(reply, Accepted | Rejected):
            return reply
        raise self._ended(
            request,
            Rule.WORKER_ANSWERED_NONSENSE,
            "the worker answered nonsense",
            f"a {type(reply).__name__}",
        )

    def describe(self, request: DescribeRequest) -> Described:
        return self._ask(request, Described)

    def build(self, request: BuildRequest) -> Built:
        return self._ask(request, Built)

    def run_reference(self, request: ReferenceRequest) -> Done:
        return self._ask(request, Done)

    def verify(self, request: VerifyRequest) -> Verified:
        return self._ask(request, Verified)

    def close(self) -> None:
        """End the child, whatever it is doing, and for good."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._process.poll() is None:
            self._kill()
        for descriptor in (self._from_us, self._to_us):
            try:
                os.close(descriptor)
            except OSError:
                continue

    def _replace(self) -> None:
        """Another child, with the same models and samples under the same numbers."""
        self._deaths += 1
        self._end()
        self._start()
        for request in self._state:
            self._ask_any(request)

    def _ask(self, request: Request, wanted: type[Answer]) -> Answer:
        reply = self._ask_any(request)
        if isinstance(reply, wanted):
            return reply
        raise self._ended(
            request,
            Rule.WORKER_ANSWERED_NONSENSE,
            "the worker answered nonsense",
            f"a {type(reply).__name__}",
        )

    def _ask_any(self, request: Request) -> Reply:
        try:
            self._frames.send(request)
            reply: Reply = self._frames.receive(Reply, time.monotonic() + self._timeout)
        except ChannelClosed:
            raise self._crashed(request) from None
        except DeadlineExceeded:
            title = f"the worker took longer than {self._timeout:g} s and was ended"
            raise self._ended(request, Rule.WORKER_TIMED_OUT, title, "") from None
        except InvalidMessage as error:
            raise self._ended(
                request, Rule.WORKER_ANSWERED_NONSENSE, "the worker answered nonsense", str(error)
            ) from None
        if isinstance(reply, Failed):
            raise CouldNotAttempt(reply.problem)
        return reply

    def _crashed(self, request: Request) -> WorkerDied:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        how = f"ended with exit code {code}"
        if code < 0:
            how = (
                f"was killed by {signal.Signals(-code).name}"
                if -code in list(signal.Signals)
                else f"died ({code})"
            )
        return self._ended(request, Rule.WORKER_CRASHED, f"the worker {how}", "")

    def _ended(self, request: Request, rule: Rule, title: str, note: str) -> WorkerDied:
        self._kill()
        notes = [f"it was {_ACTIVITIES[type(request)]}"]
        if note:
            notes.append(note)
        help = (
            ("--timeout S allows more time",)
            if rule is Rule.WORKER_TIMED_OUT
            else ("--debug shows what it printed",)
        )
        return WorkerDied(
            Problem(rule, title, self._last or None, tuple(notes), help, self._tail())
        )

    def _tail(self) -> str | None:
        return self._log.text() if self._log is not None else None

    def _kill(self) -> None:
        """The child leads its own session, so that whatever it started ends with it."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()


# What a process needs to start, to find Python's modules and the system's libraries, and to write text.
_SYSTEMS = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TERM|TMPDIR|TEMP|TMP|PYTHONPATH|PYTHONHOME|PYTHONUTF8|"
    r"PYTHONIOENCODING|VIRTUAL_ENV|CONDA_PREFIX|LD_LIBRARY_PATH|DYLD_\w+|SYSTEMROOT|WINDIR|COMSPEC|PATHEXT|"
    r"(CUDA|NVIDIA|OMP|MKL|KMP|GOMP)_\w+"
)


def _environment(only: re.Pattern[str] | None) -> dict[str, str]:
    """One compute thread, and nothing in the environment that changes how torch loads files."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TORCH_", "PYTORCH_JIT")) and (only is None or only.fullmatch(key))
    }
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(filter(None, (package, kept.get("PYTHONPATH"))))
    return {**kept, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path}
