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
        "Float('0.10000000000000001', precision=53)",
        "Float('1.0e-5', precision=53)",
        "TruncToInt(IntTrueDiv(Symbol('s0', integer=True, positive=True), Integer(4)))",
        "FloatPow(ToFloat(Symbol('s0')), Float('0.5', precision=53))",
        "LShift(Symbol('s0', integer=True), Integer(1))",
        "RoundDecimal(IntTrueDiv(Symbol('s0'), Integer(3)), Integer(2))",
        "PowByNatural(Integer(2), Symbol('s0', positive=True, integer=True))",
        "Add(PowByNatural(Integer(2), Add(Integer(-1), Symbol('s0'))), Integer(1))",
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
        "2**(2**64)",
        "2^2^99",
        "1 << 10**9",
        "1 << 65",
        "s0**64**64",
        "((s0**16)**16)**16",
        "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
        "Pow(Pow(Pow(s0, Integer(60)), Integer(60)), Integer(60))",
        "PowByNatural(Integer(9), Integer(99999))",
        "PowByNatural(Integer(2), PowByNatural(Integer(2), Symbol('s0')))",
        "PowByNatural(Integer(2), Mul(Symbol('s0'), Symbol('s0')))",
        "PowByNatural(Symbol('s0'), Symbol('s0'))",
        "Pow(Integer(2), Symbol('s0'))",
        "FloatPow(Float('2.0', precision=53), Symbol('s0'))",
        "LShift(Integer(1), Integer(99999999999))",
        "RoundDecimal(s0, Integer(-99999999))",
        "Float('1e999999999')",
        "Float('1.0', precision=99999999)",
        "Max('open', 1)",
        "Add(Symbol('s0', commutative=open), 1)",
        "open + 1",
        "'a' * 99999999",
        "(1,) * 99999999",
        "s0 in s1",
        "s0 @ s1",
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
        "math.trunc(torch.sym_float(L['x'].size()[3]) / 8.0) >= 2",
        "torch._sym_sqrt(L['x'].size()[0]) < math.inf",
        "not ((L['args'][0].size()[1] % 4 == 0) and L['pair']['mask'].numel() != 3)",
        "(2 if L['x'].size()[0] > 3 else 1) == round(L['n'] * 0.5)",
        "(L['x'].size()[0] % (2 ** L['y'].size()[0])) == 0",
        "2 ** (L['y'].size()[0] - 1) < 5000",
        "L['x']['a+b'].size()[0] == 3",
        "L['x']['a,b']['$x'].size()[0] == L['x']['{a}'].size()[0]",
        "L['x']['a#b'].size()[0] != L['x']['#'].size()[0]",
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
        "9**9**9**9 == 1",
        "2**(2**64) == 1",
        "2**2**L['x'].size()[0] == 1",
        "L['x'].size()[0] ** L['x'].size()[0] == 1",
        "2 ** math.ceil(L['x'].size()[0]) == 1",
        "1 << 99999999999 == 1",
        "'a' * 99999999999 == 1",
        "(1,) * 99999999999 == 1",
        "L['x' * 9999999999] == 1",
        "round(L['x'].size()[0], -99999999) == 1",
        "math.pow(9, 9) == 1",
        "torch.load('x') == 1",
        "torch.sym_fresh_size(3) == 1",
        "L['x'].grad.size()[0] == 1",
        "L['x']['\\''] == 1",
        "'a' in L['x']",
        "max(L['x'].size()[0], key=L)",
        "print(1)",
        "G['x'].size()[0] == 3",
        "L['x'].size()[0] == 3 # comment",
        "True\n",
        "L['x'].size()[0] ==",
        "L['x'].size()[0] == 3 # 2",
        "L['x']['\\x23'].size()[0] == 3 # 2",
        "L['x'][\"it's\"].size()[0] == 3",
        "L['x'][f'{y}'].size()[0] == 3",
    ],
)
def test_anything_else_is_not_a_plain_guard(text: str) -> None:
    assert not is_plain_guard(text)
