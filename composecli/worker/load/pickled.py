"""Pickled modules: torch.nn's own classes load as they are, anything else only where the file is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.modules
from torch import nn

from composecli.errors import CouldNotAttempt, Problem
from composecli.files.checkpoint import layers
from composecli.files.pickle import walk
from composecli.files.refusals import of_overrides
from composecli.files.zip import Archive
from composecli.protocol import OpenRequest
from composecli.worker.load.admit import admitted
from composecli.worker.model import Model, could_not_load, eager_arguments, last_line, set_training


def load_pickled(request: OpenRequest) -> Model:
    try:
        with admitted(request) as copy:
            module = _unpickled(request, copy)
    except CouldNotAttempt:
        raise
    except ModuleNotFoundError as error:
        raise CouldNotAttempt(
            Problem(
                "CC924", "the pickle imports a module that is not here", request.reference.name, (last_line(error),),
                ("run composecli where the module can be imported, or save with torch.jit.script or torch.export",),
            )
        ) from error  # fmt: skip
    except Exception as error:
        raise could_not_load(request, error) from error
    if not isinstance(module, nn.Module):
        raise CouldNotAttempt(
            Problem("CC908", f"the file holds a {type(module).__name__}, not a module", request.reference.name)
        )
    _refuse_malformed(request, module)
    set_training(module, request.training)
    return Model(module, request, eager_arguments(module), {})


def _refuse_malformed(request: OpenRequest, module: nn.Module) -> None:
    """Modules whose insides are not what every module has: torch meets them much later, and not by name."""
    usual = nn.Module().__dict__
    todo, seen = [("", module)], set[int]()
    while todo:
        path, inner = todo.pop()
        seen.add(id(inner))
        for key, value in usual.items():
            if not _is_like(key, inner.__dict__.get(key), value):
                title = "the pickled module does not hold together"
                note = f"{path or 'the module'}: {key} is a {type(inner.__dict__.get(key)).__name__}"
                raise CouldNotAttempt(Problem("CC913", title, request.reference.name, (note,)))
        children = inner.__dict__["_modules"].items()
        todo += [
            (f"{path}.{name}".strip("."), child)
            for name, child in children
            if child is not None and id(child) not in seen
        ]


def _is_like(key: str, held: Any, usual: Any) -> bool:
    """Whether an attribute of a module is what it usually is there: a dict of what it is for, a set, or a flag."""
    if isinstance(usual, dict):
        kind = {"_parameters": torch.Tensor, "_buffers": torch.Tensor, "_modules": nn.Module}.get(key, object)
        filled = isinstance(held, dict) and all(isinstance(name, str) for name in held if kind is not object)
        return filled and all(value is None or isinstance(value, kind) for value in held.values())
    return isinstance(held, set) if isinstance(usual, set) else isinstance(held, bool | type(None))


def _unpickled(request: OpenRequest, copy: Path) -> Any:
    if request.trusted:
        return torch.load(copy, map_location=request.device, weights_only=False)
    _refuse_overrides(request, copy)
    with torch.serialization.safe_globals(_layers()):
        return torch.load(copy, map_location=request.device, weights_only=True)


def _refuse_overrides(request: OpenRequest, copy: Path) -> None:
    """Attributes that would stand before what a class itself can do."""
    with Archive(copy) as archive:
        made = layers(walk(archive.read("data.pkl")))
    kinds = {kind.__name__: kind for kind in _layers() if isinstance(kind, type)}
    shadows = tuple(
        f"{name}: {key} is overridden"
        for name, keys in made
        for key in keys
        if callable(getattr(kinds.get(name.name), key, None))
    )
    if shadows:
        raise CouldNotAttempt(of_overrides(request.reference.path, shadows))


def _layers() -> list[Any]:
    """torch.nn's module classes, and the functions that its Transformer keeps as attributes."""
    found = {name: getattr(torch.nn.modules, name) for name in torch.nn.modules.__all__}
    layers = [kind for kind in found.values() if isinstance(kind, type) and issubclass(kind, nn.Module)]
    inner = nn.modules.linear.NonDynamicallyQuantizableLinear
    return [*layers, inner, nn.functional.relu, nn.functional.gelu, torch.relu, set]
