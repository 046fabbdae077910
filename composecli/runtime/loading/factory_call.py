"""Calling a factory: a class or function that the user named, which may fail in any way."""

from __future__ import annotations

import copy
import difflib
import inspect
import os
import random
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn

from composecli.core.command_line import one_word
from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.model_ref import FactoryReference, literal_arguments
from composecli.core.rules import Rule
from composecli.files.source_code import defines, folders_near, python_files
from composecli.runtime.error_text import telling_line
from composecli.runtime.loading.missing_module import import_remedies
from composecli.runtime.loading.own_code import import_by_name, import_file

MAX_SUGGESTED = 3
SEED = 0

# Where code is that is not the user's: composecli, Python and its packages, and frozen modules.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_NOT_OWN = (os.path.join(_PACKAGE, ""), sys.prefix, sys.base_prefix, "<")
_FORM = "name a class or function that returns the module: file.py:factory, package.module:factory"
_LOADED = "state_dict, load_state_dict, to and train of the module are called: each must work"


def make_module(reference: FactoryReference) -> nn.Module:
    """Return the module that a factory makes, with the same random initial values each time.

    Raises:
        CouldNotAttempt: if the factory cannot be found or called, or returns no module.
    """
    with _seeded():
        namespace = _import(reference)
    factory = _find(namespace, reference)
    if isinstance(factory, nn.Module):
        return copy.deepcopy(factory)
    # Importing may have drawn numbers, and does so only the first time.
    with _seeded():
        module = _call(factory, namespace, reference)
    if not isinstance(module, nn.Module):
        title = f"the factory returned a {type(module).__name__}, not a module"
        raise _failed(reference, title, remedies=_other_classes(namespace, reference))
    return module


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed the random numbers of torch and Python in the block, and restore them behind it."""
    state = random.getstate()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(SEED)
        random.seed(SEED)
        try:
            yield
        finally:
            random.setstate(state)


def _import(reference: FactoryReference) -> ModuleType:
    """Import the module of a factory, by its path or by its name.

    Raises:
        CouldNotAttempt: if it is missing, or its code fails.
    """
    try:
        if reference.module.endswith(".py"):
            return import_file(reference.module)
        return import_by_name(reference.module)
    except FileNotFoundError as error:
        if os.path.exists(reference.module):
            raise _import_failed(reference, error) from error
        title = f"there is no file {reference.module}"
        remedies = tuple(_other_files(reference))
        raise _failed(reference, title, remedies=remedies) from error
    except ModuleNotFoundError as error:
        if error.name is None or not _is_part(error.name, reference.module):
            raise _import_failed(reference, error) from error
        title = f"there is no module {reference.module}"
        remedies = (*import_remedies(error.name, reference), *_other_files(reference))
        raise _failed(reference, title, (telling_line(error),), remedies) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(reference, error) from error


def _is_part(name: str, module: str) -> bool:
    """Return whether a name is that of a module or of a package around it."""
    return f"{module}.".startswith(f"{name}.")


def _import_failed(reference: FactoryReference, error: BaseException) -> CouldNotAttempt:
    """Return the error for a module whose own code fails when it is imported."""
    title = f"{reference.module} cannot be imported"
    notes = (_described(error), *_place(error))
    help = "put the code of a script below: if __name__ == '__main__':"
    remedies: tuple[Remedy, ...] = ()
    if isinstance(error, ImportError):
        help = "install the missing package, or name the folder that has it: --import FOLDER"
        remedies = (*_by_module_name(reference), *import_remedies(error.name, reference))
    return _failed(reference, title, notes, remedies, help)


def _by_module_name(reference: FactoryReference) -> Iterator[Remedy]:
    """Yield the remedy that names a file of a package by its module: it can import its siblings."""
    folder, name = os.path.split(reference.module)
    parts = [name.removesuffix(".py")]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(os.path.abspath(folder))
        parts.insert(0, package)
    if len(parts) == 1:
        return
    words: tuple[str, ...] = ()
    root = os.path.relpath(folder)
    if root != ".":
        words = ("--import", root)
    module = ".".join(parts)
    model = _renamed(reference, reference.factory, reference.arguments, module)
    yield Remedy(words, model, f"imports {module}")


def _find(namespace: ModuleType, reference: FactoryReference) -> Any:
    """Return the factory in its module.

    Raises:
        CouldNotAttempt: if there is no such name.
    """
    found: Any = namespace
    try:
        for name in reference.factory.split("."):
            found = getattr(found, name)
    except AttributeError as error:
        title = f"{reference.module} has no {reference.factory}"
        own = _callables(namespace)
        notes = [telling_line(error)]
        if own:
            notes.append(f"it defines: {', '.join(own)}")
        close = difflib.get_close_matches(reference.factory, own, MAX_SUGGESTED)
        names = close or [name for name in own if _is_module_class(own[name])]
        remedies = _calls(names, own, reference)
        raise _failed(reference, title, tuple(notes), remedies) from error
    return found


def _call(factory: Any, namespace: ModuleType, reference: FactoryReference) -> Any:
    """Call the factory with the arguments of the reference.

    Raises:
        CouldNotAttempt: if it takes other arguments, or fails.
    """
    positional, named = literal_arguments(reference.arguments)
    try:
        return factory(*positional, **named)
    except (Exception, SystemExit) as error:
        notes = (_described(error), *_place(error))
        remedies = _other_classes(namespace, reference)
        signature = _signature(factory)
        if signature is None or _binds(signature, positional, named):
            title = "the factory could not be run"
            raise _failed(reference, title, notes, remedies) from error
        title = "the factory takes other arguments"
        notes = (_described(error), f"it takes {signature}")
        remedies = (*_renamed_arguments(reference, signature), *remedies)
        help = f"write its arguments as literals: {one_word(_with_arguments(reference, signature))}"
        raise _failed(reference, title, notes, remedies, help) from error


def signature_of(reference: FactoryReference) -> inspect.Signature | None:
    """Return the signature of a factory; None if it has none, or cannot be found."""
    try:
        return _signature(_find(_import(reference), reference))
    except CouldNotAttempt:
        return None


def _signature(factory: Any) -> inspect.Signature | None:
    """Return the signature of a callable; None if it has none that can be read."""
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):
        return None


def _binds(signature: inspect.Signature, positional: tuple[Any, ...], named: Any) -> bool:
    """Return whether a call with these arguments fits a signature."""
    try:
        signature.bind(*positional, **named)
    except TypeError:
        return False
    return True


def _renamed_arguments(
    reference: FactoryReference, signature: inspect.Signature
) -> Iterator[Remedy]:
    """Yield the remedy that names arguments as the factory does, if their names are similar."""
    positional, named = literal_arguments(reference.arguments)
    values = dict[str, Any]()
    for name, value in named.items():
        close = difflib.get_close_matches(name, signature.parameters, 1)
        values[(close or [name])[0]] = value
    if len(values) < len(named) or not _binds(signature, positional, values):
        return
    texts = [repr(value) for value in positional]
    texts += [f"{name}={value!r}" for name, value in values.items()]
    model = _renamed(reference, reference.factory, f"({', '.join(texts)})")
    yield Remedy(model=model, effect="names the arguments as the factory does")


def _with_arguments(reference: FactoryReference, signature: inspect.Signature) -> str:
    """Return the reference with a place for each argument that a call needs."""
    needed = list[str]()
    for parameter in signature.parameters.values():
        is_one = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if is_one and parameter.default is parameter.empty:
            needed.append(f"{parameter.name}=...")
    return _renamed(reference, reference.factory, f"({', '.join(needed)})")


def _callables(namespace: ModuleType) -> dict[str, Any]:
    """Return the classes and functions that a module defines itself, by name."""
    own = dict[str, Any]()
    for name, value in vars(namespace).items():
        is_own = getattr(value, "__module__", None) == namespace.__name__
        if callable(value) and is_own and not name.startswith("_"):
            own[name] = value
    return own


def _is_module_class(value: Any) -> bool:
    """Return whether a value is a class of modules."""
    return isinstance(value, type) and issubclass(value, nn.Module)


def _other_classes(namespace: ModuleType, reference: FactoryReference) -> tuple[Remedy, ...]:
    """Return the remedies that name a module class of the same file, if it needs no arguments."""
    own = _callables(namespace)
    names = [name for name in own if _is_module_class(own[name]) and name != reference.factory]
    return _calls(names, own, reference)


def other_classes(reference: FactoryReference) -> tuple[Remedy, ...]:
    """Return the remedies that name another module class of the module of a factory.

    Raises:
        CouldNotAttempt: if the module cannot be imported.
    """
    return _other_classes(_import(reference), reference)


def _calls(
    names: list[str], own: dict[str, Any], reference: FactoryReference
) -> tuple[Remedy, ...]:
    """Return the remedies that name another factory, if it needs no arguments."""
    remedies = list[Remedy]()
    for name in names:
        signature = _signature(own[name])
        arguments = ""
        if signature is not None and not _binds(signature, (), {}):
            positional, named = literal_arguments(reference.arguments)
            if not reference.arguments or not _binds(signature, positional, named):
                continue
            arguments = reference.arguments
        model = _renamed(reference, name, arguments)
        remedies.append(Remedy(model=model, effect=f"calls {name} of {reference.module}"))
    return tuple(remedies[:MAX_SUGGESTED])


def _other_files(reference: FactoryReference) -> Iterator[Remedy]:
    """Yield the remedies that name a file with a similar name, or of the same name elsewhere."""
    wanted = os.path.basename(reference.module)
    if not wanted.endswith(".py"):
        wanted = f"{wanted.rpartition('.')[2]}.py"
    folders = (os.path.dirname(reference.module), *folders_near(reference.path))
    files = list(python_files(folders))
    names = [os.path.basename(file) for file in files]
    for name in difflib.get_close_matches(wanted, names, MAX_SUGGESTED):
        file = files[names.index(name)]
        if name == wanted or defines(file, reference.factory):
            model = _renamed(reference, reference.factory, reference.arguments, file)
            yield Remedy(model=model, effect=f"runs {file}")


def _renamed(
    reference: FactoryReference, factory: str, arguments: str, module: str | None = None
) -> str:
    """Return the text of a reference to another factory with the same weights."""
    other = FactoryReference(module or reference.module, factory, reference.path, arguments)
    return other.name


def _described(error: BaseException) -> str:
    """Return the class and the message of an error."""
    return f"{type(error).__name__}: {telling_line(error)}"


def _place(error: BaseException) -> tuple[str, ...]:
    """Return the last line of the user's own code that an error passed through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_NOT_OWN):
            name = os.path.basename(frame.filename)
            return (f"at line {frame.lineno} of {name}",)
    return ()


@contextmanager
def failures_of_own_code(reference: FactoryReference) -> Iterator[None]:
    """Turn an error that passed through the user's own code into a problem of the factory.

    A module may have a state dict, hooks and a `train` of its own, and each of them may fail.

    Raises:
        CouldNotAttempt: for such an error.
    """
    try:
        yield
    except CouldNotAttempt:
        raise
    except Exception as error:
        place = _place(error)
        if not place:
            raise
        title = f"the module that the factory made fails: {_described(error)}"
        raise _failed(reference, title, place, help=_LOADED) from error


def _failed(
    reference: FactoryReference,
    title: str,
    notes: tuple[str, ...] = (),
    remedies: tuple[Remedy, ...] = (),
    help: str = _FORM,
) -> CouldNotAttempt:
    """Return the error for a factory; its help shows how one is named on the command line."""
    problem = Problem(Rule.FACTORY_FAILED, title, reference.name, notes, (help,), remedies=remedies)
    return CouldNotAttempt(problem)
