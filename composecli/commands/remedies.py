"""Remedies: the commands that a problem suggests, written out for the command that the user ran."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from composecli.commands.references import locate
from composecli.commands.requests import ModelsRequest
from composecli.commands.trust import parse_trust
from composecli.core.command_line import pairs_of
from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.model_ref import FactoryReference, parse_reference
from composecli.files.source_code import files_that_define_ops, folders_near

_GIVEN_ONCE = ("--key", "--device", "--training")


@contextmanager
def remedies_written_out(request: ModelsRequest) -> Iterator[None]:
    """Turn the remedies of a problem that the block raises into commands that can be run."""
    try:
        yield
    except CouldNotAttempt as failure:
        failure.problem = with_commands(failure.problem, request)
        raise


def with_commands(problem: Problem, request: ModelsRequest) -> Problem:
    """Return the problem with the command line of each remedy, each of them once."""
    remedies = dict[str, Remedy]()
    for remedy in problem.remedies:
        if not _means_what_it_says(remedy):
            continue
        command = _command(remedy, problem.where, request)
        remedies.setdefault(command, replace(remedy, command=command))
    return replace(problem, remedies=tuple(remedies.values()))


def _means_what_it_says(remedy: Remedy) -> bool:
    """Return whether the words of a remedy lead back to what it names, whatever files are called.

    A file may be called as a factory is written, or as a trusted file with its hash.
    """
    reference = parse_reference(remedy.model)
    if isinstance(reference, FactoryReference) and os.path.lexists(remedy.model):
        return False
    for name, value in pairs_of(remedy.words):
        if name == "--trust" and parse_trust(value).path != value:
            return False
    return True


def _command(remedy: Remedy, where: str | None, request: ModelsRequest) -> str:
    """Return the command of the request, changed as the remedy says."""
    models = list[str]()
    for model in request.models:
        if remedy.model and _is_at(model, where):
            models.append(remedy.model)
        else:
            models.append(model)
    words = _all_words(request.options.words, _with_files(remedy.words, where))
    return request.retry(tuple(models), words)


def _is_at(model: str, where: str | None) -> bool:
    """Return whether a MODEL argument, or the file that it names, is the place of a problem."""
    return where in (model, locate(model).path)


def _with_files(words: tuple[str, ...], where: str | None) -> tuple[str, ...]:
    """Return the options with files near the model in place of libraries that register ops.

    The worker may not see these files: it names a library by the namespace of its ops.
    """
    located = list[str]()
    for name, value in pairs_of(words):
        if name == "--import":
            file = next(files_that_define_ops(value, folders_near(where)), value)
            located += [name, file]
        else:
            located += [name, value]
    return tuple(located)


def _all_words(given: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    """Return the options, pairs of a name and a value, with new ones behind those that were given.

    One that can be given only once replaces what was given.
    """
    pairs = pairs_of(given)
    for name, value in pairs_of(new):
        if name in _GIVEN_ONCE:
            pairs = [pair for pair in pairs if pair[0] != name]
        if (name, value) not in pairs:
            pairs.append((name, value))
    return tuple(word for pair in pairs for word in pair)
