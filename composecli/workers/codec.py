"""One codec between frozen dataclasses and JSON, for messages and cached results.

A dataclass becomes an object with its class in `"type"`; tuples become lists. Decoding follows the
type hints alone, so a message can only create instances of the classes that the protocol expects.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any


class NotAMessage(ValueError):
    """The data is not a value of the expected type."""


def encode(value: object) -> Any:
    """Return a value as plain JSON data.

    The value may consist of dataclasses, enums, tuples, string-keyed dicts and plain data.

    Raises:
        TypeError: if the value contains anything else.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        data = {"type": type(value).__name__}
        for field in dataclasses.fields(value):
            content = getattr(value, field.name)
            data[field.name] = encode(content)
        return data
    raise TypeError(f"no place in a message for a {type(value).__name__}")


def decode(hint: Any, data: Any) -> Any:
    """Return the value of type `hint` that `data` represents.

    Raises:
        NotAMessage: if it does not represent such a value.
    """
    return _decoder(hint)(data)


@functools.cache
def _decoder(hint: Any) -> Callable[[Any], Any]:
    """Return the function that decodes this type. A large result has few types."""
    hint = getattr(hint, "__value__", hint)
    origin = typing.get_origin(hint)
    if origin is typing.Union or isinstance(hint, types.UnionType):
        return functools.partial(_decode_union, typing.get_args(hint))
    if origin is tuple:
        return functools.partial(_decode_tuple, typing.get_args(hint))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return functools.partial(_decode_dataclass, hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return functools.partial(_decode_enum, hint)
    return functools.partial(_decode_plain, hint)


def _decode_enum(kind: type[enum.Enum], data: Any) -> enum.Enum:
    """Return the member that has this value."""
    try:
        return kind(data)
    except ValueError:
        raise NotAMessage(f"{data!r} is no {kind.__name__}") from None


def _decode_plain(hint: Any, data: Any) -> Any:
    """Return a plain value of exactly this type; an int is accepted as a float."""
    if hint is None or hint is type(None):
        if data is None:
            return None
    elif hint is float:
        if isinstance(data, int | float) and not isinstance(data, bool):
            return float(data)
    elif isinstance(hint, type) and type(data) is hint:
        return data
    expected = getattr(hint, "__name__", hint)
    raise NotAMessage(f"{type(data).__name__} where {expected} was expected")


def _decode_union(options: tuple[Any, ...], data: Any) -> Any:
    """Decode a dataclass by the name in its data, anything else by the first type that fits."""
    if isinstance(data, dict):
        name = data.get("type")
        for option in options:
            if not dataclasses.is_dataclass(option):
                continue
            if name == getattr(option, "__name__", None):
                return _decode_dataclass(option, data)
        raise NotAMessage(f"no {name!r} was expected")
    for option in options:
        try:
            return decode(option, data)
        except NotAMessage:
            continue
    raise NotAMessage(f"a {type(data).__name__} fits none of {len(options)} types")


def _decode_tuple(items: tuple[Any, ...], data: Any) -> Any:
    """Decode a list, with one hint for each item or one hint and `...` for all."""
    if not isinstance(data, list):
        raise NotAMessage(f"{type(data).__name__} where a list was expected")
    if len(items) == 2 and items[1] is Ellipsis:
        same_kind = [decode(items[0], item) for item in data]
        return tuple(same_kind)
    if len(items) != len(data):
        raise NotAMessage(f"{len(data)} items where {len(items)} were expected")
    decoded = list[Any]()
    for hint, item in zip(items, data, strict=True):
        decoded.append(decode(hint, item))
    return tuple(decoded)


@functools.cache
def _field_hints(kind: type) -> dict[str, Any]:
    """Return the type hint of each field. Class variables are not part of a message."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _decode_dataclass(kind: Any, data: Any) -> Any:
    """Decode a dict whose keys, besides `type`, are exactly the fields."""
    if not isinstance(data, dict) or data.get("type") != kind.__name__:
        raise NotAMessage(f"no {kind.__name__}")
    hints = _field_hints(kind)
    names = data.keys() - {"type"}
    if names != hints.keys():
        other = ", ".join(sorted(names ^ hints.keys()))
        raise NotAMessage(f"{kind.__name__} has other fields: {other}")
    values = {name: decode(hint, data[name]) for name, hint in hints.items()}
    return kind(**values)
