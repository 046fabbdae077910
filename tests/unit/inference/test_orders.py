"""Sizes of one input that may be up to those of another are found, and nothing else is an order."""

from __future__ import annotations

import pytest

from composecli.core.pytree import Call, Tree, call_leaves
from composecli.core.relations import all_hold, parse_where
from composecli.inference.free_dims import ExploredAxes, explore_axes
from tests.parsing import spec
from tests.unit.inference.builders import call, example, observe


def found(where: str, sizes: tuple[int, int]) -> ExploredAxes:
    """Return the axes of a model of `(N, T, 8)` and `(N, S, 8)` that accepts only such sizes."""
    relations = parse_where(where)

    def forward(tried: Call) -> Tree | None:
        (_, one), (_, other) = call_leaves(tried)
        known = {"N": one.sizes[0], "T": one.sizes[1], "S": other.sizes[1]}
        if other.sizes[0] != known["N"] or one.sizes[2] != 8 or other.sizes[2] != 8:
            return None
        if 0 in known.values() or not all_hold(relations, known):
            return None
        return spec(f"float32[{known['N']}, {known['T']}, 5]")

    first, second = sizes
    tried = example(call(f"float32[2, {first}, 8]", f"float32[2, {second}, 8]"), forward)
    return explore_axes(tried, observe(forward))


@pytest.mark.parametrize(
    ("where", "sizes", "expected"),
    [("T<=S", (5, 9), "T<=T2"), ("S<=T", (9, 5), "T2<=T"), ("T<=S", (1, 30), "T<=T2")],
)
def test_an_order_is_found(where: str, sizes: tuple[int, int], expected: str) -> None:
    explored = found(where, sizes)
    shapes = [", ".join(map(str, dims)) for dims in explored.inputs.values()]
    assert shapes == ["N, T, 8", "N, T2, 8"]
    assert [str(relation) for relation in explored.where] == [expected]
    assert str(explored.outputs[0]) == "float32[N, T, 5]"


@pytest.mark.parametrize(
    ("where", "sizes"),
    [
        ("T<=9", (5, 9)),
        ("T<=9 and S<=9", (5, 9)),
        ("T <= 2*S", (5, 9)),
        ("T <= S and T<=12", (5, 9)),
        ("T + S <= 14", (5, 9)),
    ],
)
def test_what_is_no_order_is_not_called_one(where: str, sizes: tuple[int, int]) -> None:
    assert found(where, sizes).where == ()
