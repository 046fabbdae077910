"""Guards of exported programs: sizes, ranges and conditions, checked on the input of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch

from composecli.files.pt2_layout import ExportedProgram
from composecli.files.safety.plain_code import is_plain_guard
from composecli.runtime.pt2.guards import Guards, UnknownGuard

N = "Symbol('s0', integer=True)"
H = "Symbol('s1', integer=True)"


def program(
    sizes: dict[str, Sequence[int | str]],
    ranges: dict[str, tuple[int | None, int | None]] | None = None,
    guards: Sequence[str] = (),
) -> ExportedProgram:
    """A program as JSON, whose inputs have these sizes: numbers, or expressions of sympy."""
    tensors = {}
    for name, axes in sizes.items():
        written = [
            {"as_int": axis} if isinstance(axis, int) else {"as_expr": {"expr_str": axis}}
            for axis in axes
        ]
        tensors[name] = {"sizes": written}
    constraints = {
        symbol: {"min_val": low, "max_val": high} for symbol, (low, high) in (ranges or {}).items()
    }
    data: dict[str, Any] = {
        "graph_module": {
            "graph": {"tensor_values": tensors},
            "module_call_graph": [{"signature": {"forward_arg_names": list(sizes)}}],
        },
        "range_constraints": constraints,
        "guards_code": list(guards),
    }
    return cast(ExportedProgram, data)


def failure(data: ExportedProgram, *tensors: Any, **named: Any) -> str | None:
    """The guard that fails for these tensors."""
    names = list(data["graph_module"]["graph"]["tensor_values"])
    values = dict(zip(names, (*tensors, *named.values()), strict=True))
    try:
        Guards(data, names).check(values, tensors, named)
    except RuntimeError as error:
        return str(error).removeprefix("Guard failed: ")
    return None


@pytest.mark.parametrize(
    ("sizes", "failed"),
    [
        ((2, 3), None),
        ((2, 4), "x.size()[1] == 3"),
        ((5, 3), "x.size()[0] == 2"),
        ((2,), "x has 2 axes"),
        ((), "x has 2 axes"),
    ],
)
def test_fixed_sizes_must_be_equal(sizes: tuple[int, ...], failed: str | None) -> None:
    assert failure(program({"x": (2, 3)}), torch.empty(sizes)) == failed


def test_an_input_that_is_not_a_tensor_fails() -> None:
    assert failure(program({"x": (2, 3)}), 3) == "x has 2 axes"


@pytest.mark.parametrize(
    ("low", "high", "size", "failed"),
    [
        (4, 9, 4, None),
        (4, 9, 9, None),
        (4, 9, 3, "x.size()[0] >= 4"),
        (4, 9, 10, "x.size()[0] <= 9"),
        (2, None, 1, None),
        (2, None, 0, None),
        (3, None, 2, "x.size()[0] >= 3"),
        (None, None, 0, None),
        (3, 2**63 - 1, 10**6, None),
    ],
)
def test_a_lower_bound_of_two_is_the_exporters_own(
    low: int | None, high: int | None, size: int, failed: str | None
) -> None:
    data = program({"x": (N,)}, {"s0": (low, high)})
    assert failure(data, torch.empty(size)) == failed


def test_a_symbol_has_one_value_in_all_inputs() -> None:
    data = program({"x": (N, 3), "y": (N,)})
    assert failure(data, torch.empty(4, 3), torch.empty(4)) is None
    assert failure(data, torch.empty(4, 3), torch.empty(5)) == "y.size()[0] == s0"


@pytest.mark.parametrize(
    ("one", "other", "failed"),
    [
        (9, 4, None),
        (8, 4, "x.size()[0] == 2*s1 + 1"),
        (9, 3, "x.size()[0] == 2*s1 + 1"),
    ],
)
def test_a_derived_size_is_checked_after_the_symbols_it_is_made_of(
    one: int, other: int, failed: str | None
) -> None:
    derived = f"Add(Mul(Integer(2), {H}), Integer(1))"
    data = program({"x": (derived,), "y": (H,)})
    assert failure(data, torch.empty(one), torch.empty(other)) == failed


@pytest.mark.parametrize(("size", "holds"), [(9, True), (8, False), (1, True)])
def test_a_symbol_that_is_no_size_itself_is_solved_for(size: int, holds: bool) -> None:
    data = program({"x": (f"Add(Mul(Integer(2), {H}), Integer(1))",)})
    assert (failure(data, torch.empty(size)) is None) == holds


def test_a_size_that_is_not_understood_is_an_unknown_guard() -> None:
    with pytest.raises(UnknownGuard):
        Guards(program({"x": (f"Mod({N}, Integer(2))",)}), ["x"])


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("L['x'].size()[0] == 6", True),
        ("L['x'].size()[0] % 4 == 0", False),
        ("2 <= L['x'].size()[1] < 4", True),
        ("2 <= L['x'].size()[1] < 3", False),
        ("L['x'].dim() == 2 and L['x'].numel() == 18", True),
        ("L['x'].dim() == 3 or L['x'].stride()[0] == 3", True),
        ("not L['x'].storage_offset() == 0", False),
        ("max(L['x'].size()[0], 9) - 1 == 8", True),
        ("math.floor(L['x'].size()[0] / 4) == 1", True),
        ("-L['x'].size()[0] + 6 != 0", False),
        ("L['x'].size()[0] ** 2 // 5 == 7", True),
        ("L['flag'] == True", False),
        ("L['pair'][1] == 3", True),
    ],
)
def test_conditions_are_evaluated_on_the_arguments(condition: str, holds: bool) -> None:
    guards = Guards(program({"x": (6, 3), "flag": ()}, guards=[condition]), ["x"])
    x = torch.empty(6, 3)
    named = {"pair": (2, 3)}
    if holds:
        guards.check({"x": x}, (x, False), named)
    else:
        with pytest.raises(RuntimeError, match="Guard failed: ") as raised:
            guards.check({"x": x}, (x, False), named)
        assert str(raised.value) == f"Guard failed: {condition}"


@pytest.mark.parametrize(
    "condition", ["L['absent'] == 3", "L['x'].size()[5] == 3", "L['x'].shape == 3"]
)
def test_a_condition_on_what_the_call_does_not_have_is_ignored(condition: str) -> None:
    assert failure(program({"x": (6, 3)}, guards=[condition]), torch.empty(6, 3)) is None


@pytest.mark.parametrize(
    "condition",
    [
        "math.trunc(torch.sym_float(L['x'].size()[0]) / 4.0) == 1",
        "torch._sym_sqrt(L['x'].size()[0] * 6) == 6.0",
        "round(L['x'].size()[0] / 4) == 2",
        "(3 if L['x'].size()[0] > 5 else 9) == L['x'].size()[1]",
        "L['x'].size()[0] << 1 == 12 and L['x'].size()[0] >> 1 == 3",
        "L['x'].size()[0] & 3 == 2 and L['x'].size()[0] | 1 == 7 and L['x'].size()[0] ^ 1 == 7",
        "torch.sym_max(L['x'].size()[0], 2) == 6 and L['x'].size()[0] < math.inf",
    ],
)
def test_arithmetic_that_exports_write_is_evaluated(condition: str) -> None:
    assert is_plain_guard(condition)
    assert failure(program({"x": (6, 3)}, guards=[condition]), torch.empty(6, 3)) is None
    opposite = f"not ({condition})"
    assert failure(program({"x": (6, 3)}, guards=[opposite]), torch.empty(6, 3)) == opposite


def test_a_function_that_is_not_known_is_not_taken_for_a_condition_that_holds() -> None:
    with pytest.raises(UnknownGuard):
        Guards(program({"x": (6,)}, guards=["len('a') == 3"]), ["x"])
