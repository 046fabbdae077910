"""Admission: a model's file is checked again, right before it is loaded.

The bytes that were checked are the bytes that are loaded, whatever happens to the file. The members
of an archive that hold no tensors are read once and cached. A file that is loaded whole is copied
first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.model_ref import ModelKind
from composecli.core.rules import Rule
from composecli.files.archive import Archive, NotAnArchive
from composecli.files.checkpoint_entries import Selector
from composecli.files.members import Members, open_members
from composecli.files.private_copy import copy_privately, digest
from composecli.files.safety.refusals import Reason, damaged, of_program
from composecli.files.sniff import ModelFile, Sniffed, WeightsFile, sniff, sniff_members
from composecli.runtime.loading.extensions import NotRegistered, not_registered
from composecli.runtime.model import could_not_load
from composecli.workers.protocol import OpenRequest

# Reports the unsafe content of an archive, given the ops that are allowed by name. Raises
# RuntimeError if it cannot tell.
Scan = Callable[[Archive, frozenset[str]], Iterable[Reason]]


def no_scan(_archive: Archive, _allowed_ops: frozenset[str]) -> tuple[Reason, ...]:
    """Report nothing: `files.sniff` checks all that a file of this kind can run."""
    return ()


@contextmanager
def admit(request: OpenRequest, scan: Scan) -> Iterator[Archive]:
    """Open the archive if it may be loaded. Its tensors are not read.

    Raises:
        CouldNotAttempt: if the file is damaged, has changed its kind, or contains anything that is
            not trusted.
    """
    with admit_members(request, scan) as members:
        # Only checkpoints come in another format, too.
        assert isinstance(members, Archive)
        yield members


@contextmanager
def admit_members(request: OpenRequest, scan: Scan = no_scan) -> Iterator[Members]:
    """Open a file of any format if it may be loaded. Its tensors are not read.

    Raises:
        CouldNotAttempt: as for `admit`.
    """
    path = request.path
    try:
        members = open_members(Path(path))
    except OSError as error:
        raise _unreadable(path, error) from error
    except NotAnArchive as error:
        raise CouldNotAttempt(damaged(path, str(error))) from error
    with members:
        nbytes = os.stat(members.fileno()).st_size
        sniffed = sniff_members(path, nbytes, members, selector(request))
        problem = _problem(request, sniffed, members, scan)
        if problem is not None:
            raise CouldNotAttempt(problem)
        try:
            yield members
        except NotAnArchive as error:
            raise CouldNotAttempt(damaged(path, str(error))) from error


def selector(request: OpenRequest) -> Selector:
    """Return which entry of a checkpoint a request means.

    A trusted file is not limited to the classes of libraries.
    """
    is_factory = request.kind is ModelKind.FACTORY
    libraries = request.libraries
    if request.trusted:
        libraries = ()
    return Selector(request.key, weights=is_factory, libraries=libraries)


@contextmanager
def admit_copy(request: OpenRequest, scan: Scan) -> Iterator[Path]:
    """Make a private copy of the whole file if it may be loaded.

    Raises:
        CouldNotAttempt: as for `admit`, or if the file does not have the hash that is trusted.
    """
    path = request.path
    with _copy(path) as copy:
        problem = None
        if request.sha256 is not None:
            problem = hash_problem(request, digest(copy))
        if problem is None:
            problem = _problem_of_copy(request, copy, scan)
        if problem is not None:
            shown = _with_path(problem, str(copy), path)
            raise CouldNotAttempt(shown)
        yield copy


@contextmanager
def _copy(path: str) -> Iterator[Path]:
    """Copy a file for the block; only errors of the copying itself become a problem to report."""
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(copy_privately(path))
        except OSError as error:
            raise _unreadable(path, error) from error
        yield copy


def _unreadable(path: str, error: OSError) -> CouldNotAttempt:
    """Return the error for a file that the system does not open, in the system's words."""
    reason = error.strerror or error
    title = f"cannot read the file: {reason}"
    help = ("check the path and the limits of this system",)
    problem = Problem(Rule.NO_SUCH_FILE, title, path, help=help)
    return CouldNotAttempt(problem)


def hash_problem(request: OpenRequest, actual: str) -> Problem | None:
    """Return the problem if the SHA-256 of a file is not the one that the request trusts."""
    if request.sha256 in (None, actual):
        return None
    title = "the file is not the one that is trusted"
    notes = (f"trusted  sha256:{request.sha256}", f"found    sha256:{actual}")
    return Problem(Rule.NOT_THE_FILE_THAT_IS_TRUSTED, title, request.path, notes)


def _problem_of_copy(request: OpenRequest, copy: Path, scan: Scan) -> Problem | None:
    """Return the reason not to load a copy, which need not be an archive."""
    sniffed = sniff(str(copy), selector(request))
    try:
        with open_members(copy) as members:
            return _problem(request, sniffed, members, scan)
    except NotAnArchive:
        return _problem(request, sniffed, None, scan)


def _problem(
    request: OpenRequest, sniffed: Sniffed, members: Members | None, scan: Scan
) -> Problem | None:
    """Return the reason not to load a file: its kind, its content by name, or its code."""
    if isinstance(sniffed, Problem):
        return sniffed
    kind = ModelKind.FACTORY
    if not isinstance(sniffed, WeightsFile):
        kind = sniffed.kind
    if request.kind is not kind:
        title = "the file changed while it was being read"
        return Problem(Rule.FILE_CHANGED, title, request.reference.name)
    if request.trusted or isinstance(sniffed, WeightsFile):
        return None
    allowed_ops = frozenset(request.allowed_ops)
    refusal = sniffed.refusal(allowed_ops, imports=bool(request.imports))
    if refusal is not None:
        return refusal
    return _scan_problem(request, sniffed, members, scan)


def _scan_problem(
    request: OpenRequest, file: ModelFile, members: Members | None, scan: Scan
) -> Problem | None:
    """Return the problem that lists the findings of the scan, None if there are none."""
    if members is None:
        return damaged(file.path, "it cannot be opened as an archive")
    if not isinstance(members, Archive):
        return None
    allowed_ops = frozenset(request.allowed_ops)
    try:
        reasons = tuple(scan(members, allowed_ops))
    except NotRegistered as error:
        raise not_registered(request, error) from error
    except RuntimeError as error:
        raise could_not_load(request, error) from error
    except NotAnArchive as error:
        return damaged(file.path, str(error))
    return of_program(file.path, str(file.kind), reasons, allowed_ops)


def _with_path(problem: Problem, copy: str, path: str) -> Problem:
    """Return the problem with the path that the user knows in place of the copy's."""
    notes = tuple(note.replace(copy, path) for note in problem.notes)
    help = tuple(line.replace(copy, path) for line in problem.help)
    where = problem.where
    if where == copy:
        where = path
    remedies = tuple(_remedy_with_path(remedy, copy, path) for remedy in problem.remedies)
    return replace(problem, where=where, notes=notes, help=help, remedies=remedies)


def _remedy_with_path(remedy: Remedy, copy: str, path: str) -> Remedy:
    """Return the remedy with the path that the user knows in place of the copy's."""
    words = tuple(word.replace(copy, path) for word in remedy.words)
    model = remedy.model.replace(copy, path)
    return replace(remedy, words=words, model=model)
