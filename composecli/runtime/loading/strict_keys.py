"""Keys of weights: whether a module loads them strictly, and how they differ if it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule

MAX_KEYS_SHOWN = 8
MAX_DTYPES_SHOWN = 2

StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Weights:
    """The weights of a file by their names in the module, on meta if only sizes were read.

    `notes` state the choice and the names stripped or left out; `remedies` help if they do not
    fit. The weights of a pickled module come with its `modes`: which submodules are in train mode.
    """

    state: StateDict
    notes: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    modes: Mapping[str, bool] | None = None


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
            missing.append(f"missing     {name}  {_shape_text(value)}")
        elif is_lazy(value):
            continue
        elif getattr(weights[name], "shape", None) != getattr(value, "shape", None):
            in_file = _shape_text(weights[name])
            in_module = _shape_text(value)
            sizes = f"{in_file} in the file, {in_module} in the module"
            resized.append(f"resized     {name}  {sizes}")
    unexpected = [f"unexpected  {name}" for name in weights if name not in own]
    return _KeyDifferences(missing, unexpected, resized)


def fit_by_name(module: nn.Module, weights: StateDict) -> bool:
    """Return whether keys and sizes are the same, and no code of the module has a say in loading.

    The weights of such a module fit whatever their values are.
    """
    if any(map(_takes_part_in_loading, module.modules())):
        return False
    own = module.state_dict()
    if any(_is_quantized(own[name]) != _is_quantized(weights.get(name)) for name in own):
        return False
    keys = _key_differences(own, weights)
    return keys.count == 0


def _is_quantized(value: Any) -> bool:
    """Return whether a value is a quantized tensor, which PyTorch copies to no other."""
    return isinstance(value, torch.Tensor) and value.is_quantized


def dtype_notes(module: nn.Module, weights: StateDict) -> tuple[str, ...]:
    """Return a note if weights of another kind of numbers are copied into those of a module.

    PyTorch casts them without a word: the imaginary part of a complex number is lost then, and
    integers may be quantized values.
    """
    notes = list[str]()
    for name, value in module.state_dict().items():
        stored = weights.get(name)
        if not isinstance(value, torch.Tensor) or not isinstance(stored, torch.Tensor):
            continue
        if is_lazy(value):
            continue
        if _kind(stored) != _kind(value):
            dtypes = f"{_dtype_text(stored)} in the file and {_dtype_text(value)} in the module"
            notes.append(f"{name} is {dtypes}, and is cast as PyTorch does")
    return tuple(notes[:MAX_DTYPES_SHOWN])


def _kind(tensor: torch.Tensor) -> tuple[bool, bool]:
    """Return the kind of numbers in a tensor, whatever their precision."""
    return tensor.is_floating_point(), tensor.is_complex()


def _dtype_text(tensor: torch.Tensor) -> str:
    """Return the name of a dtype, as PyTorch writes it behind `torch.`."""
    return str(tensor.dtype).removeprefix("torch.")


def sizes_of(module: nn.Module) -> dict[str, tuple[int, ...] | None]:
    """Return the sizes of each tensor in the state dict of a module.

    They are None for other entries, and for lazy layers, which take the sizes of their weights.
    """
    sizes: dict[str, tuple[int, ...] | None] = {}
    for name, value in module.state_dict().items():
        sizes[name] = None
        if isinstance(value, torch.Tensor) and not is_lazy(value):
            sizes[name] = tuple(value.shape)
    return sizes


def load_strictly(module: nn.Module, weights: Weights, reference: FactoryReference) -> None:
    """Load the weights as torch does with `strict=True`, with the load hooks of the module.

    They rename the keys of older versions: BatchNorm had no `num_batches_tracked` before PyTorch
    1.0, and weight normalization was `weight_g` and `weight_v`.

    Raises:
        CouldNotAttempt: if torch refuses them; it lists the keys that differ.
    """
    own = module.state_dict()
    keys = _key_differences(own, weights.state)
    if weights.modes is not None:
        # A pickled module has no versions: its class is the one that the factory makes.
        weights.state._metadata = own._metadata  # type: ignore[attr-defined]
    try:
        module.load_state_dict(weights.state)
    except Exception as error:
        if keys.count:
            raise _other_keys(keys, weights, reference) from error
        lines = [line.strip() for line in str(error).splitlines()]
        notes = tuple(lines[:MAX_KEYS_SHOWN])
        title = f"the module refuses the weights: {type(error).__name__}"
        problem = Problem(Rule.KEYS_DO_NOT_FIT, title, reference.name, notes)
        raise CouldNotAttempt(problem) from error


def _takes_part_in_loading(module: nn.Module) -> bool:
    """Return whether a module has load hooks, extra state or a way of loading of its own."""
    if module._load_state_dict_pre_hooks or module._load_state_dict_post_hooks:
        return True
    for name in ("_load_from_state_dict", "load_state_dict", "set_extra_state"):
        method = getattr(type(module), name)
        if not method.__module__.startswith("torch."):
            return True
    return False


def _other_keys(
    keys: _KeyDifferences, weights: Weights, reference: FactoryReference
) -> CouldNotAttempt:
    """Return the error for weights with other keys or sizes; it shows the first of each kind."""
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
    notes = (*rows, *weights.notes)
    help: tuple[str, ...] = ()
    if not weights.remedies:
        help = ("check that this factory matches the weights, or name their entry with --key",)
    remedies = weights.remedies
    problem = Problem(Rule.KEYS_DO_NOT_FIT, title, reference.name, notes, help, remedies=remedies)
    return CouldNotAttempt(problem)


def _shape_text(value: Any) -> str:
    """Return the sizes of an entry; its type if it is not a tensor, or has no sizes yet."""
    if isinstance(value, torch.Tensor) and not is_lazy(value):
        return str(list(value.shape))
    return type(value).__name__
