"""Remedies for files that need code: trust the file, or name the code that is on this machine.

The code near a file is only read here, to find the name of a class. A remedy that would run a
file of it says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from composecli.core.errors import Remedy
from composecli.files.checkpoint import Checkpoint, FoundModule
from composecli.files.pickled_module import PickledClass
from composecli.files.source_code import (
    ClassSource,
    classes_in,
    find_classes,
    folders_near,
    python_files,
)

MAX_CLASSES = 3
MAX_MODULES = 6
TRUST_EFFECT = "runs its code, so use this only if you know where the file comes from"
# Prefixes that wrappers put before all names in a state dict.
_PREFIXES = ("module", "_orig_mod", "model", "net")


def trust(path: str) -> Remedy:
    """Return the remedy that runs whatever a file contains."""
    return Remedy(("--trust", path), effect=TRUST_EFFECT)


def for_checkpoint(path: str, checkpoint: Checkpoint) -> tuple[Remedy, ...]:
    """Return the remedies for a pickle that imports code: its class by name, or trust."""
    own = list[Remedy]()
    if checkpoint.libraries:
        words = [word for name in checkpoint.libraries for word in ("--trust-classes", name)]
        names = " and ".join(checkpoint.libraries)
        own.append(Remedy(tuple(words), effect=f"imports {names}, and runs no code of the file"))
    if checkpoint.pickled is not None:
        own += for_class(path, checkpoint.pickled)
    imports = _imports_of_script(path, checkpoint.script_names)
    is_complete = len(imports) == len(checkpoint.script_names)
    if not is_complete and checkpoint.pickled is not None:
        return tuple(own)
    words = ["--trust", path]
    for file in dict.fromkeys(imports):
        words += ["--import", file]
    return (*own, Remedy(tuple(words), effect=TRUST_EFFECT))


def for_class(path: str, pickled: PickledClass) -> Iterator[Remedy]:
    """Yield the remedies that build a pickled module by its class, and read the pickle as data."""
    settings = dict(pickled.settings)
    for source, module, words in _sources(path, pickled):
        call = source.call(settings)
        if call is not None:
            model = f"{module}:{source.name}{call}@{path}"
            effect = f"runs {source.path}, and reads the pickle without running it"
            yield Remedy(words, model, effect)


def for_modules(path: str, checkpoint: Checkpoint) -> tuple[Remedy, ...]:
    """Return the remedies for a file with several modules: one for each of the first of them."""
    return tuple(_for_module(path, module) for module in checkpoint.modules[:MAX_MODULES])


def _for_module(path: str, module: FoundModule) -> Remedy:
    """Return the remedy that takes one of several modules, by its class if that is found here."""
    key = ("--key", module.key)
    if module.pickled is not None:
        for remedy in for_class(path, module.pickled):
            return replace(remedy, words=(*remedy.words, *key))
    return Remedy(key)


def for_weights(path: str, keys: tuple[str, ...]) -> tuple[Remedy, ...]:
    """Return the remedies that build the module of a state dict by a class that has its names."""
    first_names = set[str]()
    for key in keys:
        names = [name for name in key.split(".") if name not in _PREFIXES]
        first_names.update(names[:1])
    remedies = list[Remedy]()
    if not first_names:
        return ()
    for file in python_files(folders_near(path)):
        for source in classes_in(file):
            call = source.call({})
            if call is not None and source.is_module and first_names <= source.attributes:
                effect = f"runs {file}, and reads the weights as data"
                remedies.append(Remedy(model=f"{file}:{source.name}{call}@{path}", effect=effect))
    return tuple(remedies[:MAX_CLASSES])


def _sources(
    path: str, pickled: PickledClass
) -> Iterator[tuple[ClassSource, str, tuple[str, ...]]]:
    """Yield the classes that may be the pickled one, how to name their modules, and options.

    These are the classes of its name in the module that the pickle names. If there is no such
    module, they are those in the files near the pickle.
    """
    folders = folders_near(path)
    parts = pickled.module.split(".")
    found = False
    for folder in folders:
        inner = os.path.join(folder, *parts)
        for file in (f"{inner}.py", os.path.join(inner, "__init__.py")):
            for source in classes_in(file):
                if source.name == pickled.name:
                    found = True
                    yield source, *_name_of_module(file, folder, pickled.module)
    if found:
        return
    for source in find_classes(pickled.name, folders):
        yield source, source.path, ()


def _name_of_module(file: str, folder: str, module: str) -> tuple[str, tuple[str, ...]]:
    """Return how a command names a module, and the options that it needs to be found.

    A module of a package goes by its dotted name, because it may import its neighbours.
    """
    if "." not in module and not file.endswith("__init__.py"):
        return file, ()
    if not folder:
        return module, ()
    return module, ("--import", folder)


def _imports_of_script(path: str, names: tuple[str, ...]) -> list[str]:
    """Return for each class of a script the first file near the pickle that defines it."""
    files = list[str]()
    folders = folders_near(path)
    for name in names:
        source = next(find_classes(name, folders), None)
        if source is not None:
            files.append(source.path)
    return files
