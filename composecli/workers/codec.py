"""One codec between frozen dataclasses and JSON: what crosses the pipe and what `--format json` shows.

A dataclass becomes an object with its class in `"type"`; tuples become lists. Decoding is led by the type
hints alone, so that a message can name nothing but the classes that the protocol expects.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any


class NotAMessage(ValueError):
    """What came is no value of the type that was expected."""


def encode(value: object) -> Any:
    """A value made of dataclasses, enums, tuples, string-keyed dicts and plain data, as plain JSON data."""
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        return {"type": type(value).__name__, **fields}
    raise TypeError(f"no place in a message for a {type(value).__name__}")


def decode(hint: Any, data: Any) -> Any:
    """The value of type `hint` that `data` stands for.

    Raises:
        NotAMessage: it stands for none.
    """
    hint = getattr(hint, "__value__", hint)
    origin = typing.get_origin(hint)
    if origin is typing.Union or isinstance(hint, types.UnionType):
        return _decode_union(typing.get_args(hint), data)
    if origin is tuple:
        return _decode_tuple(typing.get_args(hint), data)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _decode_fields(hint, data)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(data)
        except ValueError:
            raise NotAMessage(f"{data!r} is no {hint.__name__}") from None
    return _decode_plain(hint, data)


def _decode_plain(hint: Any, data: Any) -> Any:
    if hint is None or hint is type(None):
        if data is None:
            return None
    elif hint is float:
        if isinstance(data, int | float) and not isinstance(data, bool):
            return float(data)
    elif isinstance(hint, type) and type(data) is hint:
        return data
    raise NotAMessage(f"{type(data).__name__} where {getattr(hint, '__name__', hint)} was expected")


def _decode_union(options: tuple[Any, ...], data: Any) -> Any:
    if isinstance(data, dict):
        for option in options:
            if dataclasses.is_dataclass(option) and data.get("type") == getattr(
                option, "__name__", None
            ):
                return _decode_fields(option, data)
        raise NotAMessage(f"no {data.get('type')!r} was expected")
    for option in options:
        try:
            return decode(option, data)
        except NotAMessage:
            continue
    raise NotAMessage(f"a {type(data).__name__} fits none of {len(options)} types")


def _decode_tuple(items: tuple[Any, ...], data: Any) -> Any:
    if not isinstance(data, list):
        raise NotAMessage(f"{type(data).__name__} where a list was expected")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(decode(items[0], item) for item in data)
    if len(items) != len(data):
        raise NotAMessage(f"{len(data)} items where {len(items)} were expected")
    return tuple(decode(hint, item) for hint, item in zip(items, data, strict=True))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode_fields(kind: Any, data: Any) -> Any:
    if not isinstance(data, dict) or data.get("type") != kind.__name__:
        raise NotAMessage(f"no {kind.__name__}")
    hints, given = _hints(kind), data.keys() - {"type"}
    if given != hints.keys():
        raise NotAMessage(
            f"{kind.__name__} has other fields: {', '.join(sorted(given ^ hints.keys()))}"
        )
    return kind(**{name: decode(hint, data[name]) for name, hint in hints.items()})
