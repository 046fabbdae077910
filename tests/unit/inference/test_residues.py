"""Remainders of accepted sizes: models that round a size up or down, and other patterns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from composecli.core.dims import Free, admits, as_free, parse_dim, sizes_between
from composecli.core.pytree import Call, Tree
from composecli.inference.axis_groups import BROADCAST_RATIO
from composecli.inference.free_dims import explore_axes
from tests.parsing import spec
from tests.unit.inference.builders import call, example, observe, sizes


def parse_free(text: str) -> Free:
    """Parse the text of a free dim."""
    free = as_free(parse_dim(text))
    assert free is not None
    return free


def found(dim: Free, base: int) -> Free | None:
    """Return the dim that is found for a model which accepts these sizes of axis 1."""

    def forward(tried: Call) -> Tree | None:
        _, size = sizes(tried)
        if admits(dim, size):
            return spec(f"float32[{size}]")
        return None

    tried = example(call(f"float32[2, {base}]"), forward)
    ((_, second),) = explore_axes(tried, observe(forward)).inputs.values()
    return as_free(second)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("D%4 in {0, 3}", 64),
        ("D>=4 & D%4 in {0, 1}", 64),
        ("D%16 in {0, 15}", 64),
        ("D>=16 & D%16 in {0, 1}", 64),
        ("D%32 in {0, 29, 30, 31}", 64),
        ("D%4==3", 63),
        ("D<=100 & D%4 in {0, 3}", 64),
        ("22<=D<=96 & D%8 in {0, 6, 7}", 64),
        ("D%6 in {0, 2}", 60),
    ],
)
def test_remainders_are_found(text: str, base: int) -> None:
    assert str(found(parse_free(text), base)) == text


@settings(max_examples=60)
@given(st.sampled_from([2, 3, 4, 6, 8, 12, 16, 32]), st.data())
def test_a_dim_that_is_found_admits_what_the_model_accepts(step: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, min(4, step // 2)))
    # Rounding up or down allows sizes around the multiples of the step.
    first = data.draw(st.integers(1 - count, 0))
    residues = tuple(sorted((first + number) % step for number in range(count)))
    low = data.draw(st.sampled_from([1, 1, step, 2 * step]))
    dim = Free("D", low, None, step, residues)
    (base, *_) = sizes_between(Free("D", step=step), 64, 200)
    concluded = found(dim, base)
    if concluded is not None:
        # Size 1 counts as broadcast if 2 is refused.
        assert sizes_between(concluded, 2, 400) == sizes_between(dim, 2, 400)


@settings(max_examples=150)
@given(st.sets(st.integers(1, 90)), st.integers(2, 70))
def test_a_dim_never_contradicts_the_sizes_that_were_tried(others: set[int], base: int) -> None:
    accepted = {base, *others}
    tried_sizes = set[int]()

    def forward(tried: Call) -> Tree | None:
        _, size = sizes(tried)
        tried_sizes.add(size)
        if size in accepted:
            return spec(f"float32[{size}]")
        return None

    tried = example(call(f"float32[2, {base}]"), forward)
    ((_, dim),) = explore_axes(tried, observe(forward)).inputs.values()
    for size in tried_sizes - {1}:
        # Sizes far below the others count as broadcast.
        if size > base // BROADCAST_RATIO:
            assert admits(dim, size) in (None, size in accepted)
