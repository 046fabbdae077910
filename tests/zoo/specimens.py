"""Specimens: a model, the inputs that it is known to take, and the forms in which it is saved."""

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
    """A model in eval mode and one call that it takes. `plain` is it with tensors in, tensors out, for tracing."""

    module: nn.Module
    inputs: tuple[Any, ...]
    plain: nn.Module | None = None
    named: Mapping[str, Any] | None = None

    @property
    def traceable(self) -> nn.Module:
        return self.plain or self.module

    def call(self, module: nn.Module) -> Any:
        if self.named is not None and module is self.module:
            return module(**self.named)
        return module(*self.inputs)


@dataclass(frozen=True)
class Entry:
    """One model of the zoo: `build` makes it anew."""

    source: str
    name: str
    build: Callable[[], Specimen]


def save(specimen: Specimen, form: str, path: Path) -> nn.Module:
    """Write the form, and give the model that the file's contract is measured against: the file's own where the form
    differs from the model (a trace drops asserts and bakes sizes), else the eager one."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        match form:
            case "scripted":
                scripted = torch.jit.script(specimen.module)
                specimen.call(scripted)
                scripted.save(str(path))
                return specimen.module
            case "traced":
                torch.jit.trace(
                    specimen.traceable, specimen.inputs, strict=False, check_trace=False
                ).save(str(path))
                return torch.jit.load(str(path))
            case "resaved":
                traced = torch.jit.trace(
                    specimen.traceable, specimen.inputs, strict=False, check_trace=False
                )
                traced.save(str(path))
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
