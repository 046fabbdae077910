"""The sizes of int8 weights, which quantized layers keep in packed form and not as tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from composecli.core.facts import NamedSizes

# The classes of packed weights, with the op that returns weight and bias.
_UNPACK = {
    "LinearPackedParamsBase": "linear_unpack",
    "Conv2dPackedParamsBase": "conv2d_unpack",
    "Conv3dPackedParamsBase": "conv3d_unpack",
}


def packed_weights(module: nn.Module) -> tuple[NamedSizes, ...]:
    """Return the weight of a quantized layer as the parameter that the float layer has.

    It is `(out, in)` or `(out, in // groups, *kernel)`. Its dtype is that of the model's input,
    float32: a statically quantized model quantizes its input itself.
    """
    packed = getattr(module, "_packed_params", None)
    if not isinstance(packed, torch.ScriptObject):
        return ()
    qualified: str = packed._type().qualified_name()
    _, _, name = qualified.rpartition(".")
    if name not in _UNPACK:
        return ()
    unpack: Any = getattr(torch.ops.quantized, _UNPACK[name])
    try:
        weight, _ = unpack(packed)
    except RuntimeError:
        # Another engine than this machine has packed it.
        return ()
    sizes = tuple(map(int, weight.shape))
    return (NamedSizes("weight", "float32", sizes),)
