"""Several workers behind the one protocol: each request goes to a worker that is free."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from composecli.core.blueprint import models, renumber
from composecli.core.observations import Observation, renumber_reads
from composecli.core.slices import Followed, renumber_followed
from composecli.workers.protocol import (
    Described,
    DescribeRequest,
    FollowRequest,
    IsolationRequest,
    OpenRequest,
    ProbeRequest,
    R,
    Request,
    SampleRequest,
    Sandbox,
    SandboxRequest,
    Worker,
)

MAX_WORKERS = 8
# Starting a worker takes as long as examining this many small models.
MODELS_PER_WORKER = 4


def pool_size(count: int) -> int:
    """Return how many workers `count` models are worth on the available cores."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, cores, count // MODELS_PER_WORKER))


@dataclass(eq=False)
class _Slot:
    """One worker of the pool.

    `handles` maps the pool's numbers of models to the worker's own numbers. `ready`: the worker
    has received the sandbox request and the samples.
    """

    worker: Worker
    handles: dict[int, int] = field(default_factory=dict)
    ready: bool = False


class WorkerPool:
    """The Worker protocol over several workers, all of which start immediately.

    The first worker opens every model, and the pool uses its numbers. Every other worker opens a
    model when it gets the first request about that model.
    """

    def __init__(self, start: Callable[[], Worker], count: int) -> None:
        self.parallelism = count
        # Not on demand: a child process ends with the thread that started it.
        self._slots = [_Slot(start()) for _ in range(count)]
        self._slots[0].ready = True
        self._busy = set[_Slot]()
        self._changed = threading.Condition()
        self._sandbox_request: SandboxRequest | None = None
        self._opened = dict[int, OpenRequest]()
        self._samples = list[SampleRequest]()

    def ask(self, request: Request[R]) -> R:
        """Return the reply of a worker that is free.

        Any worker can probe and describe; all other requests go to the first worker.
        """
        reply: R = self._route(request)
        return reply

    def close(self) -> None:
        """End all workers, even in the middle of a request."""
        for slot in self._slots:
            slot.worker.close()

    def _route(self, request: Request[Any]) -> Any:
        """Send probes and descriptions to any free worker, and all other requests to the first."""
        match request:
            case ProbeRequest():
                return self._probe(request)
            case FollowRequest():
                return self._follow(request)
            case DescribeRequest():
                return self._describe(request)
            case SandboxRequest():
                return self._sandbox(request)
            case IsolationRequest():
                # The first worker remembers it, even in the middle of another request.
                return self._slots[0].worker.ask(request)
        with self.reserve_first() as worker:
            reply = worker.ask(request)
        match request:
            case OpenRequest():
                self._opened[reply.handle] = request
                self._slots[0].handles[reply.handle] = reply.handle
            case SampleRequest():
                self._samples.append(request)
        return reply

    def _sandbox(self, request: SandboxRequest) -> Sandbox:
        """Give every worker an equal share of the memory that one worker may use."""
        if request.memory is not None:
            request = replace(request, memory=request.memory // self.parallelism)
        self._sandbox_request = request
        with self.reserve_first() as worker:
            return worker.ask(request)

    def _probe(self, request: ProbeRequest) -> Observation:
        """Run a probe, and return the reply with the pool's numbers of the models."""
        observation, numbers = self._run(request)
        return renumber_reads(observation, numbers)

    def _follow(self, request: FollowRequest) -> Followed:
        """Follow slices, and return the reply with the pool's numbers of the models."""
        followed, numbers = self._run(request)
        return renumber_followed(followed, numbers)

    def _run(self, request: ProbeRequest | FollowRequest) -> tuple[Any, dict[int, int]]:
        """Run a blueprint under a slot's own numbers of the models.

        Return the reply, and the pool's number of each model by the slot's own.
        """
        with self._reserve(self._slots) as slot:
            handles = {number: self._handle(slot, number) for number in models(request.blueprint)}
            blueprint = renumber(request.blueprint, handles)
            reply = slot.worker.ask(replace(request, blueprint=blueprint))
        numbers = {handle: number for number, handle in handles.items()}
        return reply, numbers

    def _describe(self, request: DescribeRequest) -> Described:
        """Describe a model under the slot's own number."""
        with self._reserve(self._slots) as slot:
            handle = self._handle(slot, request.handle)
            return slot.worker.ask(replace(request, handle=handle))

    @contextmanager
    def reserve_first(self) -> Iterator[Worker]:
        """Reserve the first worker for the calling thread; wait until it is free."""
        with self._reserve(self._slots[:1]) as slot:
            yield slot.worker

    @contextmanager
    def _reserve(self, slots: list[_Slot]) -> Iterator[_Slot]:
        """Reserve one of these slots for the calling thread; wait until one is free."""
        with self._changed:
            slot = self._changed.wait_for(lambda: self._free(slots))[0]
            self._busy.add(slot)
        try:
            self._make_ready(slot)
            yield slot
        finally:
            with self._changed:
                self._busy.remove(slot)
                self._changed.notify_all()

    def _free(self, slots: list[_Slot]) -> list[_Slot]:
        """Return the slots that serve no request."""
        return [slot for slot in slots if slot not in self._busy]

    def _make_ready(self, slot: _Slot) -> None:
        """Repeat the sandbox request and the samples for a worker that has not had them."""
        if slot.ready:
            return
        slot.ready = True
        if self._sandbox_request is not None:
            slot.worker.ask(self._sandbox_request)
        for sample in self._samples:
            slot.worker.ask(sample)

    def _handle(self, slot: _Slot, number: int) -> int:
        """Return the worker's own number of a model; open the model there if necessary."""
        if number not in slot.handles:
            opened = slot.worker.ask(self._opened[number])
            slot.handles[number] = opened.handle
        return slot.handles[number]
