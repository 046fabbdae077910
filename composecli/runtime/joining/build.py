"""Building: one TorchScript module of the models of a blueprint.

Tensors that are in the files of the models are left out; the caller copies them from there.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from composecli.core.blueprint import Blueprint, models
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.pytree import Call
from composecli.core.rules import Rule
from composecli.files.archive import Archive
from composecli.files.torchscript import attributes
from composecli.runtime.bridge_steps import Layers, layer_name, make_layers
from composecli.runtime.error_text import telling_line
from composecli.runtime.forward.restore_state import preserving_state
from composecli.runtime.forward.run import run_blueprint
from composecli.runtime.joining.forward_source import forward_source, joined_signature, part_name
from composecli.runtime.loading.torchscript import script_arguments
from composecli.runtime.model import Model
from composecli.runtime.tensors import Maker, Values
from composecli.workers.protocol import BuildRequest, Built, LeftOut

# By the number that the worker gave each model.
Models = dict[int, Model]
Scripts = dict[int, torch.jit.ScriptModule]

_NO_VALUES = Values((), {})


def build(request: BuildRequest, opened: Models, maker: Maker) -> Built:
    """Write the joined module to the request's path.

    Raises:
        CouldNotAttempt: if torch cannot make one module of the models.
    """
    blueprint = request.blueprint
    parts = {number: opened[number] for number in dict.fromkeys(models(blueprint))}
    first = next(iter(parts.values()))
    device = first.request.device
    layers = make_layers(blueprint, request.seed, device)
    inputs = dict[int, Values]()
    if not is_all_script(blueprint, parts):
        inputs = _example_inputs(request, parts, layers, maker)
    notes = list[str]()
    scripts: Scripts = {}
    for number, part in parts.items():
        values = inputs.get(number, _NO_VALUES)
        scripts[number] = _to_script(part, values, notes)
    try:
        joined = _join(blueprint, scripts, layers, request.call)
    except Exception as error:
        used = list(parts.values())
        raise _could_not_build(used, error) from error
    joined.training = all(getattr(part.module, "training", False) for part in parts.values())
    with _without_tensors(joined, blueprint, parts):
        joined.save(request.path)
    left_out = tuple(_left_out_records(request, parts))
    return Built(tuple(notes), left_out)


def is_all_script(blueprint: Blueprint, parts: Mapping[int, Model]) -> bool:
    """Whether nothing has to be run or traced to build the blueprint."""
    numbers = models(blueprint)
    return all(isinstance(parts[number].module, torch.jit.ScriptModule) for number in numbers)


def _example_inputs(
    request: BuildRequest, parts: Models, layers: Layers, maker: Maker
) -> dict[int, Values]:
    """Return the input of each model, the first time that it runs."""
    order = models(request.blueprint)
    with torch.no_grad(), preserving_state(list(parts.values()), request.seed):
        values = maker.call(request.call)
        inputs = run_blueprint(request.blueprint, parts, values, layers).inputs
    return dict(zip(reversed(order), reversed(inputs), strict=True))


@contextmanager
def _without_tensors(
    joined: torch.jit.ScriptModule, blueprint: Blueprint, parts: Models
) -> Iterator[None]:
    """Replace the tensors that are in the files of the parts by meta tensors inside the block."""
    owners = dict(joined.named_modules(remove_duplicate=False))
    removed = list[tuple[Any, str, Any]]()
    for number, part in parts.items():
        if part.weights is None:
            continue
        name = part_name(blueprint, number)
        for module, attribute, tensor in part.weights.meta_values():
            path = f"{name}.{module}".rstrip(".")
            owner = owners[path]._c
            if owner.hasattr(attribute):
                removed.append((owner, attribute, owner.getattr(attribute)))
                owner.setattr(attribute, tensor)
    try:
        yield
    finally:
        for owner, attribute, tensor in removed:
            owner.setattr(attribute, tensor)


def _left_out_records(request: BuildRequest, parts: Models) -> Iterator[LeftOut]:
    """Yield each empty record of the built file, with the record of a part that has its content."""
    with Archive(Path(request.path)) as archive:
        held = attributes(archive)
    left_out = dict[str, LeftOut]()
    for number, part in parts.items():
        if part.weights is None:
            continue
        name = part_name(request.blueprint, number)
        for slot in part.weights.slots:
            path = f"{name}.{slot.module}".rstrip(".")
            inner = held.get(path, {})
            attribute = inner.get(slot.attribute)
            if attribute is not None and attribute.records:
                record = attribute.records[slot.index or 0]
                left_out[record] = LeftOut(record, number, slot.record)
    yield from left_out.values()


def _could_not_build(parts: list[Model], error: BaseException) -> CouldNotAttempt:
    """Return the error that names the parts and quotes the last line of torch's message."""
    title = "PyTorch could not build one TorchScript module from the models"
    names = " and ".join(part.name for part in parts)
    notes = (telling_line(error),)
    problem = Problem(Rule.COULD_NOT_BUILD, title, names, notes)
    return CouldNotAttempt(problem)


