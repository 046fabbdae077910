"""Admission: a private copy of a model's file, judged once more before anything loads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from composecli.errors import CouldNotAttempt, Problem
from composecli.files.refusals import of_program
from composecli.files.snapshot import digest, snapshot
from composecli.files.sniff import ModelFile, WeightsFile, sniff
from composecli.files.zip import Archive
from composecli.protocol import ModelKind, OpenRequest
from composecli.worker.model import could_not_load
from composecli.worker.scan import unsafe_ops


@contextmanager
def admitted(request: OpenRequest) -> Iterator[Path]:
    """The copy, where it may be loaded.

    Raises:
        CouldNotAttempt: it is damaged, another kind of file than it was, or holds what is not trusted.
    """
    path = request.reference.path
    with _copied(path) as copy:
        problem = _problem(request, copy)
        if problem is not None:
            raise CouldNotAttempt(_named(problem, str(copy), path))
        yield copy


@contextmanager
def _copied(path: str) -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(snapshot(path))
        except OSError as error:
            title = f"cannot read the file: {error.strerror or error}"
            raise CouldNotAttempt(
                Problem("CC901", title, path, help=("check the path, and the limits here",))
            ) from error
        yield copy


def _problem(request: OpenRequest, copy: Path) -> Problem | None:
    if request.sha256 is not None and digest(copy) != request.sha256:
        return Problem(
            "CC929", "the file is not the one that is trusted", str(copy),
            (f"trusted  sha256:{request.sha256}", f"found    sha256:{digest(copy)}"),
        )  # fmt: skip
    found = sniff(str(copy))
    if isinstance(found, Problem):
        return found
    if request.kind is not (ModelKind.FACTORY if isinstance(found, WeightsFile) else found.kind):
        return Problem("CC928", "the file became another while it was read", request.reference.name)
    if request.trusted:
        return None
    if isinstance(found, WeightsFile):
        return found.refusal()
    return found.refusal(frozenset(request.allowed_ops)) or _unsafe_code(request, found, copy)


def _unsafe_code(request: OpenRequest, file: ModelFile, copy: Path) -> Problem | None:
    if file.kind is not ModelKind.TORCHSCRIPT:
        return None
    also = frozenset(request.allowed_ops)
    with Archive(copy) as archive:
        try:
            found = tuple(unsafe_ops(archive, also))
        except RuntimeError as error:
            raise could_not_load(request, error) from error
    return of_program(str(copy), str(file.kind), found, also)


def _named(problem: Problem, copy: str, path: str) -> Problem:
    """The problem with the path that the user knows."""
    notes = tuple(note.replace(copy, path) for note in problem.notes)
    help = tuple(line.replace(copy, path) for line in problem.help)
    where = path if problem.where == copy else problem.where
    return replace(problem, where=where, notes=notes, help=help)
