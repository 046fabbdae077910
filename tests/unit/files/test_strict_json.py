"""JSON that could be read in two ways is refused."""

from __future__ import annotations

import codecs
import json

import pytest

from composecli.files.strict_json import MAX_DIGITS, parse_json

VALUES = [{"a": [1, 2.5, None, True, "x"]}, "\\u0000", "\U0001f600", -(10**30), []]


@pytest.mark.parametrize("value", VALUES)
def test_plain_json_is_read_as_python_reads_it(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse_json(text) == value
        assert parse_json(text.encode()) == value


REFUSED = {
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-32": '{"a": 1}'.encode("utf-32"),
    "UTF-16 without a mark": '{"a": 1}'.encode("utf-16-le"),
    "a mark of the byte order": codecs.BOM_UTF8 + b"{}",
    "Latin-1": b'"\xe9"',
    "the same key twice": b'{"a": 1, "a": 2}',
    "the same key twice, once escaped": b'[{"a": 1, "\\u0061": 2}]',
    "NaN": b"[NaN]",
    "an infinity": b"[-Infinity]",
    "many digits": b"[" + b"9" * (MAX_DIGITS + 1) + b"]",
    "thousands of digits": b"-" + b"9" * 5000,
    "a null character": b'"a\\u0000b"',
    "a null character in a key": b'{"\\u0000": 1}',
    "half a character": b'"\\ud800"',
    "half a character in a key": b'{"\\udc00": 1}',
    "two values": b"1 2",
    "nothing": b"",
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(REFUSED[name])


def test_deep_nesting_is_an_error_that_callers_expect() -> None:
    with pytest.raises(RecursionError):
        parse_json(b"[" * 20_000 + b"]" * 20_000)
