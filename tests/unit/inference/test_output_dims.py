"""Output dims are expressed in terms of the input dims, or unknown."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from composecli.core.contract import Port
from composecli.core.dims import Fixed, Free, as_dim, unknown_reason
from composecli.core.pytree import Call, TensorSpec, Tree, leaves
from composecli.core.size_expr import Symbol
from composecli.inference.axis_groups import AxisGroup, make_group, try_size
from composecli.inference.output_dims import (
    Results,
    changed_structure,
    disambiguate,
    invalidate,
    probe_jointly,
    to_output_port,
)
from tests.parsing import port, spec
from tests.unit.inference.builders import call, example, observe, sizes


def output(text: str, result_sizes: Callable[[tuple[int, ...]], tuple[int, ...]]) -> str:
    """Return the output port of a model that accepts all sizes of its one input."""

    def forward(tried: Call) -> Tree | None:
        return TensorSpec("float32", result_sizes(sizes(tried)))

    tried, probe = example(call(text), forward), observe(forward)
    groups = []
    for axis, name in enumerate("NTW"[: len(sizes(tried.call))]):
        group = make_group(tried, (((0,), axis),))
        group.assign_name(name)
        for size in (1, 2, group.base + 1, 4 * group.base):
            try_size(tried.call, group, size, probe)
        disambiguate(tried.call, group, probe)
        groups.append(group)
    base = tuple(leaves(tried.result))
    results = Results(base, "", probe_jointly(tried.call, groups, base, probe))
    return str(to_output_port(0, results, groups))


@pytest.mark.parametrize(
    ("result_sizes", "expected"),
    [
        (lambda sizes: (sizes[0], 64, -(-sizes[1] // 8)), "float32[N, 64, ceil(T/8)]"),
        (lambda sizes: (sizes[0], sizes[1] // 2), "float32[N, T//2]"),
        (lambda sizes: (sizes[0] * sizes[1], 7), "float32[N*T, 7]"),
        (lambda sizes: (sizes[0] + sizes[1],), "float32[N + T]"),
        (lambda sizes: (sizes[1] ** 2,), "float32[?]"),
        (lambda sizes: (5,), "float32[5]"),
    ],
)
def test_output_sizes_follow_from_input_sizes(
    result_sizes: Callable[[tuple[int, ...]], tuple[int, ...]], expected: str
) -> None:
    assert output("float32[4, 16]", result_sizes) == expected


@pytest.mark.parametrize(
    ("at_five", "reason"),
    [
        (("float32[2]",) * 5, "the number of outputs changes with T: 4 at T = 4, 5 at T = 5"),
        (("float32[2, 1]",) * 4, "the dtype or rank of the result changes with T"),
        (("float32[2]",) * 4, None),
    ],
)
def test_dims_are_unknown_if_the_structure_changes(
    at_five: tuple[str, ...], reason: str | None
) -> None:
    base = tuple(((number,), spec("float32[2]")) for number in range(4))
    larger = tuple(((number,), spec(text)) for number, text in enumerate(at_five))
    group = AxisGroup((((0,), 1),), 4, "T", accepted={4: base, 5: larger})
    results = Results(base, changed_structure(base, [group]), {})
    port_ = to_output_port(0, results, [group])
    assert {unknown_reason(dim) for dim in port_.dims or ()} == {reason}


def predicted() -> tuple[Port, ...]:
    return (Port("y", (), "float32", (Free("N"), Fixed(8), as_dim(Symbol("H")))),)


def test_dims_that_predict_another_size_become_unknown() -> None:
    result = (((), spec("float32[3, 8, 16]")),)
    (checked,) = invalidate(predicted(), result, {"N": 3, "H": 17})
    assert str(checked) == "float32[N, 8, ?]"
    assert unknown_reason((checked.dims or ())[2]) == (
        "H by the first observations, but 16 at N = 3 with H = 17"
    )


def test_correct_predictions_are_kept() -> None:
    result = (((), spec("float32[3, 8, 17]")),)
    assert invalidate(predicted(), result, {"N": 3, "H": 17}) == predicted()


def test_all_dims_become_unknown_if_the_result_has_another_rank() -> None:
    (checked,) = invalidate(predicted(), (((), spec("float32[3, 8]")),), {"N": 3})
    assert str(checked) == str(port("float32[?, ?, ?]"))
