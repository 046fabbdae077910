"""The step and both ends of a range are found with few probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from composecli.core.dims import Free
from composecli.core.pytree import Call, Tree
from composecli.inference.axis_groups import AxisGroup, Example, make_group, try_size
from composecli.inference.bounds import find_bounds
from tests.parsing import spec
from tests.unit.inference.builders import call, example, observe, sizes


def model(accepts: Callable[[int], bool], axis: int) -> Callable[[Call], Tree | None]:
    """Return a model that accepts certain sizes of one axis."""

    def forward(tried: Call) -> Tree | None:
        return spec("float32[2]") if accepts(sizes(tried)[axis]) else None

    return forward


def explore(
    text: str, axis: int, accepts: Callable[[int], bool], limits: tuple[int, ...] = ()
) -> AxisGroup:
    """Return the group of one axis after its bounds were found."""
    forward = model(accepts, axis)
    tried = replace(example(call(text), forward), limits=limits)
    group = make_group(tried, (((0,), axis),))
    group.assign_name("H")
    for size in (group.base + 1, 2 * group.base):
        try_size(tried.call, group, size, observe(forward))
    find_bounds(tried, group, observe(forward))
    return group


def accepts_multiples_of_16_up_to_224(size: int) -> bool:
    return size % 16 == 0 and size <= 224


@pytest.mark.parametrize(
    ("text", "axis", "accepts", "dim"),
    [
        ("float32[2, 3, 64, 64]", 2, lambda size: size >= 7, "H>=7"),
        ("float32[2, 3, 64, 64]", 2, accepts_multiples_of_16_up_to_224, "H<=224 & H%16==0"),
        ("float32[2, 3, 64, 64]", 2, lambda size: 40 <= size <= 150, "40<=H<=150"),
        ("float32[2, 8]", 1, lambda size: size == 8, "8"),
        ("float32[2, 8]", 0, lambda size: True, "H"),
    ],
)
def test_range_is_exact(text: str, axis: int, accepts: Callable[[int], bool], dim: str) -> None:
    assert str(explore(text, axis, accepts).dim()) == dim


@pytest.mark.parametrize("length", [512, 510])
def test_distant_end_is_found_at_a_limit_or_shortly_below(length: int) -> None:
    group = explore("int64[2, 8]", 1, lambda size: size <= length, limits=(512,))
    assert str(group.dim()) == f"H<={length}"


def test_limits_are_not_tried_on_images() -> None:
    group = explore("float32[2, 3, 8, 8]", 2, lambda size: size <= 512, limits=(512,))
    assert str(group.dim()) == "H"


def test_too_expensive_sizes_are_not_tried() -> None:
    forward = model(lambda size: True, 1)
    tried: Example = replace(example(call("int64[2, 8]"), forward), limits=(512,), cost=1e12)
    group = make_group(tried, (((0,), 1),))
    try_size(tried.call, group, 9, observe(forward))
    find_bounds(tried, group, observe(forward))
    assert max(group.accepted) < 128


def test_stated_dim_is_confirmed_at_three_sizes_that_it_allows() -> None:
    forward = model(lambda size: True, 1)
    tried = example(call("float32[2, 16]"), forward)
    group = make_group(tried, (((0,), 1),), Free("T", 16, 64, 8))
    find_bounds(tried, group, observe(forward))
    assert sorted(group.accepted) == [16, 24, 32, 40]


def test_ends_of_a_similar_group_are_tried_before_others() -> None:
    def accepts(size: int) -> bool:
        return 25 <= size <= 90

    height = explore("float32[2, 3, 64, 64]", 2, accepts)
    forward = model(accepts, 3)
    tried = example(call("float32[2, 3, 64, 64]"), forward)
    width = make_group(tried, (((0,), 3),))
    width.assign_name("W")
    probe = observe(forward)
    try_size(tried.call, width, 65, probe)
    find_bounds(tried, width, probe, similar=height)
    assert str(width.dim()) == "25<=W<=90"
    assert len(width.accepted) + len(width.rejected) <= 10
