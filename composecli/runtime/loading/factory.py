"""Factories and their weights.

Naming a factory is consent to run it. Its weights are read as data, unless their file is trusted.
"""

from __future__ import annotations

import difflib
import io
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule
from composecli.files.archive import Archive
from composecli.files.pickled_module import Unreadable
from composecli.files.safety.remedies import TRUST_EFFECT
from composecli.files.skeleton import checkpoint_skeleton
from composecli.runtime.loading.admission import admit, admit_copy, no_scan
from composecli.runtime.loading.factory_call import make_module
from composecli.runtime.loading.own_code import load_trusted, own_modules
from composecli.runtime.loading.stored_state import (
    StoredState,
    holds_module,
    put_dtypes,
    read_sizes,
    read_values,
)
from composecli.runtime.loading.strict_keys import StateDict, fit_by_name, load_strictly
from composecli.runtime.model import Model, could_not_load, eager_arguments, last_line, set_training
from composecli.runtime.weights.lazy_weights import FactoryWeights
from composecli.workers.protocol import OpenRequest

# Entries of checkpoints, and prefixes of all names in them, that training code and wrappers use.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "weights", "params")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")

MAX_NAMES_SHOWN = 8
MAX_ENTRIES_SHOWN = 3
MAX_ENTRY_DEPTH = 3
UNTRAINED = "its weights are untrained (no file was named)"

_ZIP = b"PK"
_PICKLE = b"\x80\x02"


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


class FactoryAloneLoader:
    """Loads a module that a factory makes, with the values that the factory gives it."""

    def load(self, request: OpenRequest) -> Model:
        """Return the module, whose initial values are the same each time.

        Raises:
            CouldNotAttempt: if the factory fails.
        """
        reference = request.reference
        assert isinstance(reference, FactoryReference)
        module = make_module(reference)
        _refuse_without_values(module, set(), reference)
        module.to(request.device)
        set_training(module, request.training)
        return Model(module, request, eager_arguments(module), {}, (UNTRAINED,))

    load_whole = load


LOADER = FactoryLoader()
LOADER_ALONE = FactoryAloneLoader()


def _load(request: OpenRequest, *, lazy: bool) -> Model:
    """Return the module of a factory; if `lazy`, only the sizes in the file are read now."""
    reference = request.reference
    assert isinstance(reference, FactoryReference)
    module = _make_module(request, reference)
    names = set(module.state_dict())
    _refuse_without_values(module, names, reference)
    _materialize(module)

    def read(*, sizes_only: bool) -> StateDict:
        """Return the weights of the file by the names that they have in the module."""
        stored = _read_weights(request, reference, sizes_only=sizes_only)
        weights = _strip_prefix(stored, names)
        if isinstance(stored, StoredState):
            # A pickled module has no versions: its class is the one that the factory makes.
            weights._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
            stored.put_modes(module)
            put_dtypes(module, weights)
        return weights

    def load_values() -> None:
        """Copy the values of the file into the module."""
        load_strictly(module, read(sizes_only=False), reference)

    lazy_weights = None
    if lazy and fit_by_name(module, read(sizes_only=True)):
        lazy_weights = FactoryWeights(module, load_values)
    else:
        load_values()
    module.to(request.device)
    set_training(module, request.training)
    return Model(module, request, eager_arguments(module), {}, weights=lazy_weights)


def _make_module(request: OpenRequest, reference: FactoryReference) -> nn.Module:
    """Return the module of a factory. If it fails, a pickled module may still be trusted.

    Raises:
        CouldNotAttempt: if the factory fails.
    """
    try:
        return make_module(reference)
    except CouldNotAttempt as failure:
        with Path(request.path).open("rb") as file:
            is_archive = file.read(2) == _ZIP
        if is_archive and _is_pickled_module(request):
            problem = failure.problem
            remedies = (*problem.remedies, _trust_alone(request))
            failure.problem = replace(problem, remedies=remedies)
        raise


