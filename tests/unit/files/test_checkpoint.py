"""Scanning pickled checkpoints: what they contain and would run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from composecli.files.checkpoint import Content, is_inert, is_layer, layers, scan_checkpoint
from composecli.files.pickle import Global, parse
from tests.unit.files.pickles import data_pkl


class Own(nn.Linear):
    pass


def hooked() -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 2))
    module[0].register_forward_hook(print)
    return module


def shadowed() -> nn.Module:
    module = nn.Linear(2, 2)
    module.__dict__["forward"] = nn.Identity()
    return module


@pytest.mark.parametrize(
    ("value", "content", "untrusted", "hooks"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2)), Content.MODULE, 0, 0),
        (nn.Transformer(4, 2, 1, 1, 4), Content.MODULE, 0, 0),
        (nn.TransformerEncoderLayer(4, 2, activation="gelu"), Content.MODULE, 0, 0),
        (nn.Linear(2, 2).double(), Content.MODULE, 0, 0),
        (Own(2, 2), Content.MODULE, 1, 0),
        (hooked(), Content.MODULE, 1, 1),
        (shadowed(), Content.MODULE, 0, 1),
        (nn.Linear(2, 2).state_dict(), Content.WEIGHTS, 0, 0),
        ({"model": nn.Linear(2, 2).state_dict()}, Content.WEIGHTS, 0, 0),
        (torch.zeros(2), Content.TENSOR, 0, 0),
        ({"lr": 0.1}, Content.OTHER, 0, 0),
    ],
)
def test_a_checkpoint_is_scanned(
    value: object, content: Content, untrusted: int, hooks: int
) -> None:
    checkpoint = scan_checkpoint(parse(data_pkl(value)))
    assert checkpoint.content is content
    assert len(checkpoint.untrusted) == untrusted
    assert len(checkpoint.hooks) == hooks


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("torch.nn.modules.linear", "Linear", True),
        ("torch.nn.modules.linear", "init", False),
        ("torch.nn.modules.linear", "Linear.forward", False),
        ("torch.nn.modules.linear.extra", "Linear", False),
        ("torch.nn.quantized", "Linear", False),
    ],
)
def test_layers_are_classes_of_torch_nn(module: str, name: str, expected: bool) -> None:
    assert is_layer(Global(module, name)) is expected


def test_dtypes_and_storages_are_inert_and_functions_are_not() -> None:
    assert is_inert(Global("torch", "float8_e4m3fn"))
    assert is_inert(Global("torch", "FloatStorage"))
    assert not is_inert(Global("torch", "load"))
    assert not is_inert(Global("os", "MyStorage"))


def test_layers_are_listed_with_their_attributes() -> None:
    ((name, state),) = layers(parse(data_pkl(nn.Linear(2, 3))))
    assert str(name) == "torch.nn.modules.linear.Linear"
    assert {"in_features", "out_features", "_parameters"} <= {key for key, _ in state.items}


def test_the_first_keys_are_kept() -> None:
    checkpoint = scan_checkpoint(parse(data_pkl(nn.Linear(2, 3).state_dict())))
    assert checkpoint.keys == ("weight", "bias")
