"""Layers of torch that take the sizes of their parameters from the first input, or from weights."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin


def finish_lazy_layers(module: nn.Module) -> None:
    """Make regular layers of those whose parameters have got their sizes from weights.

    torch does it at the first forward: `LazyLinear` becomes `Linear`.
    """
    for inner in module.modules():
        if isinstance(inner, LazyModuleMixin) and not inner.has_uninitialized_params():
            _finish(inner)


def _finish(layer: Any) -> None:
    """Do to a layer what its first forward would do, but for its parameters."""
    layer._initialize_hook.remove()
    layer._load_hook.remove()
    del layer._initialize_hook, layer._load_hook
    weight = layer._parameters.get("weight")
    if isinstance(layer, nn.LazyLinear):
        layer.in_features = weight.shape[1]
    elif hasattr(layer, "in_channels"):
        layer.in_channels = weight.shape[1] * layer.groups
        if layer.transposed:
            layer.in_channels = weight.shape[0]
    elif hasattr(layer, "num_features"):
        sized = next(item for item in (weight, layer.running_mean) if item is not None)
        layer.num_features = sized.shape[0]
    if layer.cls_to_become is not None:
        layer.__class__ = layer.cls_to_become