def _to_script(model: Model, values: Values, notes: list[str]) -> torch.jit.ScriptModule:
    """Return the model as TorchScript: as it is, scripted, or traced at `values`.

    If it is traced, a note states why.

    Raises:
        CouldNotAttempt: if the model can be neither scripted nor traced.
    """
    if isinstance(model.module, torch.jit.ScriptModule):
        return model.module
    scripted = _try_script(model, values)
    if isinstance(scripted, torch.jit.ScriptModule):
        return scripted
    if values.named and not model.switchable:
        raise _cannot_be_traced(model, values)
    try:
        with warnings.catch_warnings(action="ignore"), preserving_state([model], 0):
            inputs = _trace_inputs(model, values)
            traced = torch.jit.trace(model.module, strict=False, check_trace=False, **inputs)
    except Exception as error:
        raise _could_not_build([model], error) from error
    notes.append(f"{model.name} was traced: {scripted.reason}")
    return traced


@dataclass(frozen=True)
class _NotScripted:
    """The model has to be traced. `reason` completes the note "... was traced: "."""

    reason: str


def _try_script(model: Model, values: Values) -> torch.jit.ScriptModule | _NotScripted:
    """Return the scripted model, or the reason for which it has to be traced.

    It is run at `values`: TorchScript compiles some modules that it cannot run, such as those with
    parametrized weights.
    """
    if not model.switchable:
        return _NotScripted(
            "a torch.export archive cannot be scripted: its ranges and guards are lost,"
            " its mode is fixed"
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            scripted = torch.jit.script(model.module)
    except Exception as error:
        message = telling_line(error)
        return _NotScripted(
            f"it could not be scripted ({message}): one path through its code is kept"
        )
    if not scripted._c._has_method("forward"):
        return _NotScripted(
            "its forward is overloaded and cannot be scripted: one path through its code is kept"
        )
    failure = _error_of_running(scripted, model, values)
    if failure is not None:
        return _NotScripted(
            f"as TorchScript it does not run ({failure}): one path through its code is kept"
        )
    # The run may have changed numbers and lists of the scripted module.
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.script(model.module)


def _error_of_running(scripted: torch.jit.ScriptModule, model: Model, values: Values) -> str | None:
    """Run a scripted model on copies of the values; return the last line of its error, if any."""
    inputs = copy.deepcopy(values)
    try:
        with torch.no_grad(), preserving_state([model], 0):
            scripted(*inputs.positional, **inputs.named)
    except Exception as error:
        return telling_line(error)
    return None


def _cannot_be_traced(model: Model, values: Values) -> CouldNotAttempt:
    """Return the error that lists the named arguments of an exported program."""
    title = "a torch.export archive that takes named arguments cannot be traced into TorchScript"
    names = ", ".join(values.named)
    notes = (f"named: {names}",)
    help = ("export it with positional arguments",)
    problem = Problem(Rule.COULD_NOT_BUILD, title, model.name, notes, help)
    return CouldNotAttempt(problem)


def _trace_inputs(model: Model, values: Values) -> dict[str, Any]:
    """Return the keywords of `torch.jit.trace`, which takes its inputs all by name or none."""
    if not values.named:
        return {"example_inputs": values.positional}
    names = [argument.name for argument in model.arguments]
    by_name = dict(zip(names, values.positional, strict=False))
    by_name.update(values.named)
    return {"example_kwarg_inputs": by_name}


def _join(
    blueprint: Blueprint, scripts: Scripts, layers: Layers, call: Call
) -> torch.jit.ScriptModule:
    """Return a module with the scripts and layers as its submodules, and a generated forward."""
    # A new class each time: TorchScript compiles one type for all modules of a class with the same
    # attributes.
    joined_class = type("Joined", (nn.Module,), {"__module__": "composecli"})
    holder = joined_class()
    for number, script in scripts.items():
        holder.add_module(part_name(blueprint, number), script)
    for number, layer in layers.items():
        holder.add_module(layer_name(number), layer)
    with warnings.catch_warnings(action="ignore"):
        joined = torch.jit.script(holder)
    first = models(blueprint)[0]
    arguments = script_arguments(scripts[first])
    signature = joined_signature(arguments, call)
    source = forward_source(blueprint, signature)
    joined.define(source)
    return joined
