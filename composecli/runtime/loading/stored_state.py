"""Give a factory's module the state of a pickled one that is not tensors, such as its modes."""

from __future__ import annotations

import torch
from torch import nn

from composecli.runtime.loading.strict_keys import StateDict, Weights


def take_over(module: nn.Module, weights: Weights) -> None:
    """Put each submodule into the mode that it was pickled in, and its tensors into their dtypes.

    Nothing changes unless the weights are those of a pickled module.
    """
    if weights.modes is None:
        return
    for path, inner in module.named_modules():
        inner.training = weights.modes.get(path, inner.training)
    _put_dtypes(module, weights.state)


def _put_dtypes(module: nn.Module, weights: StateDict) -> None:
    """Give each parameter and buffer the dtype that it was pickled with.

    A class makes its weights as float32, and the module may have been pickled as float16.
    """
    own = dict(module.named_parameters(remove_duplicate=False))
    own.update(module.named_buffers(remove_duplicate=False))
    for name, tensor in own.items():
        stored = weights.get(name)
        if isinstance(stored, torch.Tensor) and stored.dtype != tensor.dtype:
            tensor.data = tensor.data.to(stored.dtype)
