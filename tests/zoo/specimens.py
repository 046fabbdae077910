"""Specimens: models with inputs that they are known to accept, and the forms they are saved in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

FORMS = ("scripted", "traced", "resaved", "exported", "pickled")


@dataclass(frozen=True)
class Specimen:
    """A model in eval mode and one call that it accepts.

    `plain` is a version of the model for tracing, with only tensors as inputs and outputs. `named`
    holds the keyword arguments of the call, if the model itself is called by keyword.
    """

    module: nn.Module
    inputs: tuple[Any, ...]
    plain: nn.Module | None = None
    named: Mapping[str, Any] | None = None

    @property
    def traceable(self) -> nn.Module:
        """The version of the model that can be traced."""
        return self.plain or self.module

    def call(self, module: nn.Module) -> Any:
        """Call a module, which is the model or a form of it, with the known inputs."""
        if self.named is not None and module is self.module:
            return module(**self.named)
        return module(*self.inputs)

    def cast(self, dtype: torch.dtype) -> Specimen:
        """Return the same call of the model in another float dtype; ids and masks stay as they are.

        The model itself is changed: its parameters and buffers of float dtypes.
        """
        inputs = _cast(self.inputs, dtype)
        module = self.module.to(dtype)
        plain = self.plain
        if plain is not None:
            plain = plain.to(dtype)
        named = self.named
        if named is not None:
            named = _cast(dict(named), dtype)
        return Specimen(module, inputs, plain, named)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Return a value with all floats in it cast."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.to(dtype)
    if isinstance(value, tuple | list):
        return type(value)(_cast(item, dtype) for item in value)
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    return value


@dataclass(frozen=True)
class Entry:
    """One model of the zoo; each call of `build` makes a new one."""

    source: str
    name: str
    build: Callable[[], Specimen]


def save(specimen: Specimen, form: str, path: Path) -> nn.Module:
    """Save the model in one form, and return the model that the file's contract is compared with.

    That is the eager model, unless the form changes behaviour (a trace drops asserts and fixes
    sizes); then it is the model that the file contains.

    Raises:
        ValueError: if there is no such form.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        match form:
            case "scripted":
                scripted = torch.jit.script(specimen.module)
                specimen.call(scripted)
                scripted.save(str(path))
                return specimen.module
            case "traced":
                _trace(specimen).save(str(path))
                return torch.jit.load(str(path))
            case "resaved":
                _trace(specimen).save(str(path))
                torch.jit.load(str(path)).save(str(path))
                return torch.jit.load(str(path))
            case "exported":
                program = torch.export.export(specimen.traceable, specimen.inputs, strict=False)
                torch.export.save(program, path)
                return torch.export.load(path).module()
            case "pickled":
                torch.save(specimen.module, path)
                return specimen.module
    raise ValueError(form)


def _trace(specimen: Specimen) -> torch.jit.ScriptModule:
    return torch.jit.trace(specimen.traceable, specimen.inputs, strict=False, check_trace=False)
