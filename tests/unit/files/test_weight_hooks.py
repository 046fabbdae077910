"""Hooks of torch.nn.utils are accepted as torch writes them, and in no other form."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from composecli.files.archive import Archive
from composecli.files.checkpoint import Checkpoint, scan_checkpoint
from composecli.files.pickle import Constructed, Global, PickleDict
from composecli.files.weight_hooks import is_weight_hook

PRUNE = "torch.nn.utils.prune"
NORM = "torch.nn.utils.weight_norm"


def _pruned_twice(layer: nn.Module) -> None:
    prune.random_unstructured(layer, "weight", 0.2)
    prune.ln_structured(layer, "weight", 0.2, n=2, dim=0)


APPLY: dict[str, Callable[[nn.Module], object]] = {
    "weight norm": nn.utils.weight_norm,
    "weight norm of all": lambda layer: nn.utils.weight_norm(layer, dim=None),
    "spectral norm": nn.utils.spectral_norm,
    "the smallest": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "a number of weights": lambda layer: prune.l1_unstructured(layer, "bias", 1),
    "nothing": lambda layer: prune.identity(layer, "weight"),
    "rows": lambda layer: prune.random_structured(layer, "weight", 0.5, dim=0),
    "rows by a named norm": lambda layer: prune.ln_structured(layer, "weight", 1, n="fro", dim=0),
    "a mask": lambda layer: prune.custom_from_mask(layer, "weight", torch.ones(2, 3)),
    "twice": _pruned_twice,
}


def _scan(module: nn.Module) -> Checkpoint:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    with Archive.of_bytes(buffer.getvalue()) as archive:
        return scan_checkpoint(archive.pickle("data.pkl"))


@pytest.mark.parametrize("name", APPLY)
def test_a_hook_of_torch_is_accepted(name: str) -> None:
    layer = nn.Linear(3, 2)
    with warnings.catch_warnings(action="ignore"):
        APPLY[name](layer)
    found = _scan(nn.Sequential(layer))
    assert (*found.untrusted, *found.hooks) == ()


def test_any_other_hook_is_refused() -> None:
    layer = nn.Linear(3, 2)
    layer.register_forward_pre_hook(nn.functional.relu)
    assert _scan(nn.Sequential(layer)).hooks == ("0: _forward_pre_hooks",)


def hook(module: str, name: str, state: object, arguments: object = ()) -> Constructed:
    return Constructed(Global(module, name), arguments, is_new=True, state=state)


def state(**attributes: object) -> PickleDict:
    return PickleDict(list(attributes.items()))


@pytest.mark.parametrize(
    "node",
    [
        hook(NORM, "WeightNorm", state(name="weight", dim=0), arguments=(1,)),
        hook(NORM, "WeightNorm", state(name="weight", dim=0, apply=Global("os", "system"))),
        hook(NORM, "WeightNorm", state(name="__class__", dim=0)),
        hook(NORM, "WeightNorm", state(name=3, dim=0)),
        hook(NORM, "WeightNorm", (state(name="weight"), state(dim=0))),
        hook(NORM, "WeightNorm", None),
        hook(NORM, "remove_weight_norm", state()),
        hook(PRUNE, "CustomFromMask", state(_tensor_name="weight", mask=state())),
        hook(PRUNE, "PruningContainer", state(_tensor_name="weight", _pruning_methods=(1,))),
        hook("torch.nn.modules.module", "_WrappedHook", state(hook=Global("os", "system"))),
        Constructed(Global(NORM, "WeightNorm"), (), state=state(name="weight", dim=0)),
        Global(NORM, "WeightNorm"),
        None,
    ],
)
def test_a_hook_in_another_form_is_refused(node: object) -> None:
    assert not is_weight_hook(node)
