"""Layers that get their sizes from weights become the layers that torch makes of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from composecli.runtime.loading.lazy_layers import finish_lazy_layers


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    ("lazy", "regular", "sizes"),
    [
        (lambda: nn.LazyLinear(3), nn.Linear(5, 3), (2, 5)),
        (lambda: nn.LazyConv2d(4, 3, groups=2), nn.Conv2d(6, 4, 3, groups=2), (2, 6, 8, 8)),
        (
            lambda: nn.LazyConvTranspose1d(4, 3, groups=2),
            nn.ConvTranspose1d(6, 4, 3, groups=2),
            (2, 6, 8),
        ),
        (nn.LazyBatchNorm2d, nn.BatchNorm2d(5), (2, 5, 4, 4)),
        (
            lambda: nn.LazyInstanceNorm1d(affine=True, track_running_stats=True),
            nn.InstanceNorm1d(5, affine=True, track_running_stats=True),
            (2, 5, 4),
        ),
    ],
)
def test_a_layer_with_weights_is_a_regular_one(
    lazy: type[nn.Module], regular: nn.Module, sizes: tuple[int, ...]
) -> None:
    module = lazy()
    module.load_state_dict(regular.state_dict())
    finish_lazy_layers(module)
    assert type(module) is type(regular)
    assert str(module) == str(regular)
    x = torch.rand(sizes)
    assert torch.equal(module(x), regular(x))


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_layer_without_weights_stays_lazy() -> None:
    module = nn.Sequential(nn.LazyLinear(3))
    finish_lazy_layers(module)
    assert module(torch.rand(2, 5)).shape == (2, 3)
