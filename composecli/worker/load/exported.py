"""torch.export archives. They are programs: loading one may run what it holds."""

from __future__ import annotations

from typing import Any

import torch

from composecli.errors import CouldNotAttempt, Problem
from composecli.protocol import ArgumentFact, OpenRequest, Training
from composecli.worker.model import Model, could_not_load, last_line


def load_exported(request: OpenRequest) -> Model:
    try:
        program = torch.export.load(request.reference.path)
        if request.device != "cpu":
            program = torch.export.passes.move_to_device_pass(program, request.device)
        module = _tied(program.module())
    except Exception as error:
        missing = _missing_library(error)
        if missing is None:
            raise could_not_load(request, error) from error
        raise CouldNotAttempt(
            Problem(
                "CC924",
                f"the archive returns an object of {missing}, which is not imported",
                request.reference.name,
                (last_line(error),),
                (f"install {missing} beside composecli and export with plain tuples or dicts",),
            )
        ) from error
    notes = () if request.training is Training.SAVED else ("an exported program stays in the mode it was exported in",)
    return Model(module, request, _arguments(program), {}, notes)


def _tied(module: Any) -> Any:
    """The module with parameters that share their memory made one again: loading makes an object of each name."""
    first = dict[tuple[Any, ...], Any]()
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        key = (parameter.untyped_storage()._cdata, parameter.storage_offset(), parameter.shape, parameter.stride())
        owner, _, own = name.rpartition(".")
        if parameter.numel() and first.setdefault(key, parameter) is not parameter:
            setattr(module.get_submodule(owner), own, first[key])
    return module


def _missing_library(error: Exception) -> str | None:
    text = str(error)
    if "pytree" not in text.lower() and "serialized type" not in text.lower():
        return None
    return next((name for name in ("transformers", "diffusers", "timm") if name in text), "another library")


def _arguments(program: Any) -> tuple[ArgumentFact, ...]:
    signature = program.module_call_graph[0].signature
    positional, named = signature.in_spec.children()
    names = list(signature.forward_arg_names or [])
    count = len(positional.children())
    names = names[:count] + [f"input {number}" for number in range(len(names), count)]
    return tuple(ArgumentFact(name, "", required=True) for name in (*names, *named.context))
