"""Admission: a model's file, judged once more before anything loads it.

What is loaded is what was judged, whatever becomes of the file: the members of the archive that hold no tensors are
read once and kept; where a file is loaded as a whole, it is copied first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import ModelKind
from composecli.core.rules import Rule
from composecli.files.archive import Archive, NotAnArchive
from composecli.files.private_copy import copy_privately, digest
from composecli.files.safety.refusals import damaged, of_program
from composecli.files.sniff import ModelFile, Sniffed, WeightsFile, sniff, sniff_archive
from composecli.runtime.loading.torchscript_scan import unsafe_ops
from composecli.runtime.model import could_not_load
from composecli.workers.protocol import OpenRequest


@contextmanager
def admitted(request: OpenRequest) -> Iterator[Archive]:
    """The archive, where it may be loaded. Its tensors are not read.

    Raises:
        CouldNotAttempt: it is damaged, another kind of file than it was, or holds what is not trusted.
    """
    path = request.reference.path
    try:
        archive = Archive(Path(path))
    except OSError as error:
        raise _unreadable(path, error) from error
    except NotAnArchive as error:
        raise CouldNotAttempt(damaged(path, str(error))) from error
    with archive:
        found = sniff_archive(path, os.stat(archive.fileno()).st_size, archive)
        problem = _problem(request, found, archive)
        if problem is not None:
            raise CouldNotAttempt(problem)
        try:
            yield archive
        except NotAnArchive as error:
            raise CouldNotAttempt(damaged(path, str(error))) from error


@contextmanager
def admitted_whole(request: OpenRequest) -> Iterator[Path]:
    """A private copy of the whole file, where it may be loaded.

    Raises:
        CouldNotAttempt: as for `admitted`, or it is not the file that is trusted.
    """
    path = request.reference.path
    with _copied(path) as copy:
        problem = _pinned(request, copy) or _problem_of_copy(request, copy)
        if problem is not None:
            raise CouldNotAttempt(_named(problem, str(copy), path))
        yield copy


@contextmanager
def _copied(path: str) -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(copy_privately(path))
        except OSError as error:
            raise _unreadable(path, error) from error
        yield copy


def _unreadable(path: str, error: OSError) -> CouldNotAttempt:
    title = f"cannot read the file: {error.strerror or error}"
    return CouldNotAttempt(
        Problem(Rule.NO_SUCH_FILE, title, path, help=("check the path, and the limits here",))
    )


def _pinned(request: OpenRequest, copy: Path) -> Problem | None:
    found = digest(copy) if request.sha256 is not None else None
    if found == request.sha256:
        return None
    return Problem(
        Rule.NOT_THE_FILE_THAT_IS_TRUSTED, "the file is not the one that is trusted", str(copy),
        (f"trusted  sha256:{request.sha256}", f"found    sha256:{found}"),
    )  # fmt: skip


def _problem_of_copy(request: OpenRequest, copy: Path) -> Problem | None:
    try:
        with Archive(copy) as archive:
            return _problem(request, sniff(str(copy)), archive)
    except NotAnArchive:
        return _problem(request, sniff(str(copy)), None)


def _problem(request: OpenRequest, found: Sniffed, archive: Archive | None) -> Problem | None:
    if isinstance(found, Problem):
        return found
    if request.kind is not (ModelKind.FACTORY if isinstance(found, WeightsFile) else found.kind):
        return Problem(
            Rule.FILE_CHANGED, "the file became another while it was read", request.reference.name
        )
    if request.trusted:
        return None
    if isinstance(found, WeightsFile):
        return found.refusal()
    return found.refusal(frozenset(request.allowed_ops)) or _unsafe_code(request, found, archive)


def _unsafe_code(request: OpenRequest, file: ModelFile, archive: Archive | None) -> Problem | None:
    if file.kind is not ModelKind.TORCHSCRIPT or archive is None:
        return None
    also = frozenset(request.allowed_ops)
    try:
        found = tuple(unsafe_ops(archive, also))
    except RuntimeError as error:
        raise could_not_load(request, error) from error
    return of_program(file.path, str(file.kind), found, also)


def _named(problem: Problem, copy: str, path: str) -> Problem:
    """The problem with the path that the user knows."""
    notes = tuple(note.replace(copy, path) for note in problem.notes)
    help = tuple(line.replace(copy, path) for line in problem.help)
    where = path if problem.where == copy else problem.where
    return replace(problem, where=where, notes=notes, help=help)
