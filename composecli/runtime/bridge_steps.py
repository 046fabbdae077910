"""Bridge steps in PyTorch: each kind of step as ops to run, and as TorchScript source to compile.

A joined file must agree with a reference run of the same blueprint, so the two are next to each
other here. A new kind of step needs a class in core/bridge.py and a case in each `match` below.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

import torch
from torch import nn

from composecli.core.blueprint import Blueprint, bridges
from composecli.core.bridge import Bridge, Cast, Flatten, Linear, Squeeze, Step
from composecli.runtime.tensors import dtype_of

Layers = dict[int, nn.Module]


def make_layers(blueprint: Blueprint, seed: int, device: str) -> Layers:
    """Return the generated layers of a blueprint by number, in the order in which they are used.

    The parameters of layer `n` depend on `seed + n` alone.
    """
    layers: Layers = {}
    for bridge in bridges(blueprint):
        for step in bridge:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + len(layers))
                layer = make_layer(step)
            if layer is not None:
                number = len(layers)
                layers[number] = layer.to(device)
    return layers


def layer_name(number: int) -> str:
    """Return the attribute of a joined module that holds the generated layer with this number."""
    return f"bridge_{number}"


def make_layer(step: Step) -> nn.Module | None:
    """Return a new layer with the parameters of a step, or None if the step has none."""
    match step:
        case Linear(_, before, after, dtype):
            layer = nn.Linear(before, after)
            return layer.to(dtype_of(dtype))
        case Cast() | Flatten() | Squeeze():
            return None
        case _:
            assert_never(step)


def run_step(step: Step, tensor: torch.Tensor, layers: Iterator[nn.Module]) -> torch.Tensor:
    """Run one step. A step with parameters takes the next of `layers`."""
    match step:
        case Cast(dtype):
            return tensor.to(dtype_of(dtype))
        case Flatten(start):
            return torch.flatten(tensor, start)
        case Squeeze(axis):
            return torch.squeeze(tensor, axis)
        case Linear(axis):
            layer = next(layers)
            result = layer(torch.movedim(tensor, axis, -1))
            # On channels-last memory, the backward of a 1x1 convolution of stride 2 corrupts the
            # heap (torch 2.13 with oneDNN).
            return torch.movedim(result, -1, axis).contiguous()
        case _:
            assert_never(step)


def write_step(step: Step, text: str, layers: Iterator[int]) -> str:
    """Return the TorchScript expression that applies one step to the expression `text`.

    A step with parameters takes the next number of `layers`:

        >>> write_step(Flatten(1), "y0", iter(()))
        'torch.flatten(y0, 1)'
        >>> write_step(Linear(1, 5, 3), "y0", iter([0]))
        'torch.movedim(self.bridge_0(torch.movedim(y0, 1, -1)), -1, 1).contiguous()'
    """
    match step:
        case Cast(dtype):
            return f"{text}.to(torch.{dtype})"
        case Flatten(start):
            return f"torch.flatten({text}, {start})"
        case Squeeze(axis):
            return f"torch.squeeze({text}, {axis})"
        case Linear(axis):
            layer = layer_name(next(layers))
            result = f"self.{layer}(torch.movedim({text}, {axis}, -1))"
            return f"torch.movedim({result}, -1, {axis}).contiguous()"
        case _:
            assert_never(step)


def run_bridge(bridge: Bridge, tensor: torch.Tensor, layers: Iterator[nn.Module]) -> torch.Tensor:
    """Run all steps of a bridge in order."""
    for step in bridge:
        tensor = run_step(step, tensor, layers)
    return tensor


def write_bridge(bridge: Bridge, text: str, layers: Iterator[int]) -> str:
    """Return the TorchScript expression that applies all steps of a bridge to `text`, in order."""
    for step in bridge:
        text = write_step(step, text, layers)
    return text
