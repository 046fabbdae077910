"""The table of dtypes is consistent, and answers by each of its keys."""

from __future__ import annotations

import re

import pytest

from composecli.core.dtypes import (
    ANY_FLOAT,
    DTYPES,
    FLOATS,
    DType,
    Kind,
    by_name,
    by_schema_code,
    by_storage,
    is_complex,
    is_floating,
    is_integer,
    is_numeric,
    is_wider_integer,
)
from composecli.core.input_spec import parse_input


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_each_dtype_is_found_by_each_of_its_keys(dtype: DType) -> None:
    assert by_name(dtype.name) is dtype
    assert by_storage(dtype.storage) is dtype
    assert dtype.storage.endswith("Storage")
    if dtype.code is not None:
        assert by_schema_code(dtype.code) is dtype


def test_no_key_is_used_twice() -> None:
    codes = [dtype.code for dtype in DTYPES if dtype.code is not None]
    assert len({dtype.name for dtype in DTYPES}) == len(DTYPES)
    assert len({dtype.storage for dtype in DTYPES}) == len(DTYPES)
    assert len(set(codes)) == len(codes)


def test_unknown_keys_have_no_dtype() -> None:
    assert by_name("float33") is None
    assert by_name(ANY_FLOAT) is None
    assert by_storage("UntypedStorage") is None
    assert by_schema_code(0) is None


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_the_number_in_a_name_is_its_size_in_bits(dtype: DType) -> None:
    match = re.match(r"[a-z]+(\d+)", dtype.name)
    if match is not None and dtype.kind is not Kind.RAW:
        assert int(match[1]) * dtype.elements_per_item == dtype.size * 8


def test_any_float_stands_for_the_dtypes_that_models_compute_in() -> None:
    assert all(is_floating(name) for name in FLOATS)
    kinds = {dtype.name for dtype in DTYPES if dtype.kind is Kind.FLOAT}
    assert kinds == set(FLOATS)


@pytest.mark.parametrize(
    ("name", "floating", "integer", "complex_", "numeric"),
    [
        ("float32", True, False, False, True),
        ("bfloat16", True, False, False, True),
        ("float8_e8m0fnu", True, False, False, True),
        ("float4_e2m1fn_x2", False, False, False, False),
        ("complex32", False, False, True, True),
        ("uint64", False, True, False, True),
        ("bool", False, False, False, True),
        ("qint8", False, False, False, False),
        ("int4", False, False, False, False),
        ("no such dtype", False, False, False, False),
    ],
)
def test_dtypes_are_classified(
    name: str, floating: bool, integer: bool, complex_: bool, numeric: bool
) -> None:
    assert is_floating(name) is floating
    assert is_integer(name) is integer
    assert is_complex(name) is complex_
    assert is_numeric(name) is numeric


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("int64", "int32", True),
        ("int32", "int64", False),
        ("int32", "int32", False),
        ("int16", "uint8", True),
        ("int8", "uint8", False),
        ("uint16", "int8", False),
        ("uint64", "uint32", True),
        ("int8", "bool", True),
        ("bool", "int8", False),
        ("int64", "float32", False),
        ("int64", "int4", False),
    ],
)
def test_a_wider_integer_has_every_value_of_the_narrower_one(
    wide: str, narrow: str, expected: bool
) -> None:
    assert is_wider_integer(wide, narrow) is expected


def test_the_message_about_an_unknown_dtype_lists_the_common_ones() -> None:
    with pytest.raises(ValueError, match="there is no dtype") as caught:
        parse_input("float33[2]")
    assert str(caught.value) == (
        "there is no dtype float33 (use one of float32, float64, float16, bfloat16, int64, int32,"
        " int16, int8, uint8, bool, complex64)"
    )
