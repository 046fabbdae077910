"""Building: one TorchScript module of the models of a blueprint.

Tensors that are in the files of the models are left out; the caller copies them from there.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from composecli.core.blueprint import (
    Blueprint,
    Parallel,
    Sequential,
    models,
    settings_of,
    used_paths,
)
from composecli.core.pytree import Argument, Call
from composecli.files.archive import Archive
from composecli.files.torchscript import attributes
from composecli.runtime.bridge_steps import Layers, layer_name, make_layers
from composecli.runtime.error_text import telling_line
from composecli.runtime.forward.restore_state import preserving_state
from composecli.runtime.forward.run import run_blueprint
from composecli.runtime.joining.forward_source import forward_source, joined_signature, part_name
from composecli.runtime.joining.part import (
    Part,
    Use,
    as_part,
    could_not_build,
    make_part,
    new_holder,
)
from composecli.runtime.joining.tracing import passed
from composecli.runtime.model import Model
from composecli.runtime.tensors import Maker, Values, tree_of
from composecli.workers.protocol import BuildRequest, Built, LeftOut

# By the number that the worker gave each model.
Models = dict[int, Model]


def build(request: BuildRequest, opened: Models, maker: Maker) -> Built:
    """Write the joined module to the request's path.

    Raises:
        CouldNotAttempt: if torch cannot make one module of the models.
    """
    blueprint = request.blueprint
    parts = {number: opened[number] for number in dict.fromkeys(models(blueprint))}
    first = next(iter(parts.values()))
    layers = make_layers(blueprint, request.seed, first.request.device)
    uses = dict[int, Use]()
    if not is_all_script(blueprint, parts):
        uses = _uses(request, parts, layers, maker)
    made = dict[int, Part]()
    for number, part in parts.items():
        if isinstance(part.module, torch.jit.ScriptModule):
            made[number] = as_part(part.module)
        else:
            made[number] = make_part(part, uses[number])
    names = " and ".join(part.name for part in parts.values())
    try:
        joined = _join(blueprint, made, layers, request.call)
    except Exception as error:
        raise could_not_build(names, telling_line(error)) from error
    _require_ascii(joined, names)
    joined.training = all(getattr(part.module, "training", False) for part in parts.values())
    try:
        with _without_tensors(joined, blueprint, parts):
            joined.save(request.path)
    except Exception as error:
        raise could_not_build(names, telling_line(error)) from error
    notes = [part.note for part in made.values() if part.note is not None]
    functions = dict.fromkeys(name for part in made.values() for name in part.functions)
    left_out = tuple(_left_out_records(request, parts))
    return Built(tuple(notes), left_out, tuple(functions))


def _require_ascii(joined: torch.jit.ScriptModule, names: str) -> None:
    """Check the names in a module: PyTorch writes others than ASCII, and cannot read them.

    Raises:
        CouldNotAttempt: if a submodule, a parameter or a buffer has another name.
    """
    modules = (name for name, _ in joined.named_modules())
    for name in (*modules, *joined.state_dict()):
        if not name.isascii():
            own = name.partition(".")[2]
            note = f"PyTorch cannot load a TorchScript module with a name beyond ASCII: {own}"
            help = ("rename it in the code of the model, and save the model again",)
            raise could_not_build(names, note, help=help)


def is_all_script(blueprint: Blueprint, parts: Mapping[int, Model]) -> bool:
    """Whether nothing has to be run or traced to build the blueprint."""
    numbers = models(blueprint)
    return all(isinstance(parts[number].module, torch.jit.ScriptModule) for number in numbers)


def _uses(request: BuildRequest, parts: Models, layers: Layers, maker: Maker) -> dict[int, Use]:
    """Return how each model is used: its arguments, the first time that it runs, and its result."""
    blueprint = request.blueprint
    with torch.no_grad(), preserving_state(list(parts.values()), request.seed):
        values = maker.call(request.call)
        inputs = run_blueprint(blueprint, parts, values, layers).inputs
    uses = dict[int, Use]()
    for number, (model, values) in enumerate(zip(models(blueprint), inputs, strict=True)):
        if model not in uses:
            call = _call_of_stage(request, number, values)
            inner = number > 0 and isinstance(blueprint, Sequential)
            uses[model] = Use(passed(call, values), used_paths(blueprint, model), inner)
    return uses


def _call_of_stage(request: BuildRequest, number: int, values: Values) -> Call:
    """Return the call of the model at this place of a blueprint, which it gets with these values.

    Its arguments are in the order in which the joined forward passes them.
    """
    blueprint = request.blueprint
    settings = settings_of(blueprint, number)
    if isinstance(blueprint, Parallel) or number == 0:
        stated = {argument.name for argument in settings}
        shared = [item for item in request.call.arguments if item.name not in stated]
        return Call((*shared, *settings))
    positional = iter(values.positional)
    arguments = list[Argument]()
    for feed in blueprint.stages[number].feeds:
        if feed.name is None:
            value = next(positional)
        else:
            value = values.named[feed.name]
        arguments.append(Argument(tree_of(value), feed.name))
    return Call((*arguments, *settings))


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


def _join(
    blueprint: Blueprint, parts: dict[int, Part], layers: Layers, call: Call
) -> torch.jit.ScriptModule:
    """Return a module with the parts and layers as its submodules, and a generated forward."""
    holder = new_holder()
    for number, part in parts.items():
        holder.add_module(part_name(blueprint, number), part.script)
    for number, layer in layers.items():
        holder.add_module(layer_name(number), layer)
    with warnings.catch_warnings(action="ignore"):
        joined = torch.jit.script(holder)
    first = models(blueprint)[0]
    signature = joined_signature(parts[first].arguments, call)
    forms = {number: part.form for number, part in parts.items()}
    source = forward_source(blueprint, signature, forms)
    joined.define(source)
    return joined
