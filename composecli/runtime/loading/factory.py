"""Factories and their weights.

Naming a factory is consent to run it. Its weights are read as data.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule
from composecli.runtime.error_text import telling_line
from composecli.runtime.loading.lazy_layers import finish_lazy_layers
from composecli.runtime.loading.strict_keys import fit_by_name, load_strictly, sizes_of
from composecli.runtime.loading.weights_file import read_weights
from composecli.runtime.model import Model, eager_arguments, set_training
from composecli.runtime.weights.lazy_weights import FactoryWeights
from composecli.workers.protocol import OpenRequest

MAX_NAMES_SHOWN = 8


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
    sizes = sizes_of(module)
    _refuse_without_values(module, set(sizes), reference)
    _materialize(module)

    def load_values() -> tuple[str, ...]:
        """Copy the values of the file into the module, and return the notes about them."""
        weights = read_weights(request, sizes, sizes_only=False)
        load_strictly(module, weights, reference)
        return weights.notes

    lazy_weights = None
    if lazy:
        weights = read_weights(request, sizes, sizes_only=True)
        notes = weights.notes
        if fit_by_name(module, weights.state):
            lazy_weights = FactoryWeights(module, load_values)
    if lazy_weights is None:
        notes = load_values()
        finish_lazy_layers(module)
    module.to(request.device)
    set_training(module, request.training)
    return Model(module, request, eager_arguments(module), {}, notes, lazy_weights)


def _make_module(reference: FactoryReference) -> nn.Module:
    """Call the factory without arguments; it may fail, exit, or return anything.

    Raises:
        CouldNotAttempt: unless it returns a module.
    """
    try:
        factory = getattr(_import(reference), reference.factory)
        module = factory()
    except (Exception, SystemExit) as error:
        note = f"{type(error).__name__}: {telling_line(error)}"
        raise _factory_failed(reference, "the factory could not be run", (note,)) from error
    if not isinstance(module, nn.Module):
        title = f"the factory returned a {type(module).__name__}, not a module"
        raise _factory_failed(reference, title)
    return module


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
