"""Activation functions are known by the names that pickles have for them, and only compute."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from composecli.files.activations import FUNCTIONAL, NATIVE, OF_TORCH
from composecli.files.archive import Archive
from composecli.files.checkpoint import scan_checkpoint


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_a_layer_may_keep_a_function_of_one_tensor(name: str) -> None:
    assert _scan(getattr(nn.functional, name)) == ()


@pytest.mark.parametrize("name", NATIVE)
def test_a_layer_may_keep_a_built_in_function(name: str) -> None:
    function = getattr(torch._C._nn, name)
    assert function(torch.zeros(2)).shape == (2,)
    assert _scan(function) == ()


@pytest.mark.parametrize("name", OF_TORCH)
def test_a_layer_may_keep_a_function_of_the_module_torch(name: str) -> None:
    """A pickle looks these up with `getattr` in a class."""
    assert _scan(getattr(torch, name)) == ()


@pytest.mark.parametrize("function", [torch.Tensor.tanh, torch.from_file, torch.set_num_threads])
def test_any_other_function_of_torch_is_refused(function: object) -> None:
    (reason,) = _scan(function)
    assert reason.startswith("it would import torch.")


@pytest.mark.parametrize("function", [nn.functional.dropout, nn.functional.pad, torch.load])
def test_any_other_function_is_refused(function: object) -> None:
    (reason,) = _scan(function)
    assert reason.startswith("it would import torch.")


def _scan(function: object) -> tuple[str, ...]:
    """Return why a layer of a Transformer with this function is not loaded."""
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    layer.activation = function
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    with Archive.of_bytes(buffer.getvalue()) as archive:
        found = scan_checkpoint(archive.pickle("data.pkl"))
    return (*found.untrusted, *found.hooks)
