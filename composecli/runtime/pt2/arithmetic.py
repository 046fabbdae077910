"""Arithmetic of exported programs: the functions on sizes, with a limit on the bits of a result.

`9 ** 9 ** 9` would take all memory, and hours. No size has more than 64 bits.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

MAX_BITS = 4096

Function: TypeAlias = Callable[..., Any]


def power(base: Any, exponent: Any) -> Any:
    """Return a power; raise OverflowError if it would have too many bits."""
    if _are_integers(base, exponent):
        _require_bits(base.bit_length() * max(1, abs(exponent)))
    return operator.pow(base, exponent)


def shift_left(value: Any, count: Any) -> Any:
    """Return a value with its bits shifted; raise OverflowError if it would have too many."""
    if _are_integers(value, count):
        _require_bits(value.bit_length() + max(0, count))
    return operator.lshift(value, count)


def multiply(one: Any, other: Any) -> Any:
    """Return a product; raise OverflowError if it would have too many bits, or repeat a text."""
    if _are_integers(one, other):
        _require_bits(one.bit_length() + other.bit_length())
    elif isinstance(one, str | tuple | list) or isinstance(other, str | tuple | list):
        raise TypeError("only numbers and tensors are multiplied")
    return operator.mul(one, other)


def _are_integers(*values: Any) -> bool:
    return all(isinstance(value, int) for value in values)


def _require_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise OverflowError(f"a number of {bits:,} bits")


# The functions of Python's `operator` and `math`, and of torch for symbols, by their names there.
OPERATOR: Mapping[str, Function] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": multiply,
    "neg": operator.neg,
    "pos": operator.pos,
    "abs": operator.abs,
    "pow": power,
    "floordiv": operator.floordiv,
    "truediv": operator.truediv,
    "mod": operator.mod,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "and_": operator.and_,
    "or_": operator.or_,
    "xor": operator.xor,
    "not_": operator.not_,
    "lshift": shift_left,
    "rshift": operator.rshift,
    "getitem": operator.getitem,
}
MATH: Mapping[str, Function] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "trunc": math.trunc,
    "sqrt": math.sqrt,
    "log2": math.log2,
    "log": math.log,
    "exp": math.exp,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "tanh": math.tanh,
    "isnan": math.isnan,
}
SYMBOLIC: Mapping[str, Function] = {
    "sym_float": torch.sym_float,
    "sym_int": torch.sym_int,
    "sym_ite": torch.sym_ite,
    "sym_max": torch.sym_max,
    "sym_min": torch.sym_min,
    "sym_not": torch.sym_not,
    "sym_sqrt": torch.sym_sqrt,
    "sym_sum": torch.sym_sum,
    "_sym_sqrt": math.sqrt,
    "_sym_log2": math.log2,
    "_sym_cos": math.cos,
    "_sym_cosh": math.cosh,
    "_sym_sin": math.sin,
    "_sym_sinh": math.sinh,
    "_sym_tan": math.tan,
    "_sym_tanh": math.tanh,
    "_sym_asin": math.asin,
    "_sym_acos": math.acos,
    "_sym_atan": math.atan,
}
BUILTINS: Mapping[str, Function] = {
    "max": max,
    "min": min,
    "abs": abs,
    "int": int,
    "float": float,
    "round": round,
}
