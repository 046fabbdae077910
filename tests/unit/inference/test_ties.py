"""Axes of several inputs that follow from each other by a factor, a difference or a rounding."""

from __future__ import annotations

import pytest

from composecli.core.dims import as_expr, as_free, parse_shape
from composecli.core.pytree import Call, Tree, call_leaves
from composecli.core.size_expr import evaluate, symbols
from composecli.inference.free_dims import explore_axes
from composecli.inference.grouping import groups_of
from tests.parsing import spec
from tests.unit.inference.builders import call, example, observe


def shapes_found(shapes: tuple[str, ...], first: tuple[str, ...]) -> tuple[str, ...]:
    """Return the shapes that are found for a model which accepts only sizes of these shapes."""
    parsed = [parse_shape(shape) for shape in shapes]

    def forward(tried: Call) -> Tree | None:
        inputs = [tensor.sizes for _, tensor in call_leaves(tried)]
        axes = [
            pair
            for dims, sizes in zip(parsed, inputs, strict=True)
            for pair in zip(dims, sizes, strict=True)
        ]
        known = dict[str, int]()
        for dim, size in axes:
            free = as_free(dim)
            if free is not None and known.setdefault(free.name, size) != size:
                return None
        for dim, size in axes:
            expr = as_expr(dim)
            assert expr is not None
            if symbols(expr) and evaluate(expr, known) != size:
                return None
            if not symbols(expr) and evaluate(expr, {}) != size:
                return None
        return spec(f"float32[{inputs[0][0]}, 3]")

    tried = example(call(*(f"float32[{sizes}]" for sizes in first)), forward)
    explored = explore_axes(tried, observe(forward))
    return tuple(", ".join(map(str, dims)) for dims in explored.inputs.values())


@pytest.mark.parametrize(
    ("shapes", "first"),
    [
        # The decoder of a U-Net takes features of two or three levels.
        (("N, 8, 2*H, 2*W", "N, 16, H, W"), ("2, 8, 64, 64", "2, 16, 32, 32")),
        (
            ("N, 4, 4*H, 4*W", "N, 8, 2*H, 2*W", "N, 16, H, W"),
            ("2, 4, 64, 64", "2, 8, 32, 32", "2, 16, 16, 16"),
        ),
        (("N, T, 16", "N, 4*T"), ("2, 8, 16", "2, 32")),
        (("N, 8, L + 4", "N, 8, L"), ("2, 8, 68", "2, 8, 64")),
        (("N, 8, 2*L + 3", "N, 8, L"), ("2, 8, 67", "2, 8, 32")),
        # Pooling and strides round.
        (("N, 8, L", "N, 16, ceil(L/2)"), ("2, 8, 64", "2, 16, 32")),
        (("N, 8, L", "N, 16, L//16"), ("2, 8, 256", "2, 16, 16")),
        # A mask covers cached and new tokens.
        (("N, T", "N, T2", "N, T + T2"), ("2, 8", "2, 8", "2, 16")),
        (("N, T", "N, T2", "N, T + T2"), ("2, 5", "2, 8", "2, 13")),
        # A mask or a position for each pixel, patch or voxel.
        (("N, 3, H, W", "N, H*W"), ("2, 3, 64, 64", "2, 4096")),
        (("N, 3, H, W", "N, 3, H, W", "N, H*W"), ("2, 3, 6, 5", "2, 3, 6, 5", "2, 30")),
        (("N, 3, H, W", "(H//4)*(W//4), 8"), ("2, 3, 64, 48", "192, 8")),
        (("N, 3, H, W", "N, 6, ceil(H/2)*ceil(W/2)"), ("2, 3, 16, 20", "2, 6, 80")),
        (("N, 3, D, H, W", "N, D*H*W"), ("2, 3, 5, 4, 6", "2, 120")),
        (("N, T, 8", "N*T, 8", "N*T, 8"), ("2, 5, 8", "10, 8", "10, 8")),
        # The axes of a mask have the sizes of the queries and of the keys, equal or not.
        (("N, 16", "N2, 16", "N, N2"), ("2, 16", "2, 16", "2, 2")),
        (("N, 16", "N2, 16", "N, N2"), ("2, 16", "3, 16", "2, 3")),
        # Keys and values have one length, and queries another.
        (("N, 16", "N2, 16", "N2, 16"), ("2, 16", "2, 16", "2, 16")),
        (("N, T, 16", "T, N"), ("2, 2, 16", "2, 2")),
    ],
)
def test_sizes_that_follow_from_each_other(shapes: tuple[str, ...], first: tuple[str, ...]) -> None:
    found = shapes_found(shapes, first)
    assert _renamed(found) == _renamed(shapes)


def _renamed(shapes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the shapes with the names that this test chose in place of the conventional ones."""
    text = "; ".join(shapes)
    for name, other in (("D2", "T2"), ("D", "T"), ("T1", "T")):
        text = text.replace(name, other)
    return tuple(text.split("; "))


def test_lengths_that_bound_one_batch_each_are_in_one_group_with_it() -> None:
    """Two lists of lengths select the first rows of one batch, so it may be larger than they."""

    def forward(tried: Call) -> Tree | None:
        (_, rows), (_, first), (_, second) = call_leaves(tried)
        if max(first.sizes[1], second.sizes[1]) > rows.sizes[0]:
            return None
        return spec("float32[3]")

    tried = example(call("float32[2, 8]", "int64[3, 2]", "int64[3, 2]"), forward)
    groups = list(groups_of(tried, observe(forward)))
    axes = [axis for group in groups for axis in group.all_axes]
    assert len(axes) == len(set(axes))
    assert (((0,), 0), ((1,), 1), ((2,), 1)) in [group.axes for group in groups]


def test_sizes_that_do_not_follow_stay_fixed() -> None:
    assert shapes_found(("N, 48", "N, 32"), ("2, 48", "2, 32")) == ("N, 48", "N, 32")
