"""A worker that remembers: answers of an earlier run about the same content, and a real worker for the rest.

The real one is started when the first answer is missing, and then told what it has missed: so that a command all of
whose answers are known runs without a worker, and torch.
"""

from __future__ import annotations

import json
import platform
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from composecli.core.blueprint import models, renumber
from composecli.core.errors import CouldNotAttempt
from composecli.core.model_ref import ModelKind
from composecli.core.observations import Accepted, Observation, Rejected, renumber_reads
from composecli.core.pytree import call_leaves
from composecli.files.fingerprint import fingerprint, hash_records, stat_key
from composecli.workers.cache_store import Cache
from composecli.workers.codec import NotAMessage, decode, encode
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

MOST_ANSWERS = 2000
_DIED = "ChildEnded"


@dataclass(frozen=True, slots=True)
class _Contents:
    """What else an answer rests on: the bytes of these records of the model in this place of its subject, of all where
    none is named."""

    place: int
    records: tuple[str, ...]
    sha256: str


@dataclass
class _Entry:
    """What is known of one subject, a model or several that run together: answers by question, as JSON."""

    answers: dict[str, Any]
    changed: bool = False


@dataclass(frozen=True, slots=True)
class _Model:
    """A model that was asked for; `subject` is what it is known by, None where its answers are not kept."""

    request: OpenRequest
    subject: str | None


