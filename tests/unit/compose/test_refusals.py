"""What a failing op was given is explained by the dims of the producer."""

from __future__ import annotations

import pytest

from composecli.compose.refusals import explanations
from composecli.core.dims import parse_shape
from composecli.core.size_expr import format_expr


@pytest.mark.parametrize(
    ("have", "texts"),
    [
        (4096, ["16*ceil(H/4)*ceil(W/4)"]),
        (256, ["16*ceil(H/4)", "ceil(H/4)*ceil(W/4)"]),
        (8192, ["16*N*ceil(H/4)*ceil(W/4)"]),
        (16, ["ceil(H/4)", "ceil(W/4)"]),
        (17, []),
    ],
)
def test_products_of_neighbouring_dims_are_recognized(have: int, texts: list[str]) -> None:
    dims = parse_shape("N, 16, ceil(H/4), ceil(W/4)")
    found = explanations([dims], have, {"N": 2, "H": 64, "W": 64})
    assert [format_expr(expr) for expr in found] == texts


def test_unknown_dims_explain_nothing() -> None:
    assert list(explanations([parse_shape("N, ?")], 8, {"N": 2})) == []
