"""Answers about the models of one command, looked up in the cache and stored there at its end.

Answers are grouped by subject: the content of one model file and how it is opened, or several of
them if the models run together. An answer may also depend on the values of some tensors of the
models. It is then stored with the hashes of their records, and used only if they are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from composecli.core.observations import Accepted
from composecli.files.fingerprint import fingerprint, hash_records, stat_key
from composecli.workers.cache_store import Cache
from composecli.workers.codec import NotAMessage, decode, encode
from composecli.workers.protocol import OpenRequest, Sandbox, SandboxRequest

MAX_ANSWERS_PER_SUBJECT = 2000

Numbers = tuple[int, ...]
Records = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Contents:
    """The hash of some records that an answer depends on; no names stand for all records.

    `place` is the position of the model among the models that run together.
    """

    place: int
    records: Records
    sha256: str


@dataclass
class _Entry:
    """The answers about one subject as JSON, by question."""

    answers: dict[str, Any]
    changed: bool = False


@dataclass(frozen=True, slots=True)
class _Model:
    """A model that was requested. `subject` is None if its answers must not be cached."""

    request: OpenRequest
    subject: str | None


class CachedAnswers:
    """The cached answers about the models of one command. Models are numbered as they are added."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._models = list[_Model]()
        self._entries = dict[tuple[str, ...], _Entry]()
        self._fingerprints = dict[str, str | None]()
        self._stamps = dict[str, tuple[int, ...]]()
        self._dependencies = dict[int, frozenset[str]]()
        self._hashes = dict[tuple[str, Records], str | None]()
        self._running = set[str]()
        self._confinement = "none"
        self._discarded = False

    def confine(self, request: SandboxRequest, sandbox: Sandbox) -> None:
        """Note the sandbox of the models that are added from now on.

        Code may do something else if it can open files, or has more memory.
        """
        measures = [str(measure) for measure in sandbox.applied]
        limits = (f"files={request.files}", f"memory={request.memory}")
        self._confinement = ",".join((*limits, *measures))

    @property
    def requests(self) -> list[OpenRequest]:
        """The request of each model, by its number."""
        return [model.request for model in self._models]

    def knows_file(self, path: str) -> bool:
        """Whether a file of this content has cached answers."""
        identity = self._fingerprint(path)
        return identity is not None and self._cache.get(("seen", identity)) is not None

    def add_model(self, request: OpenRequest) -> int:
        """Add a model, and return its number."""
        self._models.append(_Model(request, self._subject(request)))
        return len(self._models) - 1

    def remove_last_model(self) -> None:
        """Take back the number of a model that could not be opened."""
        self._models.pop()

    def find(self, numbers: Numbers, question: str, hint: Any) -> Any:
        """Return the cached answer about these models as a value of type `hint`, or None."""
        entry = self._entry(numbers)
        if entry is None:
            return None
        item = entry.answers.get(question)
        if not isinstance(item, dict):
            return None
        contents = decode_or_none(tuple[_Contents, ...], item.get("contents"))
        if contents is None:
            return None
        for content in contents:
            if content != self._current_contents(numbers, content.place, content.records):
                return None
        return decode_or_none(hint, item.get("answer"))

    def store(self, numbers: Numbers, question: str, answer: object) -> None:
        """Keep an answer, together with the hashes of the records that were read so far."""
        entry = self._entry(numbers)
        if entry is None or len(entry.answers) >= MAX_ANSWERS_PER_SUBJECT:
            return
        contents = list[_Contents]()
        for place, number in enumerate(numbers):
            if number not in self._dependencies:
                continue
            records = tuple(sorted(self._dependencies[number]))
            content = self._current_contents(numbers, place, records)
            if content is None:
                return
            contents.append(content)
        if isinstance(answer, Accepted):
            self._running.update(self._subjects(numbers))
        entry.answers[question] = {"answer": encode(answer), "contents": encode(contents)}
        entry.changed = True

    def add_dependency(self, number: int, records: Records) -> None:
        """Note that the worker has read these records of a model; no names stand for all."""
        earlier = self._dependencies.get(number)
        if earlier is None:
            self._dependencies[number] = frozenset(records)
        elif earlier and records:
            self._dependencies[number] = earlier.union(records)
        else:
            self._dependencies[number] = frozenset()

    def discard(self) -> None:
        """Store nothing at the end: an answer may not hold for the key that it would have."""
        self._discarded = True

    def save(self) -> None:
        """Write the new answers to the cache, except some that may be different next time.

        The worker opened each file after its fingerprint was taken, so a file that has changed
        since then may not be the file that the answers are about. A model that ran with no input
        may have failed for a reason that is not in its file.
        """
        if self._discarded:
            return
        changed = self._changed_subjects()
        new = dict[tuple[str, ...], _Entry]()
        for key, entry in self._entries.items():
            if entry.changed and changed.isdisjoint(key) and self._running.issuperset(key):
                new[key] = entry
        if new:
            self._cache.make_room()
        identities = set[str]()
        for key, entry in new.items():
            self._cache.put(key, {**self._stored_answers(key), **entry.answers})
            identities.update(subject.partition(" ")[0] for subject in key)
        for identity in identities:
            self._cache.put(("seen", identity), True)

    def _changed_subjects(self) -> set[str]:
        """Return the models whose files changed after they were fingerprinted."""
        changed = set[str]()
        for model in self._models:
            if model.subject is None:
                continue
            path = model.request.path
            if stat_key(path) != self._stamps.get(path):
                changed.add(model.subject)
        return changed

    def _subject(self, request: OpenRequest) -> str | None:
        """Return the content of a model and how it is opened, as one text.

        Trusted code may do something else each time, so it has no cached answers.
        """
        if request.imports or request.trusted or request.kind.traits.runs_user_code:
            return None
        identity = self._fingerprint(request.path)
        if identity is None:
            return None
        # A checkpoint may have several modules.
        entry = repr(request.key)
        manner = (request.device, request.training, self._confinement, entry)
        return " ".join((identity, *manner, *sorted(request.allowed_ops)))

    def _fingerprint(self, path: str) -> str | None:
        """Return the fingerprint of a file, which is computed once for each command."""
        if path not in self._fingerprints:
            self._stamps[path] = stat_key(path)
            self._fingerprints[path] = fingerprint(path)
        return self._fingerprints[path]

    def _entry(self, numbers: Numbers) -> _Entry | None:
        """Return the cached answers about these models; None if one cannot be fingerprinted."""
        key = tuple(self._subjects(numbers))
        if len(key) < len(numbers):
            return None
        if key not in self._entries:
            stored = self._stored_answers(key)
            self._entries[key] = _Entry(stored)
            if stored:
                self._running.update(key)
        return self._entries[key]

    def _subjects(self, numbers: Numbers) -> Iterator[str]:
        """Yield the keys of the models that can be fingerprinted."""
        for number in numbers:
            subject = self._models[number].subject
            if subject is not None:
                yield subject

    def _stored_answers(self, key: tuple[str, ...]) -> dict[str, Any]:
        """Return the answers on disk; none if the entry is missing or damaged."""
        stored = self._cache.get(key)
        if isinstance(stored, dict):
            return stored
        return {}

    def _current_contents(self, numbers: Numbers, place: int, records: Records) -> _Contents | None:
        """Return the hash of these records now; None if there is no such place or record."""
        if not 0 <= place < len(numbers):
            return None
        path = self._models[numbers[place]].request.path
        if (path, records) not in self._hashes:
            self._hashes[path, records] = hash_records(path, records)
        sha256 = self._hashes[path, records]
        if sha256 is None:
            return None
        return _Contents(place, records, sha256)


def decode_or_none(hint: Any, data: Any) -> Any:
    """Return the value of type `hint`; None if there is no data or it is another value."""
    if data is None:
        return None
    try:
        return decode(hint, data)
    except NotAMessage:
        return None
