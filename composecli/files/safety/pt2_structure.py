"""The pytree specs of a torch.export archive: a closed grammar of containers and constants.

PyTorch imports the names in the context of a spec: the class of an enum, the factory of a
defaultdict. It also writes Python source from the keys of a program's inputs. So the grammar has
the containers that need no import, those factories that are Python's own types, keys that JSON
holds, and classes of other libraries, which PyTorch only looks up among those that were registered.

    [1, {"type": "builtins.dict", "context": "[\\"a\\"]", "children_spec": [LEAF]}]

Source: `torch/utils/_pytree.py`, protocol 1.
"""

from __future__ import annotations

import keyword
import re
from typing import Any

from composecli.files.strict_json import parse_json

PROTOCOL = 1
MAX_DEPTH = 64
MAX_CONTEXT_DEPTH = 8
MAX_TEXT_LENGTH = 1000

SEQUENCES = frozenset(
    (
        "builtins.tuple",
        "builtins.list",
        "torch.Size",
        "torch.fx.immutable_collections.immutable_list",
    )
)
MAPPINGS = frozenset(
    (
        "builtins.dict",
        "collections.OrderedDict",
        "torch.fx.immutable_collections.immutable_dict",
    )
)
DEFAULT_DICT = "collections.defaultdict"
FACTORIES = frozenset(("bool", "dict", "float", "int", "list", "set", "str", "tuple"))
_FACTORY_KEYS = frozenset(("default_factory_module", "default_factory_name", "dict_context"))
_KEYS = frozenset(("type", "context", "children_spec"))
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_OWN_PACKAGES = ("builtins", "collections", "torch")
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_QUOTING = frozenset("'\"\\")
# The key of an object that PyTorch takes for a member of an enum, and imports.
_ENUM_MARK = "__enum__"


class UnknownStructure(Exception):
    """A spec has a part that is not in the grammar. The message is for the user."""


def check_structure(text: object, *, is_input: bool) -> None:
    """Check the text of a spec. The keys of inputs become Python source.

    Raises:
        UnknownStructure: if it is not in the grammar.
    """
    try:
        protocol, root = _parse(text)
    except (TypeError, ValueError):
        raise UnknownStructure("an unsupported structure") from None
    if type(protocol) is not int or protocol != PROTOCOL:
        raise UnknownStructure("a structure of another version")
    _check_node(root, 0, is_input=is_input)
    if is_input:
        _check_keywords(root)


def is_unquoted(text: str) -> bool:
    """Return whether a text remains one between quotes in Python source."""
    return len(text) <= MAX_TEXT_LENGTH and text.isprintable() and _QUOTING.isdisjoint(text)


def is_argument_name(text: object) -> bool:
    """Return whether this can be the name of an argument in Python source."""
    if not isinstance(text, str) or keyword.iskeyword(text):
        return False
    return _IDENTIFIER.fullmatch(text) is not None


def _parse(text: object) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: if it is not a text, or not JSON.
    """
    if not isinstance(text, str):
        raise ValueError
    try:
        value = parse_json(text)
    except RecursionError:
        raise ValueError from None
    return value


def _check_node(node: Any, depth: int, *, is_input: bool) -> None:
    """Check a node of a spec, and those below it."""
    if depth > MAX_DEPTH:
        raise UnknownStructure("a structure of too many levels")
    if not isinstance(node, dict) or node.keys() != _KEYS:
        raise UnknownStructure("an unsupported structure")
    children = node["children_spec"]
    if not isinstance(children, list):
        raise UnknownStructure("an unsupported structure")
    kind = node["type"]
    context = node["context"]
    if kind is None:
        if context is not None or children:
            raise UnknownStructure("an unsupported structure")
    elif not isinstance(kind, str) or not _is_context(kind, context, children, is_input=is_input):
        raise UnknownStructure(f"a {kind} of {context}")
    for child in children:
        _check_node(child, depth + 1, is_input=is_input)


def _is_context(kind: str, context: Any, children: list[Any], *, is_input: bool) -> bool:
    """Return whether a context fits a container of this kind."""
    if kind == "collections.namedtuple":
        return _is_library_class(context)
    if kind == DEFAULT_DICT:
        return _is_factory(context) and _are_keys(
            context["dict_context"], len(children), is_input=is_input
        )
    if _is_library_class(kind):
        return _is_data_of_library(context, is_input=is_input)
    try:
        value = _parse(context)
    except ValueError:
        return False
    if kind in SEQUENCES:
        return value is None
    if kind in MAPPINGS:
        return _are_keys(value, len(children), is_input=is_input)
    if kind == "collections.deque":
        return value is None or (type(value) is int and 0 <= value < 2**31)
    return False


def _is_factory(context: Any) -> bool:
    """Return whether a defaultdict makes its missing values with a type of Python's own."""
    if not isinstance(context, dict) or context.keys() != _FACTORY_KEYS:
        return False
    name = context["default_factory_name"]
    if not isinstance(name, str) or name not in FACTORIES:
        return False
    return bool(context["default_factory_module"] == "builtins")


def _is_library_class(name: object) -> bool:
    """Return whether this is the full name of a class outside Python's and torch's own packages."""
    if not isinstance(name, str) or _CLASS.fullmatch(name) is None:
        return False
    return name.partition(".")[0] not in _OWN_PACKAGES


def _are_keys(value: Any, count: int, *, is_input: bool) -> bool:
    """Return whether these are the distinct keys of a dict with `count` values."""
    if not isinstance(value, list) or len(value) != count:
        return False
    if not all(_is_constant(key, is_input=is_input) for key in value):
        return False
    return len(set(value)) == count


def _is_constant(value: Any, *, is_input: bool) -> bool:
    """Return whether this is a constant; a text of an input must remain one in source code."""
    if isinstance(value, str):
        return len(value) <= MAX_TEXT_LENGTH and (not is_input or is_unquoted(value))
    return value is None or isinstance(value, bool | int | float)


def _is_data_of_library(context: Any, *, is_input: bool) -> bool:
    """Return whether the context of a library's class is data, written as JSON or as its text."""
    if isinstance(context, str):
        try:
            context = _parse(context)
        except ValueError:
            return False
    return _is_data(context, 0, is_input=is_input)


def _is_data(value: Any, depth: int, *, is_input: bool) -> bool:
    """Return whether a value consists of constants, and of lists and dicts that are no enums."""
    if depth > MAX_CONTEXT_DEPTH:
        return False
    match value:
        case dict():
            if _ENUM_MARK in value:
                return False
            parts = [*value.keys(), *value.values()]
        case list():
            parts = value
        case _:
            return _is_constant(value, is_input=is_input)
    return all(_is_data(part, depth + 1, is_input=is_input) for part in parts)


def _check_keywords(root: dict[str, Any]) -> None:
    """Check the keyword arguments of a call, which are the second of the spec's two children."""
    match root["children_spec"]:
        case [_, {"type": "builtins.dict", "context": str(context)}]:
            for name in _parse(context):
                if not is_argument_name(name):
                    raise UnknownStructure(f"an argument named {name}")
