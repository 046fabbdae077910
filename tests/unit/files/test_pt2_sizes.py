"""Size expressions and ranges in torch.export's JSON."""

from __future__ import annotations

from typing import Any, cast

import pytest

from composecli.core.size_expr import Const, Symbol, add, evaluate, floor_divide, multiply
from composecli.files.pt2_layout import ExportedProgram, SymInt
from composecli.files.pt2_sizes import UNBOUNDED, UnknownExpression, parse_size, ranges_of, size_of

S0 = Symbol("s0")


def expression(text: str) -> SymInt:
    return {"as_expr": {"expr_str": text, "hint": {"as_int": 4}}}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"as_int": 7}, Const(7)),
        (expression("Symbol('s0', positive=True, integer=True)"), S0),
        (expression("Integer(-3)"), Const(-3)),
        (expression("Add(Symbol('s0'), Integer(1))"), add(S0, Const(1))),
        (expression("Mul(Integer(2), Symbol('s0'))"), multiply(Const(2), S0)),
        (expression("FloorDiv(Symbol('s0'), Integer(2))"), floor_divide(S0, 2)),
    ],
)
def test_sizes_are_parsed(size: SymInt, expected: object) -> None:
    assert parse_size(size) == expected
    assert size_of(size) == expected


def test_nested_expressions_have_the_value_of_sympy() -> None:
    text = "Add(Integer(1), FloorDiv(Add(Symbol('s0'), Integer(-1)), Integer(2)))"
    parsed = parse_size(expression(text))
    assert [evaluate(parsed, {"s0": size}) for size in (1, 2, 3, 64)] == [1, 1, 2, 32]


@pytest.mark.parametrize(
    "text",
    [
        "Max(Symbol('s0'), Integer(1))",
        "FloorDiv(Symbol('s0'), Integer(0))",
        "FloorDiv(Symbol('s0'), Symbol('s1'))",
        "__import__('os').system('true')",
        "s0 + 1",
        "Add(",
    ],
)
def test_other_expressions_are_unknown(text: str) -> None:
    assert size_of(expression(text)) is None
    with pytest.raises((UnknownExpression, SyntaxError)):
        parse_size(expression(text))


def test_a_bound_that_no_size_reaches_is_none() -> None:
    constraints: dict[str, Any] = {
        "s0": {"min_val": 2, "max_val": 16},
        "s1": {"min_val": 0, "max_val": UNBOUNDED},
        "s2": {"min_val": None, "max_val": None},
    }
    program = cast(ExportedProgram, {"range_constraints": constraints})
    assert ranges_of(program) == {"s0": (2, 16), "s1": (0, None), "s2": (None, None)}
