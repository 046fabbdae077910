"""Keys of weights: whether a module loads them strictly, and how they differ if it does not."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.key_causes import KeyDifferences, find_causes
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule
from composecli.runtime.describe import shared_names

MAX_KEYS_SHOWN = 4
MAX_CAUSES_SHOWN = 4
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


def fit_by_name(module: nn.Module, weights: StateDict) -> bool:
    """Return whether keys and sizes are the same, and no code of the module has a say in loading.

    The weights of such a module fit whatever their values are.
    """
    if any(map(_takes_part_in_loading, module.modules())):
        return False
    own = module.state_dict()
    if any(_is_quantized(own[name]) != _is_quantized(weights.get(name)) for name in own):
        return False
    return not KeyDifferences(sizes_of(module), sizes_in(weights)).count


def _is_quantized(value: Any) -> bool:
    """Return whether a value is a quantized tensor, which PyTorch copies to no other."""
    return isinstance(value, torch.Tensor) and value.is_quantized


def dtype_notes(module: nn.Module, weights: StateDict) -> tuple[str, ...]:
    """Return a note for each dtype of weights that are copied into those of another dtype.

    PyTorch casts them without a word: half of the digits are lost in a module of less precision,
    the imaginary part of a complex number in a real one, and integers may be quantized values.
    """
    names = defaultdict[tuple[str, str], list[str]](list)
    for name, value in module.state_dict().items():
        stored = weights.get(name)
        if not isinstance(value, torch.Tensor) or not isinstance(stored, torch.Tensor):
            continue
        if not is_lazy(value) and stored.dtype != value.dtype:
            names[_dtype_text(stored), _dtype_text(value)].append(name)
    notes = list[str]()
    for (in_file, in_module), inside in names.items():
        text = f"{inside[0]} is"
        if len(inside) > 1:
            text = f"{inside[0]} and {len(inside) - 1} more are"
        notes.append(
            f"{text} {in_file} in the file and {in_module} in the module: cast as PyTorch does"
        )
    return tuple(notes[:MAX_DTYPES_SHOWN])


def _dtype_text(tensor: torch.Tensor) -> str:
    """Return the name of a dtype, as PyTorch writes it behind `torch.`."""
    return str(tensor.dtype).removeprefix("torch.")


def sizes_of(module: nn.Module) -> dict[str, tuple[int, ...] | None]:
    """Return the sizes of each tensor in the state dict of a module.

    They are None for other entries, and for lazy layers, which take the sizes of their weights.
    """
    return sizes_in(module.state_dict())


def sizes_in(state: StateDict) -> dict[str, tuple[int, ...] | None]:
    """Return the sizes of each tensor in a state dict; None for any other entry."""
    sizes: dict[str, tuple[int, ...] | None] = {}
    for name, value in state.items():
        sizes[name] = None
        if isinstance(value, torch.Tensor) and not is_lazy(value):
            sizes[name] = tuple(value.shape)
    return sizes


def with_tied_names(module: nn.Module, weights: Weights) -> Weights:
    """Return the weights with all names of each tensor of the module that the file has once.

    Libraries leave out the other names of tied weights: loading one of them loads them all.
    """
    state, notes = copy.copy(weights.state), list(weights.notes)
    for names in shared_names(module):
        present = next((name for name in names if name in weights.state), None)
        if present is None:
            continue
        for name in names:
            if name not in state:
                state[name] = state[present]
                notes.append(f"{name} is the same tensor as {present}, and the file has it once")
    return replace(weights, state=state, notes=tuple(notes))


def load_strictly(module: nn.Module, weights: Weights, reference: FactoryReference) -> None:
    """Load the weights as torch does with `strict=True`, with the load hooks of the module.

    They rename the keys of older versions: BatchNorm had no `num_batches_tracked` before PyTorch
    1.0, and weight normalization was `weight_g` and `weight_v`.

    Raises:
        CouldNotAttempt: if torch refuses them; it lists the keys that differ.
    """
    own = module.state_dict()
    keys = KeyDifferences(sizes_in(own), sizes_in(weights.state))
    if weights.modes is not None:
        # A pickled module has no versions: its class is the one that the factory makes.
        weights.state._metadata = own._metadata  # type: ignore[attr-defined]
    try:
        module.load_state_dict(weights.state)
    except Exception as error:
        if keys.count:
            raise CouldNotAttempt(_misfit(keys, module, weights, reference)) from error
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


def _misfit(
    keys: KeyDifferences, module: nn.Module, weights: Weights, reference: FactoryReference
) -> Problem:
    """Return the problem of weights with other keys or sizes: its causes, then the first names."""
    causes = find_causes(keys, shared_names(module))
    titles = list(dict.fromkeys(cause.title for cause in causes))
    title = f"the weights do not fit the module: {', '.join(titles[:MAX_CAUSES_SHOWN])}"
    sentences = [cause.text for cause in causes[:MAX_CAUSES_SHOWN]]
    if len(causes) > MAX_CAUSES_SHOWN:
        sentences.append(f"and {len(causes) - MAX_CAUSES_SHOWN} more differences")
    rows = _rows(keys, module.state_dict(), weights.state)
    help: tuple[str, ...] = ()
    if not weights.remedies:
        help = ("check that this factory matches the weights, or name their entry with --key",)
    return Problem(
        Rule.KEYS_DO_NOT_FIT,
        title,
        reference.name,
        (*sentences, *rows, *weights.notes),
        help,
        remedies=weights.remedies,
    )


def _rows(keys: KeyDifferences, own: StateDict, stored: StateDict) -> Iterator[str]:
    """Yield the numbers of names, a row for the first of each kind, and how many are left."""
    missing, unexpected, resized = len(keys.missing), len(keys.unexpected), len(keys.resized)
    yield f"{missing} missing, {unexpected} unexpected and {resized} resized keys"
    for name in keys.missing[:MAX_KEYS_SHOWN]:
        yield f"missing     {name}  {_shape_text(own[name])}"
    for name in keys.unexpected[:MAX_KEYS_SHOWN]:
        yield f"unexpected  {name}"
    for name in keys.resized[:MAX_KEYS_SHOWN]:
        in_file, in_module = _shape_text(stored[name]), _shape_text(own[name])
        yield f"resized     {name}  {in_file} in the file, {in_module} in the module"
    kinds = (keys.missing, keys.unexpected, keys.resized)
    more = sum(max(0, len(names) - MAX_KEYS_SHOWN) for names in kinds)
    if more:
        yield f"and {more} more"


def _shape_text(value: Any) -> str:
    """Return the sizes of an entry; its type if it is not a tensor, or has no sizes yet."""
    if isinstance(value, torch.Tensor) and not is_lazy(value):
        return str(list(value.shape))
    return type(value).__name__
