"""Input sizes that models state about themselves, in the conventions of several libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.facts import Setting
from composecli.runtime.config_hints import read_settings


@dataclass
class Config:
    """As of transformers: attributes, and a part for each modality."""

    image_size: Any = None
    num_channels: Any = None
    vision_config: Any = None


class Hub(nn.Module):
    """A model with a configuration under one of the names that libraries use."""

    def __init__(self, **configurations: Any) -> None:
        super().__init__()
        for name, configuration in configurations.items():
            setattr(self, name, configuration)


class Backbone(nn.Module):
    def __init__(self, image_size: Any) -> None:
        super().__init__()
        self.image_size = image_size


class Unreadable:
    @property
    def image_size(self) -> int:
        raise RuntimeError("not configured")

    num_channels = 3


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Hub(), []),
        (Hub(config=Config(224, 3)), [("image_size", (224,)), ("num_channels", (3,))]),
        (Hub(pretrained_cfg={"input_size": (3, 32, 32)}), [("input_size", (3, 32, 32))]),
        (Hub(config=Config(vision_config=Config(336))), [("image_size", (336,))]),
        (Hub(cfg={"vision_config": {"image_size": 32}}), [("image_size", (32,))]),
        (nn.Sequential(nn.ReLU(), Backbone([8, 16])), [("image_size", (8, 16))]),
        (Hub(config=Unreadable()), [("num_channels", (3,))]),
    ],
    ids=["none", "transformers", "timm", "a part", "a part of a dict", "torchvision", "unreadable"],
)
def test_settings_are_read_where_each_library_keeps_them(
    module: nn.Module, expected: list[tuple[str, tuple[int, ...]]]
) -> None:
    assert read_settings(module) == tuple(Setting(name, sizes) for name, sizes in expected)


@pytest.mark.parametrize("value", [True, 0, -1, 224.0, "224", (), (3, 0), (1, 2, 3, 4), None])
def test_only_one_to_three_positive_integers_are_sizes(value: Any) -> None:
    assert read_settings(Backbone(value)) == ()


def test_the_configuration_comes_before_submodules_and_nothing_comes_twice() -> None:
    module = Hub(config=Config(224), first=Backbone(64), second=Backbone(224), third=Backbone(64))
    assert [setting.values for setting in read_settings(module)] == [(224,), (64,)]


def test_settings_survive_saving(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(Backbone((32, 48)), path)
    loaded = torch.load(path, weights_only=False)
    assert read_settings(loaded) == (Setting("image_size", (32, 48)),)
