"""Dtypes by the names that PyTorch prints."""

from __future__ import annotations

DTYPES = (
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
    "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
)  # fmt: skip


FLOATS = ("float16", "bfloat16", "float32", "float64")


# The dtype of a port that takes all of these and gives what it was given.
ANY_FLOAT = "float"
