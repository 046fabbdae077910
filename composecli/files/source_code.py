"""Python files near a model, as text: which classes they define, and how these are called.

Nothing is imported. The answers are for suggestions: a command that names a class runs its file
only if the user runs that command.
"""

from __future__ import annotations

import ast
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MAX_FILES = 300
MAX_SOURCE_BYTES = 2**20

# The functions of `torch.library` that register an op.
_REGISTERING_OPS = (b"custom_op", b"Library(", b"triton_op", b"library.define", b"load_library")
# Methods of a module that add an attribute with a name.
_REGISTERING = ("add_module", "register_module", "register_buffer", "register_parameter")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a constructor, with its default as Python source; None if it has none."""

    name: str
    default: str | None


@dataclass(frozen=True, slots=True)
class ClassSource:
    """A class at the top level of a file.

    `bases` are the names of its base classes, `parameters` those of its constructor, and
    `attributes` the names that its methods assign to `self`.
    """

    path: str
    name: str
    bases: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    attributes: frozenset[str]

    @property
    def is_module(self) -> bool:
        """Whether a base says that this is a module: `nn.Module`, or `LightningModule`."""
        return any(base.endswith("Module") for base in self.bases)

    def call(self, settings: dict[str, str]) -> str | None:
        """Return the arguments of a constructor call, with their parentheses; empty without any.

        `settings` are values that a module has stored, by their names. A parameter without a
        default takes the one with its name; None if there is no such value.
        """
        arguments = list[str]()
        for parameter in self.parameters:
            value = settings.get(parameter.name)
            if value is None and parameter.default is None:
                return None
            if value is not None and value != parameter.default:
                arguments.append(f"{parameter.name}={value}")
        if not arguments:
            return ""
        return f"({', '.join(arguments)})"


def python_files(folders: Iterable[str]) -> Iterator[str]:
    """Yield the Python files in these folders, each of them once, in order.

    The empty text is the current folder, whose files are named without it.
    """
    seen = set[str]()
    for folder in folders:
        try:
            names = sorted(os.listdir(folder or "."))
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            real = os.path.realpath(path)
            if name.endswith(".py") and real not in seen and len(seen) < MAX_FILES:
                seen.add(real)
                yield path


def folders_near(path: str | None) -> tuple[str, ...]:
    """Return the folders to search for the code of a model file: the current one, and its own."""
    folder = ""
    if path is not None:
        folder = os.path.dirname(path)
    return tuple(dict.fromkeys(("", folder)))


def classes_in(path: str) -> tuple[ClassSource, ...]:
    """Return the classes at the top level of a file; none if it cannot be read or parsed."""
    tree = _parse(path)
    if tree is None:
        return ()
    found = dict[str, ClassSource]()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            with suppress(RecursionError):
                found[node.name] = _class_source(path, node, found)
    return tuple(found.values())


def defines(path: str, name: str) -> bool:
    """Return whether a file has a class, a function or a variable of a dotted name's first word."""
    tree = _parse(path)
    first = name.partition(".")[0]
    for node in getattr(tree, "body", ()):
        match node:
            case ast.ClassDef() | ast.FunctionDef() if node.name == first:
                return True
            case ast.Assign([ast.Name(target)]) if target == first:
                return True
    return False


def find_classes(name: str, folders: Iterable[str]) -> Iterator[ClassSource]:
    """Yield the classes with this name in the Python files of these folders."""
    wanted = re.compile(rf"^class\s+{re.escape(name)}\b".encode(), re.MULTILINE)
    for path in python_files(folders):
        if wanted.search(_read(path)):
            for candidate in classes_in(path):
                if candidate.name == name:
                    yield candidate


def files_that_define_ops(namespace: str, folders: Iterable[str]) -> Iterator[str]:
    """Yield the Python files of these folders that register ops in a namespace, by their text.

    They write it as `custom_op("namespace::op", ...)` or as `Library("namespace", "DEF")`.
    """
    named = re.compile(rf"""["']{re.escape(namespace)}(::\w+)?["']""".encode())
    for path in python_files(folders):
        source = _read(path)
        if named.search(source) and any(word in source for word in _REGISTERING_OPS):
            yield path


def _read(path: str) -> bytes:
    """Return the content of a file; nothing if it cannot be read or is too large."""
    try:
        source = Path(path)
        if not source.is_file() or source.stat().st_size > MAX_SOURCE_BYTES:
            return b""
        return source.read_bytes()
    except OSError:
        return b""


def _parse(path: str) -> ast.Module | None:
    """Return the syntax tree of a file; None if it has none."""
    try:
        # Python warns of invalid escapes, which would be printed in the middle of a report.
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(_read(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _class_source(path: str, node: ast.ClassDef, earlier: dict[str, ClassSource]) -> ClassSource:
    """Return the facts about a class; without a constructor, it has that of an `earlier` base."""
    bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    parents = [earlier[base] for base in bases if base in earlier]
    parameters: tuple[Parameter, ...] = ()
    attributes = set[str]()
    for parent in reversed(parents):
        parameters = parent.parameters
        bases += parent.bases
        attributes |= parent.attributes
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            attributes.update(_assigned_names(item))
            if item.name == "__init__":
                parameters = tuple(_parameters(item.args))
    return ClassSource(path, node.name, tuple(bases), parameters, frozenset(attributes))


def _parameters(arguments: ast.arguments) -> Iterator[Parameter]:
    """Yield the named parameters of a constructor, without `self`."""
    positional = [*arguments.posonlyargs, *arguments.args]
    without = len(positional) - len(arguments.defaults)
    for number, argument in enumerate(positional):
        default = None
        if number >= without:
            default = ast.unparse(arguments.defaults[number - without])
        if number > 0:
            yield Parameter(argument.arg, default)
    for argument, node in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        default = None
        if node is not None:
            default = ast.unparse(node)
        yield Parameter(argument.arg, default)


def _assigned_names(function: ast.FunctionDef) -> Iterator[str]:
    """Yield the names of the attributes of `self` that a method assigns or registers."""
    for node in ast.walk(function):
        match node:
            case ast.Attribute(ast.Name("self"), str(name), ast.Store()):
                yield name
            case ast.Call(
                ast.Attribute(ast.Name("self"), method), [ast.Constant(str(name)), *_]
            ) if method in _REGISTERING:
                yield name
