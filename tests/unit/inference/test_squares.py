"""An axis whose sizes are squares is not called fixed."""

from __future__ import annotations

import math

import pytest

from composecli.core.dims import unknown_reason
from composecli.core.pytree import Call, Tree
from composecli.inference.free_dims import explore_axes
from tests.parsing import spec
from tests.unit.inference.builders import call, example, observe, sizes


@pytest.mark.parametrize("base", [1, 4, 16, 49, 64, 196])
def test_a_length_that_is_viewed_as_a_square_is_unknown(base: int) -> None:
    def forward(tried: Call) -> Tree | None:
        _, length = sizes(tried)
        side = math.isqrt(length)
        return spec(f"float32[3, {side}]") if side * side == length else None

    explored = explore_axes(example(call(f"float32[3, {base}]"), forward), observe(forward))
    ((_, dim),) = explored.inputs.values()
    reason = unknown_reason(dim)
    assert reason is not None
    assert reason.startswith("the sizes that it takes are squares; took ")
    (output,) = explored.outputs
    assert output.dims is not None
    assert str(output.dims[1]) == "?"


@pytest.mark.parametrize(("base", "step"), [(16, 16), (64, 32), (36, 9)])
def test_a_square_of_a_step_is_a_multiple(base: int, step: int) -> None:
    def forward(tried: Call) -> Tree | None:
        _, length = sizes(tried)
        return spec("float32[3, 8]") if length % step == 0 else None

    explored = explore_axes(example(call(f"float32[3, {base}]"), forward), observe(forward))
    ((_, dim),) = explored.inputs.values()
    assert str(dim) == f"D%{step}==0"
