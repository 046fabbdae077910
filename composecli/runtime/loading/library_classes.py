"""The classes of libraries that the user trusts by name, as PyTorch's restricted unpickler needs.

A library is found where packages are installed, never in the current folder or beside a model. A
class is looked up in the modules of the library that its policy names; of these, a file may have
one imported that the library itself has not imported yet.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import importlib.metadata
import os
import sys
import types
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.files.library_classes import (
    FUNCTIONS,
    PARTIAL,
    Libraries,
    is_granted,
    library_of,
)
from composecli.files.library_policies import POLICIES, LibraryPolicy
from composecli.files.pickle import Constructed, Global, reachable
from composecli.runtime.error_text import telling_line
from composecli.workers.protocol import OpenRequest

# What would run when an empty object of a class is made, gets its state, or is freed.
_RUN_WHEN_MADE = ("__new__", "__setstate__", "__reduce__", "__reduce_ex__", "__del__")
# PyTorch asks an object that is no module whether it has a method to set its state.
_RUN_WHEN_ASKED = ("__getattr__",)
# Where classes are from whose methods of these names do as they say.
_HARMLESS = ("torch.nn.modules", "builtins", "typing", "abc")

# The name of the file of code that `collections.namedtuple` evaluates.
_WRITTEN_BY_PYTHON = "<string>"

# A class or function, and the name that pickles have for it.
Named = tuple[Any, str]


def granted_globals(request: OpenRequest, node: object) -> list[Named]:
    """Return the classes and functions of a part of a pickle that torch.nn does not have, by name.

    A file that is trusted as a whole needs none.

    Raises:
        CouldNotAttempt: if a library is not installed, or a name is not one of its module classes.
    """
    if request.trusted or not request.libraries:
        return []
    part = reachable(node)
    called = {made.function for made in part.constructed if not made.is_new and _is_named(made)}
    granted = list[Named]()
    for name in part.imports:
        if not is_granted(name, request.libraries):
            continue
        try:
            granted.append((_resolve(name, request.libraries, is_called=name in called), str(name)))
        except _NotGranted as error:
            raise _refused(request, name, str(error)) from error
    return granted


def _is_named(constructed: Constructed) -> bool:
    return isinstance(constructed.function, Global)


def import_early(libraries: Libraries) -> None:
    """Import libraries while everything can be read; one that fails is reported when it is used."""
    for name in libraries:
        with contextlib.suppress(_NotGranted):
            _import_library(name)
            for module in POLICIES[name].imported:
                _import_module(module, name)


class _NotGranted(Exception):
    """A name is not one that the library vouches for. The message is for the user."""


def _resolve(name: Global, libraries: Libraries, *, is_called: bool) -> Any:
    """Return the class or function that a name stands for.

    Raises:
        _NotGranted: if it is neither a module class, nor an enum, nor on the list of functions.
    """
    if name == PARTIAL:
        return partial
    if str(name) in FUNCTIONS:
        return getattr(nn.functional, name.name)
    library = library_of(name, libraries)
    assert library is not None
    policy = POLICIES[library]
    _import_library(library)
    found = getattr(_import_module(name.module, library), name.name, None)
    if policy.has_function(str(name)) and isinstance(found, types.FunctionType) and not is_called:
        return found
    if not isinstance(found, type) or not _is_of(found, library):
        raise _NotGranted(f"{library} has no such class")
    if is_called:
        return _checked_enum(found)
    if policy.has_tuple(str(name)):
        return _checked_tuple(found)
    return _checked_class(found, name, policy)


def _is_of(kind: type, library: str) -> bool:
    """Return whether a class is defined in a library, and not only imported there."""
    return f"{kind.__module__}.".startswith(f"{library}.")


def _checked_enum(kind: type) -> type:
    """Return an enum whose members are found by their values, without code of its own.

    Raises:
        _NotGranted: if it is anything else.
    """
    finds_itself = any("_missing_" in vars(base) for base in kind.__mro__ if base is not enum.Enum)
    if issubclass(kind, enum.Enum) and not finds_itself:
        return kind
    raise _NotGranted("a class would be called that is not an enum")


def _checked_tuple(kind: type) -> type:
    """Return a named tuple, which is made of its values by code that Python wrote.

    Raises:
        _NotGranted: if it is anything else.
    """
    code = getattr(kind.__new__, "__code__", None)
    is_written = isinstance(code, types.CodeType) and code.co_filename == _WRITTEN_BY_PYTHON
    if kind.__bases__ == (tuple,) and hasattr(kind, "_fields") and is_written:
        return kind
    raise _NotGranted("it is not a named tuple")


def _checked_class(kind: type, name: Global, policy: LibraryPolicy) -> type:
    """Return a module class, an enum, or a listed class that runs nothing when it is made empty.

    Raises:
        _NotGranted: if it is anything else.
    """
    if issubclass(kind, enum.Enum):
        return kind
    forbidden: tuple[str, ...] = _RUN_WHEN_MADE
    if not issubclass(kind, nn.Module):
        forbidden = (*forbidden, *_RUN_WHEN_ASKED)
        if not policy.has_data(str(name)):
            raise _NotGranted("it is not a module class")
    for base in kind.__mro__:
        if base.__module__.startswith(_HARMLESS):
            continue
        for method in forbidden:
            full = f"{base.__module__}.{base.__qualname__}.{method}"
            if method in vars(base) and full not in policy.vouched:
                raise _NotGranted(f"it defines {method}")
    return kind


def _import_module(name: str, library: str) -> types.ModuleType:
    """Return a module of a library that is imported, and import it if it is not yet.

    Raises:
        _NotGranted: if it cannot be imported, or lies elsewhere.
    """
    if name in sys.modules:
        return sys.modules[name]
    home = os.path.dirname(os.path.realpath(sys.modules[library].__file__ or ""))
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _NotGranted(f"{name} cannot be imported: {telling_line(error)}") from error
    place = os.path.realpath(module.__file__ or "")
    if not place.startswith(home + os.sep):
        raise _NotGranted(f"{name} is not in the folder of {library}")
    return module


def _import_library(name: str) -> types.ModuleType:
    """Import an installed library.

    Raises:
        _NotGranted: if it is not installed, or another module has its name.
    """
    folders = list(_installed_folders())
    distribution = POLICIES[name].distribution or name
    found = list(importlib.metadata.distributions(name=distribution, path=folders))
    if not found:
        raise _NotGranted(f"{name} is not installed")
    homes = [os.path.realpath(str(item.locate_file(name))) for item in found]
    searched = list(sys.path)
    sys.path[:] = folders
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _NotGranted(f"{name} cannot be imported: {telling_line(error)}") from error
    finally:
        sys.path[:] = searched
    place = os.path.realpath(os.path.dirname(module.__file__ or ""))
    if place not in homes:
        raise _NotGranted(f"another module has the name {name}")
    return module


def _installed_folders() -> Iterator[str]:
    """Yield the folders of `sys.path` that do not depend on where a command is run."""
    here = os.path.realpath(os.curdir)
    for path in sys.path:
        if os.path.isabs(path) and os.path.realpath(path) != here:
            yield path


def _refused(request: OpenRequest, name: Global, reason: str) -> CouldNotAttempt:
    """Return the error for a name that is not granted."""
    title = "the pickle needs more than the classes of a library"
    problem = Problem(Rule.IMPORTS_NOT_TRUSTED, title, request.path, (f"{name}: {reason}",))
    return CouldNotAttempt(problem)