def _is_pickled_module(request: OpenRequest) -> bool:
    """Return whether the weights of a factory are those of a pickled module."""
    with admit(request, no_scan) as archive:
        return holds_module(archive)


def _trust_alone(request: OpenRequest) -> Remedy:
    """Return the remedy that unpickles the module as it is, with the classes of the factory."""
    words = ["--trust", request.path]
    for name in own_modules(request):
        words += ["--import", name]
    return Remedy(tuple(words), request.path, TRUST_EFFECT)


def _refuse_without_values(module: nn.Module, names: set[str], reference: FactoryReference) -> None:
    """Refuse a module with tensors on meta that are not in its state dict, given by its `names`.

    Raises:
        CouldNotAttempt: if there are any: nothing gives them values.
    """
    named = (*module.named_parameters(), *module.named_buffers())
    empty = [name for name, tensor in named if tensor.is_meta and name not in names]
    if empty:
        title = "the factory makes tensors on meta that are not in the state dict"
        notes = tuple(f"without values: {name}" for name in empty[:MAX_NAMES_SHOWN])
        help = "make them on the CPU: tensors on meta have no values"
        problem = Problem(Rule.FACTORY_FAILED, title, reference.name, notes, (help,))
        raise CouldNotAttempt(problem)


def _materialize(module: nn.Module) -> None:
    """Replace tensors on meta by zeros on the CPU; shared ones by one tensor."""
    zeros = dict[int, torch.Tensor]()
    for inner in module.modules():
        for held in (inner._parameters, inner._buffers):
            for name, tensor in held.items():
                if tensor is None or not tensor.is_meta:
                    continue
                if id(tensor) not in zeros:
                    zeros[id(tensor)] = _zeros_like(tensor)
                held[name] = zeros[id(tensor)]


def _zeros_like(tensor: torch.Tensor) -> torch.Tensor:
    """Return zeros on the CPU, as a parameter if the tensor is one."""
    zeros = torch.zeros_like(tensor, device="cpu", requires_grad=False)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(zeros, requires_grad=tensor.requires_grad)
    return zeros


def _read_weights(
    request: OpenRequest, reference: FactoryReference, *, sizes_only: bool
) -> StateDict:
    """Return the state dict of the file; with tensors without memory if only sizes are needed."""
    with Path(request.path).open("rb") as file:
        is_pickled = file.read(2) in (_ZIP, _PICKLE)
    if not is_pickled:
        return _read_safetensors(request, sizes_only=sizes_only)
    try:
        if sizes_only:
            checkpoint = _read_sizes(request)
        else:
            checkpoint = _read_values(request)
    except CouldNotAttempt:
        raise
    except Unreadable as error:
        raise _unreadable(request, error) from error
    except Exception as error:
        raise could_not_load(request, error) from error
    if isinstance(checkpoint, StoredState):
        return checkpoint
    return _state_dict(checkpoint, request.key, reference)


def _read_sizes(request: OpenRequest) -> Any:
    """Return the checkpoint with its tensors on meta, from the members that hold no values."""
    with admit(request, no_scan) as archive:
        if holds_module(archive):
            return read_sizes(archive)
        skeleton = io.BytesIO(checkpoint_skeleton(archive))
        return _unpickle(request, skeleton, "meta")


def _read_values(request: OpenRequest) -> Any:
    """Return the checkpoint with its tensors in memory, from a private copy of the file."""
    with admit_copy(request, no_scan) as copy:
        with Archive(copy) as archive:
            if holds_module(archive):
                return read_values(archive)
        return _unpickle(request, copy, "cpu")


def _unpickle(request: OpenRequest, file: Path | io.BytesIO, device: str) -> Any:
    """Load a checkpoint: its tensors alone, or all of it if it is trusted.

    The classes of the script that saved it are those of the factory's own file.
    """
    if not request.trusted:
        return torch.load(file, map_location=device, weights_only=True)
    return load_trusted(request, file, device)


