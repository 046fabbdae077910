"""Planning a bridge: the consumer accepts the tensor after the fewest steps."""

from __future__ import annotations

import pytest
from hypothesis import given

from composecli.compose.bridge_plan import plan
from composecli.core.bridge import BridgeMode, Cast, Flatten, Linear, Squeeze, apply_all
from composecli.core.contract import Port, accepts
from composecli.core.pytree import TensorSpec
from tests.parsing import port, spec
from tests.strategies import PORTS, SPECS


@pytest.mark.parametrize("mode", BridgeMode)
@given(SPECS, PORTS)
def test_the_consumer_accepts_the_tensor_after_the_steps(
    mode: BridgeMode, found: TensorSpec, wanted: Port
) -> None:
    steps = plan(found, wanted, mode)
    if steps is not None:
        assert accepts(wanted, apply_all(steps, found)) is not False


@given(SPECS, PORTS)
def test_mode_none_adds_nothing_and_auto_nothing_to_train(found: TensorSpec, wanted: Port) -> None:
    assert plan(found, wanted, BridgeMode.NONE) in ((), None)
    steps = plan(found, wanted, BridgeMode.AUTO) or ()
    assert sum(step.parameter_count for step in steps) == 0


@given(SPECS, PORTS)
def test_a_tensor_that_fits_needs_no_bridge(found: TensorSpec, wanted: Port) -> None:
    if accepts(wanted, found):
        assert plan(found, wanted, BridgeMode.LINEAR) == ()


@given(SPECS, PORTS)
def test_a_layer_is_the_last_resort(found: TensorSpec, wanted: Port) -> None:
    plain = plan(found, wanted, BridgeMode.AUTO)
    if plain is not None:
        assert plan(found, wanted, BridgeMode.LINEAR) == plain


@pytest.mark.parametrize(
    ("found", "wanted", "mode", "steps"),
    [
        ("float32[2, 5]", "float32[N, 3]", "linear", (Linear(1, 5, 3),)),
        ("float32[2, 5]", "float32[N, 3]", "auto", None),
        ("float32[2, 64, 4, 4]", "float32[N, 1024]", "auto", (Flatten(1),)),
        ("float32[2, 64, 4, 4]", "float32[N, 10]", "linear", (Flatten(1), Linear(1, 1024, 10))),
        ("float32[2, 5, 1]", "float32[N, 5]", "auto", (Squeeze(2),)),
        ("float32[2, 1, 5]", "float32[N, 5]", "auto", (Squeeze(1),)),
        ("float64[2, 5]", "float32[N, 5]", "auto", (Cast("float32"),)),
        ("int64[2, 5]", "float32[N, 5]", "auto", (Cast("float32"),)),
        ("float32[2, 5]", "int64[N, 5]", "linear", None),
        ("float64[2, 5]", "float32[N, 3]", "linear", (Cast("float32"), Linear(1, 5, 3))),
        ("float32[2, 8, 7, 7]", "float32[N, 3, H, W]", "linear", (Linear(1, 8, 3),)),
        ("float32[2, 5]", "float32[3, 5]", "linear", None),
        ("float32[2, 5, 6]", "float32[N, 4, 7]", "linear", None),
    ],
)
def test_the_plan_is(found: str, wanted: str, mode: str, steps: tuple[object, ...] | None) -> None:
    assert plan(spec(found), port(wanted), BridgeMode(mode)) == steps
