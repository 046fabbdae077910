"""Axes of several inputs that follow from each other by a factor, a difference or a rounding."""

from __future__ import annotations

import pytest

from composecli.core.dims import as_expr, as_free, parse_shape
from composecli.core.pytree import Call, Tree, call_leaves
from composecli.core.size_expr import evaluate, symbols
from composecli.inference.free_dims import explore_axes
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


def test_sizes_that_do_not_follow_stay_fixed() -> None:
    assert shapes_found(("N, 48", "N, 32"), ("2, 48", "2, 32")) == ("N, 48", "N, 32")
