"""The state dict of a pickled module: the values, modes and dtypes that torch would load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.files.archive import Archive
from composecli.runtime.loading.stored_state import (
    holds_module,
    put_dtypes,
    read_sizes,
    read_values,
)


def network() -> nn.Module:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4).eval(), nn.Embedding(0, 2))
    module.register_buffer("view", torch.arange(6.0).view(2, 3).t())
    module.register_buffer("same", module.view[1:])
    return module


def saved(tmp_path: Path, module: object) -> Path:
    path = tmp_path / "module.pt"
    torch.save(module, path)
    return path


def test_the_values_are_those_of_the_module(tmp_path: Path) -> None:
    module = network()
    path = saved(tmp_path, module)
    before = path.read_bytes()
    with Archive(path) as archive:
        assert holds_module(archive)
        values, sizes = read_values(archive), read_sizes(archive)
    expected = module.state_dict()
    assert list(values) == list(sizes) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(values[name], tensor, rtol=0, atol=0)
        assert (sizes[name].shape, sizes[name].stride()) == (tensor.shape, tensor.stride())
        assert sizes[name].is_meta
    values["view"].zero_()
    assert not values["same"].any()
    assert path.read_bytes() == before


def test_modes_and_dtypes_are_put_into_another_module(tmp_path: Path) -> None:
    with Archive(saved(tmp_path, network().half())) as archive:
        state = read_values(archive)
    other = network().train()
    state.put_modes(other)
    put_dtypes(other, state)
    assert [inner.training for inner in other] == [True, False, True]
    assert {tensor.dtype for tensor in other.parameters()} == {torch.float16}
    other.load_state_dict(state)


@pytest.mark.parametrize("value", [{"w": torch.ones(1)}, torch.ones(2)])
def test_other_checkpoints_hold_no_module(tmp_path: Path, value: object) -> None:
    with Archive(saved(tmp_path, value)) as archive:
        assert not holds_module(archive)
