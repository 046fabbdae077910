"""A worker that answers from the cache and starts a real worker for the remaining requests.

The real worker starts when the first answer is missing, and then gets all requests that it has
missed. A command whose answers are all cached needs no worker, and does not import torch.
"""

from __future__ import annotations

import json
import platform
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from composecli.core.blueprint import models, renumber
from composecli.core.errors import CouldNotAttempt
from composecli.core.observations import (
    Accepted,
    Observation,
    Rejected,
    RejectionKind,
    renumber_reads,
)
from composecli.core.pytree import call_leaves
from composecli.core.slices import Followed, renumber_followed
from composecli.workers.cache_store import Cache
from composecli.workers.cached_answers import CachedAnswers, decode_or_none
from composecli.workers.codec import encode
from composecli.workers.protocol import (
    Described,
    DescribeRequest,
    FollowRequest,
    IsolationRequest,
    Opened,
    OpenRequest,
    ProbeRequest,
    R,
    Request,
    Sandbox,
    SandboxRequest,
    Worker,
)

# Another run may end otherwise: it depends on the state of the machine.
_NOT_REPRODUCIBLE = (RejectionKind.OUT_OF_MEMORY, RejectionKind.WORKER_DIED)


class CachingWorker:
    """The Worker protocol over a cache and a worker, which `start` makes when it is needed."""

    def __init__(self, start: Callable[[], Worker], cache: Cache, parallelism: int = 1) -> None:
        self.parallelism = parallelism
        self._start = start
        self._starting = threading.RLock()
        self._cache = cache
        self._answers = CachedAnswers(cache)
        self._worker: Worker | None = None
        self._sandbox_request: SandboxRequest | None = None
        self._expected: Sandbox | None = None

    def prepare(self, paths: Iterable[str]) -> None:
        """Start the worker now if one of these files has no cached answers."""
        for path in paths:
            if not self._answers.knows_file(path):
                self._begin()
                return

    def ask(self, request: Request[R]) -> R:
        """Return the cached reply, or that of the real worker. Only some requests are cached."""
        reply: R = self._route(request)
        return reply

    def close(self) -> None:
        """End the worker, and store the new answers."""
        if self._worker is not None:
            self._worker.close()
        self._answers.save()

    def _route(self, request: Request[Any]) -> Any:
        """Answer from the cache if possible; requests that write files go to the real worker."""
        match request:
            case SandboxRequest():
                return self._sandbox(request)
            case IsolationRequest():
                return self._isolation(request)
            case OpenRequest():
                return self._open(request)
            case ProbeRequest():
                return self._probe(request)
            case FollowRequest():
                return self._follow(request)
            case DescribeRequest():
                return self._describe(request)
        return self._real_worker().ask(request)

    def _sandbox(self, request: SandboxRequest) -> Sandbox:
        """Return the measures that this kernel applied before, without starting a worker.

        Isolation that is required is required of this run: another may have had other rights.
        """
        self._sandbox_request = request
        if self._worker is None and not request.required:
            stored = self._cache.get(_confined(request))
            cached: Sandbox | None = decode_or_none(Sandbox, stored)
            if cached is not None:
                self._expected = cached
                self._answers.confine(request, cached)
                return cached
        return self._confine(request)

    def _confine(self, request: SandboxRequest) -> Sandbox:
        """Have the real worker confine itself; remember how."""
        sandbox = self._begin().ask(request)
        self._answers.confine(request, sandbox)
        self._cache.put(_confined(request), encode(sandbox))
        if self._expected not in (None, sandbox):
            # Some of the models were added as if they were confined in another way.
            self._answers.discard()
        return sandbox

    def _isolation(self, request: IsolationRequest) -> Sandbox:
        """Return the isolation of this run: none was needed if all answers were cached."""
        if self._worker is not None:
            return self._worker.ask(request)
        return Sandbox((), (), unused=True)

    def _open(self, request: OpenRequest) -> Opened:
        """Return the cached facts of a model, or have the real worker open it."""
        number = self._answers.add_model(request)
        cached: Opened | None = self._answers.find((number,), "open", Opened)
        if cached is not None and self._worker is None:
            return self._register(number, cached)
        try:
            if self._worker is not None:
                opened = self._worker.ask(request)
            else:
                opened = self._replay()[number]
        except CouldNotAttempt:
            # The real worker has not given a number to this model either.
            self._answers.remove_last_model()
            raise
        self._answers.store((number,), "open", replace(opened, handle=0))
        return self._register(number, opened)

    def _register(self, number: int, opened: Opened) -> Opened:
        """Note that the answers of a model that was loaded whole depend on all its records."""
        if opened.whole:
            self._answers.add_dependency(number, ())
        return replace(opened, handle=number)

    def _probe(self, request: ProbeRequest) -> Observation:
        """Return a cached observation; a call with saved samples is always run."""
        if any(spec.sample is not None for _, spec in call_leaves(request.call)):
            return self._real_worker().ask(request)
        # The question names models by place, so that their numbers in this command do not matter.
        numbers = tuple(dict.fromkeys(models(request.blueprint)))
        places = {number: place for place, number in enumerate(numbers)}
        blueprint = renumber(request.blueprint, places)
        question = _question(replace(request, blueprint=blueprint, seconds=None))
        cached: Observation | None = self._answers.find(numbers, question, Accepted | Rejected)
        if cached is not None:
            return renumber_reads(cached, dict(enumerate(numbers)))
        observation = self._real_worker().ask(request)
        for read in observation.read:
            self._answers.add_dependency(read.model, read.records)
        if _is_reproducible(observation):
            self._answers.store(numbers, question, renumber_reads(observation, places))
        return observation

    def _follow(self, request: FollowRequest) -> Followed:
        """Return what became of slices in an earlier run; a call with samples is always run."""
        if any(spec.sample is not None for _, spec in call_leaves(request.call)):
            return self._real_worker().ask(request)
        numbers = tuple(dict.fromkeys(models(request.blueprint)))
        places = {number: place for place, number in enumerate(numbers)}
        blueprint = renumber(request.blueprint, places)
        question = _question(replace(request, blueprint=blueprint))
        cached: Followed | None = self._answers.find(numbers, question, Followed)
        if cached is not None:
            return renumber_followed(cached, dict(enumerate(numbers)))
        followed = self._real_worker().ask(request)
        for read in followed.read:
            self._answers.add_dependency(read.model, read.records)
        if followed.kind not in _NOT_REPRODUCIBLE:
            self._answers.store(numbers, question, renumber_followed(followed, places))
        return followed

    def _describe(self, request: DescribeRequest) -> Described:
        """Return the cached layer table of a model."""
        numbers = (request.handle,)
        question = _question(replace(request, handle=0))
        cached: Described | None = self._answers.find(numbers, question, Described)
        if cached is not None:
            return cached
        described = self._real_worker().ask(request)
        self._answers.store(numbers, question, described)
        return described

    def _begin(self) -> Worker:
        """Start the real worker, without repeating earlier requests to it."""
        if self._worker is None:
            self._worker = self._start()
        return self._worker

    def _real_worker(self) -> Worker:
        """Return the real worker with all requested models open."""
        with self._starting:
            if self._worker is None:
                self._replay()
            return self._begin()

    def _replay(self) -> list[Opened]:
        """Start the worker and send it the requests that it has missed."""
        worker = self._begin()
        opened = list[Opened]()
        *earlier, last = self._answers.requests
        try:
            if self._sandbox_request is not None:
                self._confine(self._sandbox_request)
            opened += [worker.ask(request) for request in earlier]
        except CouldNotAttempt:
            # Its numbers of the models are not those of this object: the next request starts anew.
            worker.close()
            self._worker = None
            raise
        return [*opened, worker.ask(last)]


def _confined(request: SandboxRequest) -> tuple[object, ...]:
    """Return the key of the measures that this kernel applied to a request."""
    return ("confined", platform.release(), request.memory, request.files, request.uses_cuda)


def _is_reproducible(observation: Observation) -> bool:
    """Return whether a new run would observe the same, so that the observation may be cached."""
    return isinstance(observation, Accepted) or observation.kind not in _NOT_REPRODUCIBLE


def _question(request: ProbeRequest | FollowRequest | DescribeRequest) -> str:
    """Return the text of a request, as part of the key of its answer."""
    return json.dumps(encode(request), sort_keys=True)
