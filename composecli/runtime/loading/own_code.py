"""The user's own code: modules of Python that are imported because the user named them.

Its folders are searched as Python searches those of a script: the current folder, and the folder of
the file that is run. They stay on `sys.path`, because code may import more when it runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import sys
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import torch

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule
from composecli.runtime.error_text import telling_line
from composecli.workers.protocol import OpenRequest

_MAIN = ("__main__", "__mp_main__")
# Files that were run as modules, by their path, with the time of their last change.
_loaded = dict[str, tuple[int, ModuleType]]()


class NoSuchClass(AttributeError):
    """A pickle names a class of the script that wrote it, and no module here has it."""


def add_search_path(*folders: str) -> None:
    """Put folders at the start of `sys.path`, the first one first."""
    for folder in reversed(folders):
        path = os.path.realpath(folder or ".")
        if path not in sys.path:
            sys.path.insert(0, path)


def import_by_name(name: str) -> ModuleType:
    """Import a module by its dotted name, from the current folder or from `sys.path`.

    Raises:
        ImportError: if there is no such module; any other exception that its code raises.
    """
    add_search_path(".")
    # The folder may have got files since it was searched last.
    importlib.invalidate_caches()
    return importlib.import_module(name)


def import_file(path: str) -> ModuleType:
    """Run a Python file as a module, once as long as it does not change.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if an import fails; any other exception that its code raises.
    """
    real = os.path.realpath(path)
    if not os.path.isfile(real):
        raise FileNotFoundError(f"no such file: {path}")
    changed = os.stat(real).st_mtime_ns
    if real in _loaded and _loaded[real][0] == changed:
        return _loaded[real][1]
    add_search_path(os.path.dirname(real), ".")
    module = _run(Path(real))
    _loaded[real] = (changed, module)
    return module


def _run(path: Path) -> ModuleType:
    """Run a file as the module that has its name, so that the names in it can be looked up.

    If a library has this name, the module gets another one.
    """
    name = path.stem
    present = sys.modules.get(name)
    ours = [module for _, module in _loaded.values()]
    if present is not None and present not in ours:
        name = f"_{name}_of_{abs(hash(path))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def import_libraries(names: tuple[str, ...]) -> tuple[ModuleType, ...]:
    """Import the arguments of `--import`: modules by their names, files, and folders to search.

    Return the modules.

    Raises:
        CouldNotAttempt: if one of them cannot be imported.
    """
    modules = list[ModuleType]()
    for name in names:
        try:
            if name.endswith(".py"):
                modules.append(import_file(name))
            elif is_search_folder(name):
                add_search_path(name)
            else:
                modules.append(import_by_name(name))
        except (Exception, SystemExit) as error:
            raise _not_imported(name, error) from error
    return tuple(modules)


def is_search_folder(name: str) -> bool:
    """Return whether `--import` names a folder to search, and not a package to import."""
    return os.path.isdir(name) and not os.path.exists(os.path.join(name, "__init__.py"))


def _not_imported(name: str, error: BaseException) -> CouldNotAttempt:
    """Return the error for a library that cannot be imported."""
    title = f"{name} cannot be imported"
    notes = (f"{type(error).__name__}: {telling_line(error)}",)
    help = (
        "install it in the environment of composecli,"
        " or name its file (--import FILE.py) or the folder that has it (--import FOLDER)"
    )
    problem = Problem(Rule.FACTORY_FAILED, title, None, notes, (help,))
    return CouldNotAttempt(problem)


def load_trusted(request: OpenRequest, file: Path | IO[bytes], device: str) -> Any:
    """Unpickle a trusted file, whose code runs.

    Its modules are found in the current folder, beside the file, and where `--import` says. The
    classes of the script that wrote it are those of the factory and of the imported modules.

    Raises:
        CouldNotAttempt: if an argument of `--import` cannot be imported.
        NoSuchClass: if a class of the script is not found; any other exception of its code.
    """
    add_search_path(".", os.path.dirname(request.path))
    modules = import_libraries((*own_modules(request), *request.imports))
    pickle_module = unpickler_with(modules)
    return torch.load(file, map_location=device, weights_only=False, pickle_module=pickle_module)


def own_modules(request: OpenRequest) -> tuple[str, ...]:
    """Return the module of the factory of a request, as `--import` names it."""
    match request.reference:
        case FactoryReference(module):
            return (module,)
    return ()


def unpickler_with(modules: tuple[ModuleType, ...]) -> Any:
    """Return the `pickle_module` for `torch.load` that finds the classes of a script in modules.

    A script that pickles an object of its own class calls the class `__main__.Net`: the name of the
    script is not stored.
    """

    class Unpickler(pickle.Unpickler):
        """Looks up names of `__main__` in the given modules."""

        def find_class(self, module: str, name: str) -> Any:
            if module not in _MAIN:
                return super().find_class(module, name)
            for candidate in modules:
                with suppress(AttributeError):
                    return attrgetter(name)(candidate)
            raise NoSuchClass(f"no module here has the class {name} of the script")

    def load(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    module = ModuleType("pickle_of_own_classes")
    vars(module).update(Unpickler=Unpickler, load=load)
    return module