class CachingWorker:
    """The Worker protocol over a cache and a worker of so many lanes that `start` makes when it is needed."""

    def __init__(self, start: Callable[[], Worker], cache: Cache, parallelism: int = 1) -> None:
        self.parallelism = parallelism
        self._start = start
        self._starting = threading.RLock()
        self._cache = cache
        self._worker: Worker | None = None
        self._confinement: SandboxRequest | None = None
        self._models = list[_Model]()
        self._books = dict[tuple[str, ...], _Entry]()
        self._identities = dict[str, str | None]()
        self._stamps = dict[str, tuple[int, ...]]()
        self._records = dict[int, frozenset[str]]()
        self._contents = dict[tuple[str, tuple[str, ...]], str | None]()

    def prepare(self, paths: Iterable[str]) -> None:
        """Start the worker now where one of these files was never seen, so that it gets ready meanwhile."""
        for path in paths:
            found = self._identity(path)
            if found is None or self._cache.get(("seen", found)) is None:
                self._begin()
                return

    def sandbox(self, request: SandboxRequest) -> Sandbox:
        self._confinement = request
        key = ("confined", platform.release(), request.memory, request.files)
        known = _decoded(Sandbox, self._cache.get(key)) if self._worker is None else None
        if known is None:
            known = self._begin().sandbox(request)
            self._cache.put(key, encode(known))
        found: Sandbox = known
        return found

    def open(self, request: OpenRequest) -> Opened:
        number = len(self._models)
        self._models.append(_Model(request, self._subject(request)))
        known: Opened | None = self._known((number,), "open", Opened)
        if known is not None and self._worker is None:
            return self._opened(number, known)
        try:
            opened = (
                self._worker.open(request) if self._worker is not None else self._replay(number)
            )
        except CouldNotAttempt:
            # The worker has no number for it either.
            self._models.pop()
            raise
        self._learn((number,), "open", replace(opened, handle=0))
        return self._opened(number, opened)

    def sample(self, request: SampleRequest) -> Sampled:
        return self._real().sample(request)

    def probe(self, request: ProbeRequest) -> Observation:
        numbers = tuple(dict.fromkeys(models(request.blueprint)))
        if any(spec.sample is not None for _, spec in call_leaves(request.call)):
            return self._real().probe(request)
        places = {number: place for place, number in enumerate(numbers)}
        question = _question(replace(request, blueprint=renumber(request.blueprint, places)))
        known: Observation | None = self._known(numbers, question, Accepted | Rejected)
        if known is not None:
            return renumber_reads(known, dict(enumerate(numbers)))
        seen = self._real().probe(request)
        for read in seen.read:
            self._record_dependency(read.model, read.records)
        if not (isinstance(seen, Rejected) and (seen.out_of_memory or seen.error == _DIED)):
            self._learn(numbers, question, renumber_reads(seen, places))
        return seen

    def describe(self, request: DescribeRequest) -> Described:
        numbers, question = (request.handle,), _question(replace(request, handle=0))
        known: Described | None = self._known(numbers, question, Described)
        if known is None:
            known = self._real().describe(request)
            self._learn(numbers, question, known)
        return known

    def build(self, request: BuildRequest) -> Built:
        return self._real().build(request)

    def run_reference(self, request: ReferenceRequest) -> Done:
        return self._real().run_reference(request)

    def verify(self, request: VerifyRequest) -> Verified:
        return self._real().verify(request)

    def close(self) -> None:
        """End the worker, and keep what was learned of files that are still what they were: the worker opened them
        later than they were known by."""
        if self._worker is not None:
            self._worker.close()
        paths = {model.subject: model.request.reference.path for model in self._models}
        changed = {
            subject for subject, path in paths.items() if stat_key(path) != self._stamps.get(path)
        }
        learned = {
            key: book
            for key, book in self._books.items()
            if book.changed and not changed & set(key)
        }
        if learned:
            self._cache.make_room()
        for key, book in learned.items():
            others = self._cache.get(key)
            self._cache.put(key, {**(others if isinstance(others, dict) else {}), **book.answers})
        for found in {subject.partition(" ")[0] for key in learned for subject in key}:
            self._cache.put(("seen", found), True)

    def _begin(self) -> Worker:
        if self._worker is None:
            self._worker = self._start()
        return self._worker

    def _real(self) -> Worker:
        """The worker, with all models open that were asked for."""
        with self._starting:
            if self._worker is None:
                self._replay(len(self._models) - 1)
            assert self._worker is not None
            return self._worker

    def _replay(self, last: int) -> Opened:
        """Start the worker and tell it what it has missed, up to this model."""
        worker = self._begin()
        if self._confinement is not None:
            worker.sandbox(self._confinement)
        opened = [worker.open(model.request) for model in self._models[: last + 1]]
        return opened[last]

    def _identity(self, path: str) -> str | None:
        if path not in self._identities:
            self._stamps[path] = stat_key(path)
            self._identities[path] = fingerprint(path)
        return self._identities[path]

    def _subject(self, request: OpenRequest) -> str | None:
        """The content and how it is opened. What is trusted may do another thing each time."""
        found = self._identity(request.reference.path)
        if found is None or request.trusted or request.kind is ModelKind.FACTORY:
            return None
        return " ".join((found, request.device, request.training, *sorted(request.allowed_ops)))

    def _book(self, numbers: tuple[int, ...]) -> _Entry | None:
        subjects = tuple(self._models[number].subject for number in numbers)
        key = tuple(subject for subject in subjects if subject is not None)
        if len(key) < len(subjects):
            return None
        if key not in self._books:
            held = self._cache.get(key)
            self._books[key] = _Entry(held if isinstance(held, dict) else {})
        return self._books[key]

    def _known(self, numbers: tuple[int, ...], question: str, hint: Any) -> Any:
        book = self._book(numbers)
        held = book.answers.get(question) if book is not None else None
        if not isinstance(held, dict):
            return None
        rests_on = _decoded(tuple[_Contents, ...], held.get("contents"))
        if rests_on is None or any(
            item != self._contents_of(numbers, item.place, item.records) for item in rests_on
        ):
            return None
        return _decoded(hint, held.get("answer"))

    def _learn(self, numbers: tuple[int, ...], question: str, answer: object) -> None:
        book = self._book(numbers)
        if book is None or len(book.answers) >= MOST_ANSWERS:
            return
        rests_on = [
            self._contents_of(numbers, place, tuple(sorted(self._records[number])))
            for place, number in enumerate(numbers)
            if number in self._records
        ]
        if None in rests_on:
            return
        book.answers[question] = {"answer": encode(answer), "contents": encode(rests_on)}
        book.changed = True

    def _record_dependency(self, number: int, records: tuple[str, ...]) -> None:
        """From now on the worker has the values of these records, of all where none is named."""
        held = self._records.get(number, frozenset(records))
        self._records[number] = held.union(records) if held and records else frozenset()

    def _opened(self, number: int, opened: Opened) -> Opened:
        if opened.whole:
            self._record_dependency(number, ())
        return replace(opened, handle=number)

    def _contents_of(
        self, numbers: tuple[int, ...], place: int, records: tuple[str, ...]
    ) -> _Contents | None:
        """None where there is no such place, or what is there cannot be read."""
        if not 0 <= place < len(numbers):
            return None
        path = self._models[numbers[place]].request.reference.path
        if (path, records) not in self._contents:
            self._contents[path, records] = hash_records(path, records)
        sha256 = self._contents[path, records]
        return _Contents(place, records, sha256) if sha256 is not None else None


def _decoded(hint: Any, held: Any) -> Any:
    """The answer, None where there is none or it is not what was put there."""
    try:
        return decode(hint, held) if held is not None else None
    except NotAMessage:
        return None


def _question(request: ProbeRequest | DescribeRequest) -> str:
    return json.dumps(encode(request), sort_keys=True)
