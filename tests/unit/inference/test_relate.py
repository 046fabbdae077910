"""Axes of one input that their product relates are found, and nothing else is called related."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from composecli.core.contract import Port
from composecli.core.dims import as_expr, as_free, parse_shape
from composecli.core.pytree import Call, Tree, call_leaves
from composecli.core.relations import all_hold, format_where, parse_where
from composecli.core.size_expr import evaluate
from composecli.inference.free_dims import explore_axes
from composecli.inference.relate import relate_axes
from tests.parsing import spec
from tests.unit.inference.builders import call, example, observe


def model(takes: str, where: str, gives: str) -> Callable[[Call], Tree | None]:
    """Return a forward that accepts exactly the sizes of a contract with a relation."""
    dims, outputs, relations = parse_shape(takes), parse_shape(gives), parse_where(where)

    def forward(tried: Call) -> Tree | None:
        ((_, tensor),) = call_leaves(tried)
        known = dict[str, int]()
        for dim, size in zip(dims, tensor.sizes, strict=True):
            free = as_free(dim)
            if free is not None:
                known[free.name] = size
            elif str(dim) != str(size):
                return None
        if 0 in tensor.sizes or not all_hold(relations, known):
            return None
        sizes = [evaluate(expr, known) for dim in outputs if (expr := as_expr(dim)) is not None]
        return spec(f"float32[{', '.join(map(str, sizes))}]")

    return forward


def found(forward: Callable[[Call], Tree | None], sizes: str) -> str:
    """Return the contract that is found from an example of these sizes."""
    tried = example(call(f"float32[{sizes}]"), forward)
    explored = relate_axes(explore_axes(tried, observe(forward)), observe(forward))
    (dims,) = explored.inputs.values()
    (output,) = explored.outputs
    return f"{Port('', (), 'x', dims)}{format_where(explored.where)} -> {output}"


@pytest.mark.parametrize(
    ("takes", "where", "gives", "sizes"),
    [
        ("N, C, H, W", "C*H*W == 1024", "N, 10", "2, 16, 8, 8"),
        ("N, C, H, W", "C*H*W == 1024", "N, 10", "2, 1, 32, 32"),
        ("N, C, H, W", "H*W == 49", "N, C, 4", "2, 3, 7, 7"),
        ("N, 3, H, W", "H*W == 64", "N, 10", "2, 3, 4, 16"),
        ("N, T, L", "T*L == 96", "N, 5", "2, 8, 12"),
        ("N, D", "N*D == 24", "4, 5", "2, 12"),
        ("N, C, H, W", "N*C*H*W % 1024 == 0", "N*C*H*W//1024, 4", "2, 3, 64, 64"),
        ("N, C, H, W", "N*C*H*W % 1024 == 0", "N*C*H*W//1024, 4", "2, 16, 8, 8"),
        ("N, T, L", "T*L % 16 == 0", "N, T*L//16, 4", "2, 3, 16"),
        ("N, T, L", "T*L % 32 == 0", "N, T*L//32, 4", "2, 8, 12"),
        ("N, 3, H, W", "N*H*W % 64 == 0", "N*H*W//64, 10", "2, 3, 64, 64"),
        ("N, D", "N*D % 6 == 0", "N*D//6, 5", "2, 12"),
    ],
)
def test_a_product_is_found(takes: str, where: str, gives: str, sizes: str) -> None:
    expected = f"x[{takes}] where {where} -> float32[{gives}]"
    assert found(model(takes, where, gives), sizes) == expected


@pytest.mark.parametrize(
    ("takes", "where", "sizes"),
    [
        ("N, 3, H, W", "H + W == 16", "2, 3, 6, 10"),
        ("N, 3, H, W", "(H//4)*(W//4) == 16", "2, 3, 16, 16"),
        ("N, C, H, W", "C*H*W == 1024 and 2 <= H", "2, 16, 8, 8"),
        ("N, C, H, W", "C*H*W % 64 == 0 and C*H*W <= 1024", "2, 16, 8, 8"),
        ("N, 4, 6", "N<=5", "2, 4, 6"),
        ("N, 12, 12", "N<=5", "2, 12, 12"),
    ],
)
def test_what_is_no_product_is_not_called_one(takes: str, where: str, sizes: str) -> None:
    assert "where" not in found(model(takes, where, "N"), sizes)
