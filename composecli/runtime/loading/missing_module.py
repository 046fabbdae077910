"""Modules of Python that an import does not find: the folders nearby that have them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from composecli.core.errors import Remedy
from composecli.core.model_ref import FactoryReference, Reference

MAX_FOLDERS = 200
MAX_DEPTH = 2
MAX_PARENTS = 3


def import_remedies(name: str | None, reference: Reference) -> tuple[Remedy, ...]:
    """Return the remedy that adds the folder of a missing module to those that are searched.

    The folders below the current one, below those of the model and of the factory, and around
    them, are searched for the module or for its package. `name` is its dotted name.
    """
    if not name:
        return ()
    top = name.partition(".")[0]
    for folder in _folders(reference):
        if _has_module(folder, top):
            effect = f"finds {top} in {folder}"
            return (Remedy(("--import", folder), effect=effect),)
    return ()


def _has_module(folder: str, name: str) -> bool:
    """Return whether a folder has a module or a package of this name."""
    path = os.path.join(folder, name)
    if os.path.isfile(f"{path}.py"):
        return True
    try:
        return any(entry.endswith(".py") for entry in os.listdir(path))
    except OSError:
        return False


def _folders(reference: Reference) -> Iterator[str]:
    """Yield the folders to search, as a command names them."""
    starts = ["."]
    if reference.path is not None:
        starts.append(os.path.dirname(reference.path) or ".")
    if isinstance(reference, FactoryReference) and reference.module.endswith(".py"):
        starts.append(os.path.dirname(reference.module) or ".")
    count = 0
    for start in dict.fromkeys(starts):
        for folder in _below(start, MAX_DEPTH):
            count += 1
            if count > MAX_FOLDERS:
                return
            yield folder
    for start in dict.fromkeys(starts):
        parent = start
        for _ in range(MAX_PARENTS):
            parent = os.path.join(parent, os.pardir)
            yield os.path.relpath(parent)


def _below(start: str, depth: int) -> Iterator[str]:
    """Yield a folder and those below it, without the hidden ones."""
    yield start
    if depth == 0:
        return
    try:
        names = sorted(os.listdir(start))
    except OSError:
        return
    for name in names:
        path = os.path.normpath(os.path.join(start, name))
        if not name.startswith((".", "__")) and os.path.isdir(path):
            yield from _below(path, depth - 1)
