"""Bridges: the plan's steps applied to the producer satisfy the consumer, on paper and on real tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from composecli.compose.bridge_plan import apply, apply_all, castable, plan
from composecli.core.blueprint import Feed, Sequential, Stage
from composecli.core.bridge import (
    BridgeMode,
    Cast,
    Flatten,
    Linear,
    Squeeze,
    describe,
    parameter_count,
)
from composecli.core.contract import Port, takes
from composecli.core.dims import Dim, Fixed, Free, Unknown
from composecli.core.pytree import TensorSpec
from composecli.runtime.forward.run import apply_bridge, bridge_layers
from composecli.runtime.tensors import dtype_of, spec_of
from tests.reading import port, spec

DTYPES = ["float32", "float64", "float16", "int64", "int32", "bool"]
SPECS = st.builds(
    lambda dtype, sizes: TensorSpec(dtype, tuple(sizes)),
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 6), max_size=5),
)
DIMS: st.SearchStrategy[Dim] = st.one_of(
    st.integers(1, 24).map(Fixed),
    st.sampled_from(["N", "T", "H"]).map(Free),
    st.just(Unknown("not tried")),
    st.builds(lambda low: Free("W", low), st.integers(1, 6)),
)
PORTS = st.builds(
    lambda dtype, dims: Port("x", (), dtype, None if dims is None else tuple(dims)),
    st.sampled_from(DTYPES),
    st.one_of(st.none(), st.lists(DIMS, max_size=4)),
)
MODES = st.sampled_from(list(BridgeMode))


@given(SPECS, PORTS, MODES)
def test_a_plan_satisfies_the_consumer(found: TensorSpec, wanted: Port, mode: BridgeMode) -> None:
    steps = plan(found, wanted, mode)
    if steps is not None:
        assert takes(wanted, apply_all(steps, found)) is not False


@given(SPECS, PORTS)
def test_none_adds_nothing_and_auto_nothing_to_train(found: TensorSpec, wanted: Port) -> None:
    assert plan(found, wanted, BridgeMode.NONE) in ((), None)
    assert sum(map(parameter_count, plan(found, wanted, BridgeMode.AUTO) or ())) == 0


@given(SPECS, PORTS)
def test_what_fits_needs_no_bridge(found: TensorSpec, wanted: Port) -> None:
    if takes(wanted, found):
        assert plan(found, wanted, BridgeMode.LINEAR) == ()


@given(SPECS, PORTS)
def test_a_layer_is_the_last_resort(found: TensorSpec, wanted: Port) -> None:
    plain = plan(found, wanted, BridgeMode.AUTO)
    if plain is not None:
        assert plan(found, wanted, BridgeMode.LINEAR) == plain


@settings(max_examples=60, deadline=None)
@given(SPECS, PORTS)
def test_real_tensors_go_through_a_plan_as_it_says(found: TensorSpec, wanted: Port) -> None:
    steps = plan(found, wanted, BridgeMode.LINEAR)
    if steps is None:
        return
    blueprint = Sequential((Stage(0), Stage(1, (Feed(bridge=steps),))))
    layers = bridge_layers(blueprint, 0, "cpu")
    value = torch.ones(found.sizes, dtype=dtype_of(found.dtype))
    with torch.no_grad():
        assert spec_of(apply_bridge(value, steps, iter(layers.values()))) == apply_all(steps, found)


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


def test_an_untrained_layer_is_called_untrained_with_its_count() -> None:
    assert (
        describe(Linear(1, 512, 768))
        == "Linear(512 -> 768) along axis 1, 393,984 parameters, untrained"
    )


@pytest.mark.parametrize(
    "step", [Flatten(3), Squeeze(1), Squeeze(4), Linear(1, 4, 2), Linear(1, 3, 2, "float64")]
)
def test_a_step_refuses_what_it_does_not_take(step: Flatten | Squeeze | Linear) -> None:
    with pytest.raises(ValueError, match=r"axis|take"):
        apply(step, spec("float32[2, 3]"))


def test_floats_are_never_cast_to_ids() -> None:
    assert not any(castable(found, "int64") for found in ("float32", "float64", "float16"))
    assert castable("int32", "int64")
    assert not castable("int64", "int32")
    assert not castable("int64", "bool")
