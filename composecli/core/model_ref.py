"""Model references: the MODEL argument of a command, as data."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from composecli.core.limits import shorten

MAX_ARGUMENTS_LENGTH = 10_000
# Each of them may end the arguments, and is tried.
MAX_PARENTHESES = 200

# `factory` is followed by arguments, by weights, or by nothing.
_FACTORY = re.compile(
    r"(?P<module>[A-Za-z_][\w.]*|.*?\.py):(?P<factory>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)(?=[(@]|$)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class FileReference:
    """A model file."""

    path: str

    @property
    def name(self) -> str:
        """The text of the argument."""
        return self.path


@dataclass(frozen=True, slots=True)
class FactoryReference:
    """A class or function that makes the module, and the file with its weights.

    `module` is a dotted name, or the path of a Python file. `arguments` are those of the call with
    their parentheses, as in `(classes=10)`; they may be empty. Without a file, `path` is None and
    the module keeps its initial values.
    """

    module: str
    factory: str
    path: str | None
    arguments: str = ""

    @property
    def name(self) -> str:
        """The text of the argument."""
        call = f"{self.module}:{self.factory}{self.arguments}"
        if self.path is None:
            return call
        return f"{call}@{self.path}"


Reference = FileReference | FactoryReference


def parse_reference(text: str) -> Reference:
    """Parse `a.pt`, `package.module:factory(arguments)@weights` or `file.py:factory@weights`.

    The arguments and the weights may be left out. If the parentheses of the arguments are not
    closed, all that is left belongs to the arguments, which `literal_arguments` then refuses.
    """
    match = _FACTORY.match(text)
    if match is None:
        return FileReference(text)
    rest = text[match.end() :]
    arguments = rest[: _arguments_length(rest)]
    weights = rest[len(arguments) :]
    if not weights:
        return FactoryReference(match["module"], match["factory"], None, arguments)
    if weights[0] != "@" or len(weights) == 1:
        return FileReference(text)
    return FactoryReference(match["module"], match["factory"], weights[1:], arguments)


def _arguments_length(text: str) -> int:
    """Return the length of the arguments, with their parentheses, at the start of a text.

    A parenthesis or an `@` in a string does not end them: the first that does is the first with
    which they are a call.
    """
    if not text.startswith("("):
        return 0
    end = text.find(")")
    for _ in range(MAX_PARENTHESES):
        if end < 0:
            break
        if _parse_call(text[: end + 1]) is not None:
            return end + 1
        end = text.find(")", end + 1)
    return len(text)


def _parse_call(arguments: str) -> ast.Call | None:
    """Return the call of a function with these arguments; None if they are not Python."""
    if len(arguments) > MAX_ARGUMENTS_LENGTH:
        return None
    try:
        call = ast.parse(f"factory{arguments}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
        return call
    return None


def literal_arguments(arguments: str) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return the values of `(10, classes=3)`: the positional ones, and the others by name.

    Only literals are evaluated: numbers, texts, True, False, None, and lists, tuples, sets and
    dicts of these.

    Raises:
        ValueError: if they are not Python, or one is not a literal.
    """
    if not arguments:
        return (), {}
    call = _parse_call(arguments)
    if call is None:
        raise ValueError(f"{shorten(arguments)} is not a list of arguments")
    positional = [_literal(argument) for argument in call.args]
    named = dict[str, Any]()
    for keyword in call.keywords:
        if keyword.arg is None:
            raise ValueError(f"{_source(keyword.value)} has no name")
        named[keyword.arg] = _literal(keyword.value)
    return tuple(positional), named


def _literal(node: ast.expr) -> Any:
    """Return the value of a literal.

    Raises:
        ValueError: if it is anything else.
    """
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{_source(node)} is not a literal") from None


def _source(node: ast.expr) -> str:
    """Return the source of an expression, as far as it fits in a message."""
    try:
        return shorten(ast.unparse(node))
    except (ValueError, RecursionError, MemoryError):
        return "an argument"


@dataclass(frozen=True, slots=True)
class KindTraits:
    """How one kind of model differs from the others.

    `lists_arguments`: the file names every argument of forward. A Python forward may accept more.
    `runs_user_code`: loading calls a Python function of the user, which may open any file and need
    not return the same model each time. `has_module`: it computes, and can be joined.
    """

    lists_arguments: bool = False
    runs_user_code: bool = False
    has_module: bool = True


class ModelKind(StrEnum):
    """A kind of model. Its value is the name that users see."""

    TORCHSCRIPT = "TorchScript archive"
    EXPORTED = "torch.export archive"
    PICKLED = "pickled nn.Module"
    FACTORY = "factory and weights"
    FACTORY_ALONE = "factory without weights"
    CONTRACT = "contract file"

    @property
    def traits(self) -> KindTraits:
        """The traits of this kind."""
        return KIND_TRAITS[self]


KIND_TRAITS = {
    ModelKind.TORCHSCRIPT: KindTraits(lists_arguments=True),
    ModelKind.EXPORTED: KindTraits(lists_arguments=True),
    ModelKind.PICKLED: KindTraits(),
    ModelKind.FACTORY: KindTraits(runs_user_code=True),
    ModelKind.FACTORY_ALONE: KindTraits(runs_user_code=True),
    ModelKind.CONTRACT: KindTraits(lists_arguments=True, has_module=False),
}
