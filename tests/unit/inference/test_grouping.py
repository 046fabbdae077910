"""Axes that only change together are one group."""

from __future__ import annotations

from dataclasses import replace

from composecli.core.dims import Fixed, Free, Shape
from composecli.core.pytree import Axis, Call, KeyPath, Tree, call_leaves
from composecli.inference.axis_groups import Example
from composecli.inference.grouping import groups_of
from tests.parsing import spec
from tests.unit.inference.builders import Forward, call, example, observe


def grouped(tried: Example, forward: Forward) -> list[tuple[Axis, ...]]:
    """Return the axes of each group."""
    return [group.axes for group in groups_of(tried, observe(forward))]


def concatenate(tried: Call) -> Tree | None:
    """Accept two inputs `(N, C, 8)` of one batch, with any C each."""
    (_, left), (_, right) = call_leaves(tried)
    if left.sizes[0] != right.sizes[0] or left.sizes[2] != 8 or right.sizes[2] != 8:
        return None
    return spec("float32[2, 3]")


def test_batches_of_two_inputs_change_together() -> None:
    tried = example(call("float32[2, 5, 8]", "float32[2, 7, 8]"), concatenate)
    assert grouped(tried, concatenate) == [
        (((0,), 0), ((1,), 0)),
        (((0,), 1),),
        (((0,), 2),),
        (((1,), 1),),
        (((1,), 2),),
    ]


def test_fixed_axes_are_in_no_group() -> None:
    tried = example(call("float32[2, 5, 8]", "float32[2, 7, 8]"), concatenate)
    fixed = replace(tried, fixed=frozenset({((0,), 2), ((1,), 2)}))
    assert len(grouped(fixed, concatenate)) == 3


def test_sides_of_a_square_matrix_change_together() -> None:
    def square(tried: Call) -> Tree | None:
        ((_, matrix),) = call_leaves(tried)
        return matrix if matrix.sizes[0] == matrix.sizes[1] else None

    tried = example(call("float32[9, 9]"), square)
    assert grouped(tried, square) == [(((0,), 0), ((0,), 1))]


def test_stated_axes_are_grouped_by_name_without_a_probe() -> None:
    def reject_all(tried: Call) -> Tree | None:
        return None

    tried = example(call("float32[2, 8]", "float32[2, 8]"), lambda call: spec("float32[2]"))
    stated: dict[KeyPath, Shape] = {(0,): (Free("N"), Free("T", 4)), (1,): (Free("N"), Fixed(8))}
    groups = list(groups_of(replace(tried, stated=stated), observe(reject_all)))
    assert [(group.name, group.axes) for group in groups] == [
        ("N", (((0,), 0), ((1,), 0))),
        ("T", (((0,), 1),)),
    ]


def test_empty_axes_are_in_no_group() -> None:
    tried = example(call("float32[0, 3]"), lambda call: spec("float32[2]"))
    assert grouped(tried, lambda call: spec("float32[2]")) == [(((0,), 1),)]
