"""Sizes of the input at which a seam fits are found, next to those of the example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.compose.compare import ConsumerPort, ProducerPort
from composecli.compose.fitting_sizes import fitting_sizes
from composecli.core.dims import Free, admits, as_expr, as_free, parse_dim
from composecli.core.size_expr import evaluate
from tests.parsing import port, spec


def found(gives: str, takes: str, sizes: dict[str, int]) -> dict[str, int] | None:
    """Return the sizes that change for one pair of ports."""
    given = port(gives)
    example = tuple(_size(dim, sizes) for dim in given.dims or ())
    producer = ProducerPort("a.pt", given, spec(f"float32[{', '.join(map(str, example))}]"))
    ranges = tuple(Free(name) for name in sizes)
    return fitting_sizes(((producer, ConsumerPort("b.pt", port(takes))),), ranges, sizes)


def _size(dim: object, sizes: dict[str, int]) -> int:
    expr = as_expr(parse_dim(str(dim)))
    assert expr is not None
    return evaluate(expr, sizes)


@pytest.mark.parametrize(
    ("gives", "takes", "sizes", "changed"),
    [
        ("float32[1, C, H, W]", "float32[N, 3, H>=3, W>=3]", "C=8 H=2 W=4", {"C": 3, "H": 3}),
        ("float32[N, 4, D//4]", "float32[N, 4, L>=3]", "N=2 D=4", {"D": 12}),
        ("float32[N, D]", "float32[N, 20]", "N=2 D=8", {"D": 20}),
        ("float32[H, W]", "float32[D, D]", "H=5 W=7", {"W": 5}),
        ("float32[2*H, W]", "float32[D, 3*D]", "H=4 W=9", {"W": 24}),
        # Both sides of an image that is flattened.
        ("float32[N, 8*H*W]", "float32[N, 392]", "N=2 H=64 W=64", {"H": 7, "W": 7}),
        ("float32[N, 4*H*W]", "float32[N, 24]", "N=2 H=64 W=64", {"H": 1, "W": 6}),
        # No size of the input helps.
        ("float32[N, 2*D]", "float32[N, 5]", "N=2 D=4", None),
        ("float32[N, 16]", "float32[N, 32]", "N=2", None),
        ("float32[N, 8]", "float32[N, 8]", "N=2", {}),
    ],
)
def test_sizes_that_fit(gives: str, takes: str, sizes: str, changed: dict[str, int] | None) -> None:
    by_name = {name: int(size) for name, size in (part.split("=") for part in sizes.split())}
    assert found(gives, takes, by_name) == changed


@given(
    st.sampled_from(["D", "D//2", "ceil(D/4)", "2*D + 1", "3*(D//8)"]),
    st.sampled_from(["5", "E>=7", "E%4==0", "E%4 in {0, 3}", "9<=E<=12"]),
    st.integers(1, 60),
)
def test_a_size_that_is_found_fits_and_is_missed_only_if_none_does(
    gives: str, takes: str, size: int
) -> None:
    expr, dim = as_expr(parse_dim(gives)), parse_dim(takes)
    assert expr is not None
    fitting = [other for other in range(1, 4000) if admits(dim, evaluate(expr, {"D": other}))]
    changed = found(f"float32[{gives}]", f"float32[{takes}]", {"D": size})
    if changed is None:
        assert not [other for other in fitting if evaluate(expr, {"D": other}) > 0]
    else:
        assert changed.get("D", size) in fitting
    assert as_free(dim) or takes == "5"
