"""Near misses: MODEL arguments that name no model, and models that may have been meant."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import replace

from composecli.core.errors import Problem, Remedy
from composecli.core.model_ref import FileReference, Reference
from composecli.core.rules import Rule
from composecli.files.source_code import classes_in

MAX_SUGGESTED = 3
MAX_NAMES = 10_000
_SUFFIXES = (".pt", ".pth", ".pt2", ".bin", ".ckpt", ".safetensors", ".index.json")


def with_near_misses(problem: Problem, reference: Reference) -> Problem:
    """Return a problem of the file of a reference, with the MODEL arguments that may be meant."""
    near = tuple(_remedies(problem, reference))[:MAX_SUGGESTED]
    return replace(problem, remedies=(*problem.remedies, *near))


def _remedies(problem: Problem, reference: Reference) -> Iterator[Remedy]:
    """Yield files with a similar name or in a folder, and the classes of a Python file."""
    assert reference.path is not None
    if problem.rule is Rule.NOT_A_REGULAR_FILE:
        for path in _models_in(reference.path):
            yield Remedy(model=replace(reference, path=path).name)
    if isinstance(reference, FileReference) and reference.path.endswith(".py"):
        yield from _classes(reference.path)
    if problem.rule is not Rule.NO_SUCH_FILE or os.path.exists(reference.path):
        return
    if isinstance(reference, FileReference):
        yield from _factory(reference.path)
    for path in _similar_files(reference.path):
        yield Remedy(model=replace(reference, path=path).name)


def _classes(file: str) -> Iterator[Remedy]:
    """Yield the module classes of a Python file that can be made without arguments."""
    for source in classes_in(file):
        if source.is_module and source.call({}) is not None:
            yield Remedy(model=f"{file}:{source.name}", effect=f"runs {file}")


def _factory(text: str) -> Iterator[Remedy]:
    """Yield a factory whose file was written without its suffix: `code/net:make@w.pt`."""
    module, colon, rest = text.partition(":")
    if colon and os.path.isfile(f"{module}.py"):
        yield Remedy(model=f"{module}.py:{rest}", effect=f"runs {module}.py")


def _models_in(folder: str) -> Iterator[str]:
    """Yield the files in a folder that are named as models are, by their names."""
    try:
        entries = sorted(os.listdir(folder)[:MAX_NAMES])
    except OSError:
        return
    for entry in entries:
        path = os.path.join(folder, entry)
        if entry.endswith(_SUFFIXES) and os.path.isfile(path):
            yield path


def _similar_files(path: str) -> Iterator[str]:
    """Yield the files in the folder of a path that have a similar name, the most similar first."""
    folder, name = os.path.split(path)
    try:
        entries = os.listdir(folder or ".")[:MAX_NAMES]
    except OSError:
        return
    names = [entry for entry in entries if not entry.endswith(".py")]
    for similar in difflib.get_close_matches(name, names, MAX_SUGGESTED):
        found = os.path.join(folder, similar)
        if _are_alike(name, similar) and os.path.isfile(found):
            yield found


def _are_alike(name: str, other: str) -> bool:
    """Return whether two names are alike without their suffixes, which are often the same."""
    stem, other_stem = os.path.splitext(name)[0], os.path.splitext(other)[0]
    return bool(difflib.get_close_matches(stem, [other_stem]))
