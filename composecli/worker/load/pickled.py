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
    set_training(module, request.training)
    return Model(module, request, eager_arguments(module), {})


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
    extra = [
        nn.modules.linear.NonDynamicallyQuantizableLinear,
    ]
    return [*layers, *extra, nn.functional.relu, nn.functional.gelu, torch.relu, set]
