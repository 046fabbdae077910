"""What a pickled module has besides its tensors, given to another module."""

from __future__ import annotations

import torch
from torch import nn

from composecli.runtime.loading.stored_state import take_over
from composecli.runtime.loading.strict_keys import Weights


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Embedding(1, 2))


def test_modes_and_dtypes_are_put_into_another_module() -> None:
    state = network().half().state_dict()
    module = network().train()
    take_over(module, Weights(state, modes={"": True, "0": True, "1": False}))
    assert [inner.training for inner in module] == [True, False, True]
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float16}


def test_a_state_dict_leaves_modes_and_dtypes_as_they_are() -> None:
    module = network().eval()
    take_over(module, Weights(network().half().state_dict()))
    assert not module.training
    assert module[0].weight.dtype is torch.float32
