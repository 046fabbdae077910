"""Remedies: the commands that a problem suggests, written out for the command that the user ran."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from composecli.commands.requests import ModelsRequest
from composecli.commands.resolve import locate
from composecli.core.errors import CouldNotAttempt, Problem, Remedy


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
        command = _command(remedy, problem.where, request)
        remedies.setdefault(command, replace(remedy, command=command))
    return replace(problem, remedies=tuple(remedies.values()))


def _command(remedy: Remedy, where: str | None, request: ModelsRequest) -> str:
    """Return the command of the request, changed as the remedy says."""
    models = list[str]()
    for model in request.models:
        if remedy.model and _is_at(model, where):
            models.append(remedy.model)
        else:
            models.append(model)
    return request.retry(tuple(models), *_new_words(remedy.words, request.options.words))


def _is_at(model: str, where: str | None) -> bool:
    """Return whether a MODEL argument, or the file that it names, is the place of a problem."""
    return where in (model, locate(model).path)


def _new_words(words: tuple[str, ...], given: tuple[str, ...]) -> list[str]:
    """Return the options, pairs of a name and a value, that the command does not have yet."""
    pairs = list(zip(given[::2], given[1::2], strict=True))
    new = list[str]()
    for pair in zip(words[::2], words[1::2], strict=True):
        if pair not in pairs:
            new += pair
    return new
