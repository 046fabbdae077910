"""Limits that hold only because of the example's size of another input are not limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from composecli.core.pytree import Call, Tree, call_leaves
from composecli.inference.free_dims import ExploredAxes, explore_axes
from tests.parsing import spec
from tests.unit.inference.builders import call, example, observe


def explored(accepts: Callable[[int, int], bool], first: int, second: int) -> ExploredAxes:
    """Return what is found of two inputs `(3, L)` whose lengths are accepted together."""

    def forward(tried: Call) -> Tree | None:
        (_, left), (_, right) = call_leaves(tried)
        (rows, length), (other_rows, other_length) = left.sizes, right.sizes
        if rows != 3 or other_rows != 3 or not accepts(length, other_length):
            return None
        return spec("float32[3, 8]")

    tried = example(call(f"float32[3, {first}]", f"float32[3, {second}]"), forward)
    return explore_axes(tried, observe(forward))


def texts(found: ExploredAxes) -> list[str]:
    """Return the dims of axis 1 of each input."""
    return [str(dims[1]) for dims in found.inputs.values()]


@pytest.mark.parametrize("strides", [(4, 6), (6, 4), (2, 3), (8, 5)])
def test_strides_of_two_inputs_are_tied(strides: tuple[int, int]) -> None:
    one, other = strides
    found = explored(lambda x, y: 0 < x // one == y // other, 10 * one, 10 * other + 1)
    assert texts(found) == [f"D>={one}", f"{other}*(D//{one})"]


def test_the_example_has_the_size_that_the_tie_gives() -> None:
    found = explored(lambda x, y: 0 < x // 4 == y // 6, 40, 64)
    assert [tensor.sizes for _, tensor in call_leaves(found.example.call)] == [(3, 40), (3, 60)]


def test_a_longer_input_is_not_said_to_end_at_the_length_of_the_other() -> None:
    found = explored(lambda x, y: x <= y, 40, 64)
    assert texts(found) == ["D", "D2"]
    assert [str(relation) for relation in found.where] == ["D<=D2"]


def test_inputs_that_limit_each_other_are_tried_at_equal_sizes() -> None:
    found = explored(lambda x, y: x <= y <= 2 * x + 1, 40, 64)
    assert texts(found) == ["?", "?"]
    assert found.equalized is not None
    sizes = [tensor.sizes for _, tensor in call_leaves(found.equalized.call)]
    assert sizes == [(3, 64), (3, 64)]


def test_multiples_that_nothing_lies_below_have_no_borrowed_limit() -> None:
    found = explored(lambda x, y: x % 6 == 0, 6, 8)
    assert texts(found) == ["D%6==0", "D2"]


def test_limits_of_two_inputs_that_are_their_own_are_kept() -> None:
    found = explored(lambda x, y: 5 <= x <= 77 and y <= 90, 40, 64)
    assert texts(found) == ["5<=D<=77", "D2<=90"]


def test_a_limit_that_no_rule_explains_is_withdrawn_with_what_it_follows() -> None:
    found = explored(lambda x, y: x * x <= y, 8, 64)
    (_, dim), (_, other) = found.inputs.values()
    assert str(dim) == str(other) == "?"
    assert "follow" in repr(dim)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 5), (5, 1)])
def test_a_size_that_is_broadcast_is_no_limit(sizes: tuple[int, int]) -> None:
    found = explored(lambda x, y: x == y or 1 in (x, y), *sizes)
    for text in texts(found):
        assert "<" not in text
