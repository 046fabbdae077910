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
    reference = request.reference
    assert isinstance(reference, FactoryReference)
    module = _make_module(reference)
    names = set(module.state_dict())

    def read(*, sizes_only: bool) -> StateDict:
        return _strip_prefix(_read_weights(request, reference, sizes_only=sizes_only), names)

    def load_values() -> None:
        module.load_state_dict(read(sizes_only=False))

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
    try:
        module = getattr(_import(reference), reference.factory)()
    except (Exception, SystemExit) as error:
        note = f"{type(error).__name__}: {last_line(error)}"
        raise _factory_failed(reference, "the factory could not be run", (note,)) from error
    if not isinstance(module, nn.Module):
        title = f"the factory gave a {type(module).__name__}, not a module"
        raise _factory_failed(reference, title)
    return module


def _factory_failed(
    reference: FactoryReference, title: str, notes: tuple[str, ...] = ()
) -> CouldNotAttempt:
    help = (
        "name a callable without arguments:"
        " package.module:factory@weights or file.py:factory@weights"
    )
    return CouldNotAttempt(Problem(Rule.FACTORY_FAILED, title, reference.name, notes, (help,)))


def _import(reference: FactoryReference) -> ModuleType:
    if not reference.module.endswith(".py"):
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
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
    with admit(request, no_scan) as archive:
        skeleton = io.BytesIO(checkpoint_skeleton(archive))
        return torch.load(skeleton, map_location="meta", weights_only=True)


def _read_values(request: OpenRequest) -> Any:
    with admit_copy(request, no_scan) as copy:
        return torch.load(copy, map_location="cpu", weights_only=True)


def _read_safetensors(reference: FactoryReference, *, sizes_only: bool) -> StateDict:
    try:
        from safetensors import safe_open
        from safetensors.torch import load_file
    except ImportError as error:
        title = "the weights are in safetensors format and that package is not installed"
        help = ("pip install safetensors",)
        problem = Problem(Rule.PACKAGE_MISSING, title, reference.name, help=help)
        raise CouldNotAttempt(problem) from error
    try:
        if not sizes_only:
            return dict(load_file(reference.path))
        weights: StateDict = {}
        with safe_open(reference.path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is not a mapping
                sizes = file.get_slice(name).get_shape()
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
    raise CouldNotAttempt(
        Problem(
            Rule.KEYS_DO_NOT_FIT,
            "the checkpoint holds no weights that can be told apart",
            reference.name,
            (f"it holds: {contents}",),
            ("name the entry with the weights: --key NAME",),
        )
    )


def _entry(checkpoint: Any, key: str, reference: FactoryReference) -> Any:
    """Return the entry at a dotted key."""
    held = checkpoint
    for step in key.split(".") if key else ():
        if isinstance(held, Mapping) and step in held:
            held = held[step]
            continue
        names = "nothing"
        if isinstance(held, Mapping):
            names = ", ".join(map(str, held))
        raise CouldNotAttempt(
            Problem(
                Rule.KEYS_DO_NOT_FIT,
                f"the checkpoint has no key {key}",
                reference.name,
                (f"keys there: {names}",),
                ("name one of them with --key",),
            )
        )
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
        if len(wanted & current.keys()) > len(wanted & best.keys()):
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
        return len(self.missing) + len(self.unexpected) + len(self.resized)


def _key_differences(own: StateDict, weights: StateDict) -> _KeyDifferences:
    missing, resized = list[str](), list[str]()
    for name, value in own.items():
        if name not in weights:
            missing.append(f"missing     {name}  {list(value.shape)}")
        elif getattr(weights[name], "shape", None) != getattr(value, "shape", None):
            sizes = f"{list(weights[name].shape)} in the file, {list(value.shape)} in the module"
            resized.append(f"resized     {name}  {sizes}")
    unexpected = [f"unexpected  {name}" for name in weights if name not in own]
    return _KeyDifferences(missing, unexpected, resized)


def _refuse_other_keys(module: nn.Module, weights: StateDict, reference: FactoryReference) -> None:
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
    help = (
        "check that the factory is the one that made these weights, or name their entry with --key",
    )
    raise CouldNotAttempt(Problem(Rule.KEYS_DO_NOT_FIT, title, reference.name, tuple(rows), help))
