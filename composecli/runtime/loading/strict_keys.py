"""Keys of weights: whether a module loads them strictly, and how they differ if it does not."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule

MAX_KEYS_SHOWN = 8

StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True)
class _KeyDifferences:
    """The rows to show for keys that differ between a module and a file."""

    missing: list[str]
    unexpected: list[str]
    resized: list[str]

    @property
    def count(self) -> int:
        """The number of keys that differ in any way."""
        return len(self.missing) + len(self.unexpected) + len(self.resized)


def _key_differences(own: StateDict, weights: StateDict) -> _KeyDifferences:
    """Return the differences between the keys and sizes of a module and those of a file.

    An entry of a state dict need not be a tensor: it has no shape then.
    """
    missing = list[str]()
    resized = list[str]()
    for name, value in own.items():
        if name not in weights:
            missing.append(f"missing     {name}  {list(value.shape)}")
        elif getattr(weights[name], "shape", None) != getattr(value, "shape", None):
            in_file = list(weights[name].shape)
            in_module = list(value.shape)
            sizes = f"{in_file} in the file, {in_module} in the module"
            resized.append(f"resized     {name}  {sizes}")
    unexpected = [f"unexpected  {name}" for name in weights if name not in own]
    return _KeyDifferences(missing, unexpected, resized)


def refuse_other_keys(module: nn.Module, weights: StateDict, reference: FactoryReference) -> None:
    """Refuse weights that the module does not load strictly; show the first keys of each kind.

    Raises:
        CouldNotAttempt: if torch refuses them.
    """
    keys = _key_differences(module.state_dict(), weights)
    if not keys.count or _loads(module, weights):
        return
    title = (
        f"{len(keys.missing)} missing, {len(keys.unexpected)} unexpected"
        f" and {len(keys.resized)} resized keys"
    )
    rows = list[str]()
    for kind in (keys.missing, keys.unexpected, keys.resized):
        rows += kind[:MAX_KEYS_SHOWN]
    more = keys.count - len(rows)
    if more:
        rows.append(f"and {more} more")
    help = ("check that this factory matches the weights, or name their entry with --key",)
    problem = Problem(Rule.KEYS_DO_NOT_FIT, title, reference.name, tuple(rows), help)
    raise CouldNotAttempt(problem)


def _loads(module: nn.Module, weights: StateDict) -> bool:
    """Return whether torch loads these weights strictly, with the load hooks of the module.

    They rename the keys of older versions: BatchNorm had no `num_batches_tracked` before PyTorch
    1.0, and weight normalization was `weight_g` and `weight_v`.
    """
    twin = _twin_on_meta(module)
    stored = OrderedDict((name, _on_meta(value)) for name, value in weights.items())
    # torch keeps the versions of the modules in this attribute, and hooks depend on them.
    stored._metadata = getattr(weights, "_metadata", None)  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        # torch warns that values are not copied to meta.
        warnings.simplefilter("ignore")
        try:
            twin.load_state_dict(stored, strict=True)
        except Exception:
            return False
    return True


def _twin_on_meta(module: nn.Module) -> nn.Module:
    """Return a copy of the module whose tensors have no memory."""
    copies = dict[int, Any]()
    for tensor in (*module.parameters(), *module.buffers()):
        copies[id(tensor)] = _on_meta(tensor)
    return copy.deepcopy(module, copies)


def _on_meta(value: Any) -> Any:
    """Return a tensor of the same kind without memory; anything else as it is."""
    if isinstance(value, nn.Parameter):
        return nn.Parameter(value.detach().to("meta"), requires_grad=value.requires_grad)
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    return value
