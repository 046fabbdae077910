"""Texts that PyTorch evaluates: arithmetic is plain, and whatever could run code is not."""

from __future__ import annotations

import pytest

from composecli.files.safety.plain_code import (
    MAX_EXPRESSION_LENGTH,
    is_plain_expression,
    is_plain_guard,
)


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s0', positive=True, integer=True)",
        "Add(Mul(Integer(2), Symbol('s0')), Integer(-1))",
        "FloorDiv(Symbol('s0'), Integer(2))",
        "Pow(Symbol('s0'), Integer(2))",
        "s0 + 2*s1 - 1",
        "s0**2",
        "Eq(s0, oo)",
        "Piecewise((s0, s0 < 3), (1, True))",
    ],
)
def test_arithmetic_is_a_plain_expression(text: str) -> None:
    assert is_plain_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "s0.__class__",
        "open('x')",
        "[x for x in (1,)]",
        "lambda: 1",
        "s0[0]",
        "9**9**9",
        "2**65",
        "2**s0",
        "Symbol('a b')",
        "1e5j",
        str(2**64),
        "b'x'",
        "...",
        "(",
        "",
        "s0 + " * MAX_EXPRESSION_LENGTH + "1",
    ],
)
def test_anything_else_is_not_a_plain_expression(text: str) -> None:
    assert not is_plain_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "L['x'].size()[1] == 3",
        "L['x'].stride()[0] * 2 >= L['y'].numel()",
        "max(L['x'].size()[0], 2) <= 16",
        "math.ceil(L['x'].size()[0] / 2) == L['y'].dim()",
    ],
)
def test_comparing_sizes_is_a_plain_guard(text: str) -> None:
    assert is_plain_guard(text)


@pytest.mark.parametrize(
    "text",
    [
        "L['x'].size(0) == 3",
        "L['x'].item() == 3",
        "L['x'].tolist",
        "math.factorial(9)",
        "max(L['x'].size()[0], key=L)",
        "print(1)",
        "G['x'].size()[0] == 3",
        "L['x'].size()[0] == 3 # comment",
        "True\n",
        "L['x'].size()[0] ==",
    ],
)
def test_anything_else_is_not_a_plain_guard(text: str) -> None:
    assert not is_plain_guard(text)
