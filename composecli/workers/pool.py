"""Several workers behind the one protocol: as many requests at a time, each to one that is free."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from composecli.core.blueprint import models, renumber
from composecli.core.observations import Observation, renumber_reads
from composecli.workers.protocol import (
    BuildRequest,
    Built,
    Described,
    DescribeRequest,
    Done,
    Opened,
    OpenRequest,
    ProbeRequest,
    ReferenceRequest,
    Sampled,
    SampleRequest,
    Sandbox,
    SandboxRequest,
    Verified,
    VerifyRequest,
    Worker,
)

MOST = 8
# One takes as long to start as it takes to look at so many small models.
MODELS_TO_EACH = 4


def pool_size(count: int) -> int:
    """How many workers so many models are worth, on the cores that there are."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(MOST, cores, count // MODELS_TO_EACH))


@dataclass(eq=False)
class _Slot:
    """One worker, with its own numbers of the models that it has opened by now. `ready`: it is told what the first
    was."""

    worker: Worker
    handles: dict[int, int] = field(default_factory=dict)
    ready: bool = False


class WorkerPool:
    """All of them start at once. The first opens every model, and has the numbers that are given; another opens a model
    when it is first asked about it."""

    def __init__(self, start: Callable[[], Worker], count: int) -> None:
        self.parallelism = count
        # Here, and not when one is needed: a child ends with the thread that started it.
        self._all = [_Slot(start(), ready=not number) for number in range(count)]
        self._busy = set[_Slot]()
        self._changed = threading.Condition()
        self._confinement: SandboxRequest | None = None
        self._opened = dict[int, OpenRequest]()
        self._samples = list[SampleRequest]()

    def sandbox(self, request: SandboxRequest) -> Sandbox:
        """Together they may take as much memory as one alone."""
        memory = request.memory // self.parallelism if request.memory is not None else None
        self._confinement = replace(request, memory=memory)
        with self._first() as worker:
            return worker.sandbox(self._confinement)

    def open(self, request: OpenRequest) -> Opened:
        with self._first() as worker:
            opened = worker.open(request)
        self._opened[opened.handle] = request
        self._all[0].handles[opened.handle] = opened.handle
        return opened

    def sample(self, request: SampleRequest) -> Sampled:
        with self._first() as worker:
            sampled = worker.sample(request)
        self._samples.append(request)
        return sampled

    def probe(self, request: ProbeRequest) -> Observation:
        with self._held(self._all) as slot:
            handles = {number: self._handle(slot, number) for number in models(request.blueprint)}
            seen = slot.worker.probe(
                replace(request, blueprint=renumber(request.blueprint, handles))
            )
        return renumber_reads(seen, {handle: number for number, handle in handles.items()})

    def describe(self, request: DescribeRequest) -> Described:
        with self._held(self._all) as slot:
            return slot.worker.describe(replace(request, handle=self._handle(slot, request.handle)))

    def build(self, request: BuildRequest) -> Built:
        with self._first() as worker:
            return worker.build(request)

    def run_reference(self, request: ReferenceRequest) -> Done:
        with self._first() as worker:
            return worker.run_reference(request)

    def verify(self, request: VerifyRequest) -> Verified:
        with self._first() as worker:
            return worker.verify(request)

    def close(self) -> None:
        """End all of them, whatever they are doing."""
        for slot in self._all:
            slot.worker.close()

    @contextmanager
    def _first(self) -> Iterator[Worker]:
        with self._held(self._all[:1]) as slot:
            yield slot.worker

    @contextmanager
    def _held(self, wanted: list[_Slot]) -> Iterator[_Slot]:
        """One of these, for whoever asks alone."""
        with self._changed:
            self._changed.wait_for(lambda: any(slot not in self._busy for slot in wanted))
            slot = next(slot for slot in wanted if slot not in self._busy)
            self._busy.add(slot)
        try:
            self._make_ready(slot)
            yield slot
        finally:
            with self._changed:
                self._busy.remove(slot)
                self._changed.notify_all()

    def _make_ready(self, slot: _Slot) -> None:
        if slot.ready:
            return
        slot.ready = True
        if self._confinement is not None:
            slot.worker.sandbox(self._confinement)
        for sample in self._samples:
            slot.worker.sample(sample)

    def _handle(self, slot: _Slot, number: int) -> int:
        """The number of a model in this lane, where it is opened if it was not before."""
        if number not in slot.handles:
            slot.handles[number] = slot.worker.open(self._opened[number]).handle
        return slot.handles[number]
