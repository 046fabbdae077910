"""Bridge steps on real tensors: a step that runs and its TorchScript source do the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from composecli.compose.bridge_plan import plan
from composecli.core.blueprint import Feed, Sequential, Stage
from composecli.core.bridge import Bridge, BridgeMode, Cast, Flatten, Linear, Squeeze, apply_all
from composecli.core.contract import Port
from composecli.core.pytree import TensorSpec
from composecli.runtime.bridge_steps import (
    layer_name,
    make_layers,
    run_bridge,
    write_bridge,
)
from composecli.runtime.tensors import dtype_of, spec_of
from tests.strategies import PORTS, SPECS


@settings(max_examples=60, deadline=None)
@given(SPECS, PORTS)
def test_real_tensors_pass_through_a_bridge_as_planned(found: TensorSpec, wanted: Port) -> None:
    steps = plan(found, wanted, BridgeMode.LINEAR)
    if steps is None:
        return
    blueprint = Sequential((Stage(0), Stage(1, (Feed(bridge=steps),))))
    layers = make_layers(blueprint, 0, "cpu")
    value = torch.ones(found.sizes, dtype=dtype_of(found.dtype))
    with torch.no_grad():
        assert spec_of(run_bridge(steps, value, iter(layers.values()))) == apply_all(steps, found)


def blueprint_of(bridge: Bridge) -> Sequential:
    return Sequential((Stage(0), Stage(1, (Feed(bridge=bridge),))))


@pytest.mark.parametrize(
    ("bridge", "sizes"),
    [
        ((), (2, 3)),
        ((Cast("float64"),), (2, 3)),
        ((Flatten(1),), (2, 3, 4)),
        ((Squeeze(2), Squeeze(1)), (2, 1, 1, 4)),
        ((Linear(1, 3, 5),), (2, 3)),
        ((Linear(1, 3, 5),), (2, 3, 4, 4)),
        ((Cast("float64"), Flatten(1), Linear(1, 12, 2, "float64")), (2, 3, 4)),
        ((Linear(1, 3, 5), Linear(1, 5, 2)), (2, 3)),
    ],
    ids=str,
)
def test_the_source_of_a_bridge_does_what_running_it_does(
    bridge: Bridge, sizes: tuple[int, ...]
) -> None:
    layers = make_layers(blueprint_of(bridge), 0, "cpu")
    # A new class: TorchScript has one type for all modules of a class with the same attributes.
    holder = type("Holder", (nn.Module,), {"__module__": "tests"})()
    for number, layer in layers.items():
        holder.add_module(layer_name(number), layer)
    script = torch.jit.script(holder)
    expression = write_bridge(bridge, "x", iter(layers))
    script.define(f"def forward(self, x: Tensor):\n    return {expression}\n")
    x = torch.randn(sizes)
    with torch.no_grad():
        assert torch.equal(script(x), run_bridge(bridge, x, iter(layers.values())))


def test_the_parameters_of_a_layer_depend_on_the_seed_and_its_number() -> None:
    bridge = (Linear(1, 3, 3), Linear(1, 3, 3, "float64"))
    one, again, other = (make_layers(blueprint_of(bridge), seed, "cpu") for seed in (0, 0, 1))
    assert list(one) == [0, 1]
    assert torch.equal(one[0].weight, again[0].weight)
    assert torch.equal(one[1].weight, other[0].weight.double())
    assert not torch.equal(one[0].weight, other[0].weight)
    assert [layer.weight.dtype for layer in one.values()] == [torch.float32, torch.float64]


def test_making_layers_leaves_the_random_state_as_it_was() -> None:
    before = torch.random.get_rng_state()
    make_layers(blueprint_of((Linear(1, 3, 3),)), 0, "cpu")
    assert torch.equal(before, torch.random.get_rng_state())