def _unreadable(request: OpenRequest, error: Unreadable) -> CouldNotAttempt:
    """Return the error for a pickled module with tensors that only its own code can make."""
    title = "the pickled module cannot be read without running it"
    notes = (str(error),)
    remedies = (_trust_alone(request),)
    name = request.reference.name
    problem = Problem(Rule.COULD_NOT_LOAD, title, name, notes, remedies=remedies)
    return CouldNotAttempt(problem)


def _read_safetensors(request: OpenRequest, *, sizes_only: bool) -> StateDict:
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
        problem = Problem(Rule.PACKAGE_MISSING, title, request.reference.name, help=help)
        raise CouldNotAttempt(problem) from error
    try:
        if not sizes_only:
            return dict(load_file(request.path))
        weights: StateDict = {}
        with safe_open(request.path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is not a mapping
                stored = file.get_slice(name)
                sizes = stored.get_shape()
                weights[name] = torch.empty(sizes, device="meta")
        return weights
    except Exception as error:
        title = "the safetensors file could not be read"
        notes = (last_line(error),)
        problem = Problem(Rule.COULD_NOT_LOAD, title, request.reference.name, notes)
        raise CouldNotAttempt(problem) from error


def _state_dict(checkpoint: Any, key: str | None, reference: FactoryReference) -> StateDict:
    """Return the state dict in a checkpoint, at `key` or under one of the usual names."""
    if key is None:
        held = _unwrap(checkpoint)
    else:
        held = _entry(checkpoint, key, reference)
    if _is_state_dict(held):
        return _with_versions(held, held, "")
    contents = type(held).__name__
    if isinstance(held, Mapping):
        contents = ", ".join(map(str, held))
    title = "the checkpoint has no entry that is clearly the weights"
    notes = (f"it contains: {contents}",)
    help = ("name the entry that holds the weights: --key NAME",)
    paths = itertools.islice(_paths_of_weights(checkpoint, ""), MAX_ENTRIES_SHOWN)
    remedies = tuple(Remedy(("--key", path)) for path in paths)
    problem = Problem(Rule.KEYS_DO_NOT_FIT, title, reference.name, notes, help, remedies=remedies)
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
        remedies = tuple(_similar_entries(held, key, step))
        problem = Problem(
            Rule.KEYS_DO_NOT_FIT, title, reference.name, notes, help, remedies=remedies
        )
        raise CouldNotAttempt(problem)
    return held


def _paths_of_weights(held: Any, path: str, depth: int = 0) -> Iterator[str]:
    """Yield the dotted keys of the state dicts in an entry, which is at `path` itself."""
    if not isinstance(held, Mapping) or depth > MAX_ENTRY_DEPTH:
        return
    if _is_state_dict(held):
        yield path
        return
    for name, value in held.items():
        yield from _paths_of_weights(value, f"{path}.{name}".lstrip("."), depth + 1)


def _similar_entries(held: Any, key: str, step: str) -> Iterator[Remedy]:
    """Yield the remedies that replace a part of a key, which is not there, by a similar name."""
    if not isinstance(held, Mapping):
        return
    names = [str(name) for name in held]
    for name in difflib.get_close_matches(step, names, 1):
        yield Remedy(("--key", key.replace(step, name, 1)))


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
                shorter = {name.removeprefix(prefix): value for name, value in current.items()}
                todo.append(_with_versions(shorter, current, prefix))
    return best


def _with_versions(weights: Mapping[str, Any], source: Any, prefix: str) -> StateDict:
    """Return the weights with the module versions that torch stores beside those of `source`.

    They are in an attribute of the state dict, by the path of the module: `module.0` becomes `0`
    without the prefix `module.`.
    """
    result = OrderedDict(weights)
    stored = getattr(source, "_metadata", None)
    if isinstance(stored, Mapping):
        versions = OrderedDict[str, Any]()
        for path, version in stored.items():
            inner = f"{path}.".removeprefix(prefix)
            versions[inner.removesuffix(".")] = version
        result._metadata = versions  # type: ignore[attr-defined]
    return result
