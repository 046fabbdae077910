"""The packages that are imported after the lock; all others look as if they were not installed.

torch imports parts of itself late, and tries packages that it can do without. One that it finds but
may not read would be an error that it does not expect.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType

# Packages that composecli, torch and their dependencies import late, if they are installed.
_IMPORTED_LATE = (
    "composecli",
    "filelock",
    "fsspec",
    "functorch",
    "jinja2",
    "markupsafe",
    "mpmath",
    "networkx",
    "numpy",
    "opt_einsum",
    "optree",
    "packaging",
    "safetensors",
    "setuptools",
    "sympy",
    "torch",
    "torchgen",
    "torchinfo",
    "triton",
    "typing_extensions",
    "yaml",
)


def known_packages() -> dict[str, ModuleSpec]:
    """Return how to import those of these packages that are installed, and the imported ones."""
    imported = {name.partition(".")[0] for name in sys.modules}
    names = imported.union(_IMPORTED_LATE) - sys.stdlib_module_names
    specs = dict[str, ModuleSpec]()
    for name in sorted(names):
        spec = _spec(name)
        if spec is not None:
            specs[name] = spec
    return specs


def _spec(name: str) -> ModuleSpec | None:
    """Return how to import a package; None if it is not installed, or was made by a program."""
    try:
        return find_spec(name)
    except (ValueError, ImportError):
        return None


def files_of(spec: ModuleSpec) -> Iterator[str]:
    """Yield the files and folders of a package, and the libraries that wheels put beside it."""
    if spec.submodule_search_locations is not None:
        for folder in spec.submodule_search_locations:
            yield folder
            yield f"{folder}.libs"
        return
    for file in (spec.origin, spec.cached):
        if file is not None:
            yield file


class OnlyKnown:
    """A finder of modules: of the standard library, the known packages, and what is in them."""

    def __init__(self, specs: dict[str, ModuleSpec]) -> None:
        self._specs = specs
        self.invalidate_caches = PathFinder.invalidate_caches

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to import a module; None if it is not one of these."""
        if path is None and name not in sys.stdlib_module_names:
            return self._specs.get(name)
        return PathFinder.find_spec(name, path, target)


def import_only(specs: dict[str, ModuleSpec]) -> None:
    """Have all other packages look as if they were not installed."""
    for place, finder in enumerate(sys.meta_path):
        if finder is PathFinder:
            sys.meta_path[place] = OnlyKnown(specs)
