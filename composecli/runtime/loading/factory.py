"""Factories and their weights.

Naming a factory is consent to run it. Its weights are read as data.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule
from composecli.files.skeleton import checkpoint_skeleton
from composecli.runtime.loading.admission import admit, admit_copy, no_scan
from composecli.runtime.model import Model, could_not_load, eager_arguments, last_line, set_training
from composecli.runtime.weights.lazy_weights import FactoryWeights
from composecli.workers.protocol import OpenRequest

# Entries of checkpoints, and prefixes of all names in them, that training code and wrappers use.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "weights", "params")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
MAX_KEYS_SHOWN = 8

_ZIP = b"PK"
_PICKLE = b"\x80\x02"

StateDict = dict[str, torch.Tensor]


class FactoryLoader:
    """Loads a module that a factory makes, with the weights of a file."""

    def load(self, request: OpenRequest) -> Model:
        """Return the module with its initial weights, checked against the sizes in the file.

        The values of the file are read on demand.

        Raises:
            CouldNotAttempt: if the factory fails, or the file is not admitted or has other keys.
        """
        lazy = request.device == "cpu" and request.sha256 is None
        return _load(request, lazy=lazy)

    def load_whole(self, request: OpenRequest) -> Model:
        """Return the module with the weights of the file.

        Raises:
            CouldNotAttempt: if the factory fails, or the file is not admitted or has other keys.
        """
        return _load(request, lazy=False)


LOADER = FactoryLoader()


def _load(request: OpenRequest, *, lazy: bool) -> Model:
    """Return the module of a factory; if `lazy`, only the sizes in the file are read now."""
    reference = request.reference
    assert isinstance(reference, FactoryReference)
    module = _make_module(reference)
    names = set(module.state_dict())

    def read(*, sizes_only: bool) -> StateDict:
        """Return the weights of the file by the names that they have in the module."""
        stored = _read_weights(request, reference, sizes_only=sizes_only)
        return _strip_prefix(stored, names)

    def load_values() -> None:
        """Copy the values of the file into the module."""
        values = read(sizes_only=False)
        module.load_state_dict(values)

    weights = read(sizes_only=lazy)
    _refuse_other_keys(module, weights, reference)
    lazy_weights = None
    if lazy:
        lazy_weights = FactoryWeights(module, load_values)
    else:
        module.load_state_dict(weights)
    module.to(request.device)
    set_training(module, request.training)
    return Model(module, request, eager_arguments(module), {}, weights=lazy_weights)


def _make_module(reference: FactoryReference) -> nn.Module:
    """Call the factory without arguments; it may fail, exit, or return anything.

    Raises:
        CouldNotAttempt: unless it returns a module.
    """
    try:
        factory = getattr(_import(reference), reference.factory)
        module = factory()
    except (Exception, SystemExit) as error:
        note = f"{type(error).__name__}: {last_line(error)}"
        raise _factory_failed(reference, "the factory could not be run", (note,)) from error
    if not isinstance(module, nn.Module):
        title = f"the factory returned a {type(module).__name__}, not a module"
        raise _factory_failed(reference, title)
    return module


def _factory_failed(
    reference: FactoryReference, title: str, notes: tuple[str, ...] = ()
) -> CouldNotAttempt:
    """Return the error for a factory; its help shows how one is named on the command line."""
    help = (
        "name a callable without arguments:"
        " package.module:factory@weights or file.py:factory@weights"
    )
    problem = Problem(Rule.FACTORY_FAILED, title, reference.name, notes, (help,))
    return CouldNotAttempt(problem)


def _import(reference: FactoryReference) -> ModuleType:
    """Import the module of a factory, by its path or from the current folder and `sys.path`."""
    if not reference.module.endswith(".py"):
        folder = os.getcwd()
        if folder not in sys.path:
            sys.path.insert(0, folder)
        return importlib.import_module(reference.module)
    path = Path(reference.module)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _read_weights(
    request: OpenRequest, reference: FactoryReference, *, sizes_only: bool
) -> StateDict:
    """Return the state dict of the file; with tensors without memory if only sizes are needed."""
    with Path(reference.path).open("rb") as file:
        is_pickled = file.read(2) in (_ZIP, _PICKLE)
    if not is_pickled:
        return _read_safetensors(reference, sizes_only=sizes_only)
    try:
        if sizes_only:
            checkpoint = _read_sizes(request)
        else:
            checkpoint = _read_values(request)
    except CouldNotAttempt:
        raise
    except Exception as error:
        raise could_not_load(request, error) from error
    return _state_dict(checkpoint, request.key, reference)


def _read_sizes(request: OpenRequest) -> Any:
    """Return the checkpoint with its tensors on meta, from the members that hold no values."""
    with admit(request, no_scan) as archive:
        skeleton = io.BytesIO(checkpoint_skeleton(archive))
        return torch.load(skeleton, map_location="meta", weights_only=True)


def _read_values(request: OpenRequest) -> Any:
    """Return the checkpoint with its tensors in memory, from a private copy of the file."""
    with admit_copy(request, no_scan) as copy:
        return torch.load(copy, map_location="cpu", weights_only=True)


def _read_safetensors(reference: FactoryReference, *, sizes_only: bool) -> StateDict:
    """Return the tensors of a safetensors file; with `sizes_only`, float32 ones on meta.

    Raises:
        CouldNotAttempt: if the package is missing or the file is damaged.
    """
    try:
        from safetensors import safe_open
        from safetensors.torch import load_file
    except ImportError as error:
        title = "the weights are in safetensors format but that package is not installed"
        help = ("pip install safetensors",)
        problem = Problem(Rule.PACKAGE_MISSING, title, reference.name, help=help)
        raise CouldNotAttempt(problem) from error
    try:
        if not sizes_only:
            return dict(load_file(reference.path))
        weights: StateDict = {}
        with safe_open(reference.path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is not a mapping
                stored = file.get_slice(name)
                sizes = stored.get_shape()
                weights[name] = torch.empty(sizes, device="meta")
        return weights
    except Exception as error:
        title = "the safetensors file could not be read"
        notes = (last_line(error),)
        problem = Problem(Rule.COULD_NOT_LOAD, title, reference.name, notes)
        raise CouldNotAttempt(problem) from error


def _state_dict(checkpoint: Any, key: str | None, reference: FactoryReference) -> StateDict:
    """Return the state dict in a checkpoint, at `key` or under one of the usual names."""
    if key is None:
        held = _unwrap(checkpoint)
    else:
        held = _entry(checkpoint, key, reference)
    if _is_state_dict(held):
        return dict(held)
    contents = type(held).__name__
    if isinstance(held, Mapping):
        contents = ", ".join(map(str, held))
    title = "the checkpoint has no entry that is clearly the weights"
    notes = (f"it contains: {contents}",)
    help = ("name the entry that holds the weights: --key NAME",)
    problem = Problem(Rule.KEYS_DO_NOT_FIT, title, reference.name, notes, help)
    raise CouldNotAttempt(problem)


def _entry(checkpoint: Any, key: str, reference: FactoryReference) -> Any:
    """Return the entry at a dotted key."""
    held = checkpoint
    steps = list[str]()
    if key:
        steps = key.split(".")
    for step in steps:
        if isinstance(held, Mapping) and step in held:
            held = held[step]
            continue
        names = "nothing"
        if isinstance(held, Mapping):
            names = ", ".join(map(str, held))
        title = f"the checkpoint has no key {key}"
        notes = (f"available keys: {names}",)
        help = ("name one of them with --key",)
        problem = Problem(Rule.KEYS_DO_NOT_FIT, title, reference.name, notes, help)
        raise CouldNotAttempt(problem)
    return held


def _unwrap(checkpoint: Any) -> Any:
    """Descend into the entries of `WRAPPERS` until there are tensors, or no such entry."""
    held = checkpoint
    while isinstance(held, Mapping) and not _is_state_dict(held):
        inner = [held[name] for name in WRAPPERS if isinstance(held.get(name), Mapping)]
        if not inner:
            break
        held = inner[0]
    return held


def _is_state_dict(held: Any) -> bool:
    """Whether a value is a mapping with at least one tensor in it, at the top level."""
    if not isinstance(held, Mapping):
        return False
    return any(isinstance(value, torch.Tensor) for value in held.values())


def _strip_prefix(weights: StateDict, wanted: set[str]) -> StateDict:
    """Return the weights without the prefixes of wrappers, if more names match `wanted` that way.

    A prefix is removed only if every name has it. Prefixes nest: `module._orig_mod.fc.weight`.
    """
    best = weights
    todo = [weights]
    while todo:
        current = todo.pop()
        found = wanted & current.keys()
        if len(found) > len(wanted & best.keys()):
            best = current
        for prefix in PREFIXES:
            if current and all(name.startswith(prefix) for name in current):
                todo.append({name.removeprefix(prefix): value for name, value in current.items()})
    return best


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


def _refuse_other_keys(module: nn.Module, weights: StateDict, reference: FactoryReference) -> None:
    """Refuse weights with other keys or sizes than the module; show the first of each kind.

    Raises:
        CouldNotAttempt: if any differs.
    """
    keys = _key_differences(module.state_dict(), weights)
    if not keys.count:
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
