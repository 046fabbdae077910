"""Factories and their weights. Naming a factory is consent to run it; its weights are read as data."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule
from composecli.files.skeleton import checkpoint_skeleton
from composecli.runtime.loading.admission import admitted, admitted_whole
from composecli.runtime.model import Model, could_not_load, eager_arguments, last_line, set_training
from composecli.runtime.weights.lazy_weights import LazyWeights
from composecli.workers.protocol import OpenRequest

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "weights", "params")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
MOST_KEYS_SHOWN = 8

Weights = dict[str, torch.Tensor]


def load_factory(request: OpenRequest) -> Model:
    """The module with the weights that the factory gave it, held against the file's sizes; their values are read where
    they are needed."""
    return _loaded(request, late=request.device == "cpu" and request.sha256 is None)


def load_whole(request: OpenRequest) -> Model:
    return _loaded(request, late=False)


def _loaded(request: OpenRequest, *, late: bool) -> Model:
    reference = request.reference
    assert isinstance(reference, FactoryReference)
    module = _make(reference)
    names = set(module.state_dict())
    weights = _without_prefix(_weights(request, reference, sizes_alone=late), names)
    _refuse_misfit(module, weights, reference)
    if not late:
        module.load_state_dict(weights)
    module.to(request.device)
    set_training(module, request.training)

    def read() -> None:
        module.load_state_dict(
            _without_prefix(_weights(request, reference, sizes_alone=False), names)
        )

    return Model(
        module,
        request,
        eager_arguments(module),
        {},
        weights=LazyWeights(module, read) if late else None,
    )


def _make(reference: FactoryReference) -> nn.Module:
    try:
        made = getattr(_import(reference), reference.factory)()
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {last_line(error)}"
        raise _factory_failed(reference, "the factory could not be run", said) from error
    if not isinstance(made, nn.Module):
        raise _factory_failed(
            reference, f"the factory gave a {type(made).__name__}, not a module", ""
        )
    return made


def _factory_failed(reference: FactoryReference, title: str, note: str) -> CouldNotAttempt:
    help = (
        "name a callable without arguments: package.module:factory@weights or file.py:factory@weights",
    )
    return CouldNotAttempt(
        Problem(Rule.FACTORY_FAILED, title, reference.name, (note,) if note else (), help)
    )


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


def _weights(request: OpenRequest, reference: FactoryReference, *, sizes_alone: bool) -> Weights:
    """The state dict of the file; with tensors that have no memory where its sizes are all that is asked for."""
    path = Path(reference.path)
    with path.open("rb") as file:
        pickled = file.read(2) in (b"PK", b"\x80\x02")
    if not pickled:
        return _safetensors(reference, sizes_alone=sizes_alone)
    try:
        held = _sizes(request) if sizes_alone else _values(request)
    except CouldNotAttempt:
        raise
    except Exception as error:
        raise could_not_load(request, error) from error
    return _unwrapped(held, request.key, reference)


def _sizes(request: OpenRequest) -> Any:
    with admitted(request) as archive:
        return torch.load(
            io.BytesIO(checkpoint_skeleton(archive)), map_location="meta", weights_only=True
        )


def _values(request: OpenRequest) -> Any:
    with admitted_whole(request) as copy:
        return torch.load(copy, map_location="cpu", weights_only=True)


def _safetensors(reference: FactoryReference, *, sizes_alone: bool) -> Weights:
    try:
        from safetensors import safe_open
        from safetensors.torch import load_file
    except ImportError as error:
        raise CouldNotAttempt(
            Problem(
                Rule.PACKAGE_MISSING, "the weights are in safetensors format and that package is not installed", reference.name,
                help=("pip install safetensors",),
            )
        ) from error  # fmt: skip
    try:
        if not sizes_alone:
            return dict(load_file(reference.path))
        with safe_open(reference.path, framework="pt") as file:
            names = file.keys()
            return {
                name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in names
            }
    except Exception as error:
        problem = Problem(
            Rule.COULD_NOT_LOAD,
            "the safetensors file could not be read",
            reference.name,
            (last_line(error),),
        )
        raise CouldNotAttempt(problem) from error


def _unwrapped(held: Any, key: str | None, reference: FactoryReference) -> Weights:
    """The state dict itself, found under `key` or under a name that training code uses."""
    for step in key.split(".") if key else ():
        if not isinstance(held, Mapping) or step not in held:
            names = ", ".join(map(str, held)) if isinstance(held, Mapping) else "nothing"
            title = f"the checkpoint has no key {key}"
            raise CouldNotAttempt(
                Problem(
                    Rule.KEYS_DO_NOT_FIT,
                    title,
                    reference.name,
                    (f"keys there: {names}",),
                    ("name one of them with --key",),
                )
            )
        held = held[step]
    while key is None and isinstance(held, Mapping) and not _is_weights(held):
        inner = next((held[name] for name in WRAPPERS if isinstance(held.get(name), Mapping)), None)
        if inner is None:
            break
        held = inner
    if not _is_weights(held):
        names = ", ".join(map(str, held)) if isinstance(held, Mapping) else type(held).__name__
        raise CouldNotAttempt(
            Problem(
                Rule.KEYS_DO_NOT_FIT, "the checkpoint holds no weights that can be told apart", reference.name,
                (f"it holds: {names}",), ("name the entry with the weights: --key NAME",),
            )
        )  # fmt: skip
    return dict(held)


def _is_weights(held: Any) -> bool:
    return isinstance(held, Mapping) and any(
        isinstance(value, torch.Tensor) for value in held.values()
    )


def _without_prefix(weights: Weights, wanted: set[str]) -> Weights:
    """The weights without the prefix that wrappers put before every name, where that makes more of them fit."""
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


def _refuse_misfit(module: nn.Module, weights: Weights, reference: FactoryReference) -> None:
    own = module.state_dict()
    missing = [
        f"missing     {name}  {list(value.shape)}"
        for name, value in own.items()
        if name not in weights
    ]
    unexpected = [f"unexpected  {name}" for name in weights if name not in own]
    resized = [
        f"resized     {name}  {list(weights[name].shape)} in the file, {list(value.shape)} in the module"
        for name, value in own.items()
        if name in weights
        and getattr(weights[name], "shape", None) != getattr(value, "shape", None)
    ]
    if not (missing or unexpected or resized):
        return
    title = f"{len(missing)} missing, {len(unexpected)} unexpected and {len(resized)} resized keys"
    rows = [*missing[:MOST_KEYS_SHOWN], *unexpected[:MOST_KEYS_SHOWN], *resized[:MOST_KEYS_SHOWN]]
    more = len(missing) + len(unexpected) + len(resized) - len(rows)
    if more:
        rows.append(f"and {more} more")
    help = (
        "check that the factory is the one that made these weights, or name their entry with --key",
    )
    raise CouldNotAttempt(Problem(Rule.KEYS_DO_NOT_FIT, title, reference.name, tuple(rows), help))
