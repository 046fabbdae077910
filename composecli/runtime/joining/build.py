"""Building: one TorchScript module out of the parts of a blueprint, without the tensors that their files hold."""

from __future__ import annotations

import itertools
import keyword
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import nn

from composecli.core.blueprint import Blueprint, Merge, Parallel, Sequential, models
from composecli.core.bridge import Bridge, Cast, Flatten, Linear, Squeeze
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.facts import ArgumentFact
from composecli.core.pytree import Call, keystr
from composecli.core.pytree import KeyPath as Port
from composecli.core.rules import Rule
from composecli.files.archive import Archive
from composecli.files.torchscript import attributes
from composecli.runtime.forward.restore_state import preserving_state
from composecli.runtime.forward.run import Layers, bridge_layers, run
from composecli.runtime.loading.torchscript import script_arguments
from composecli.runtime.model import Model, last_line
from composecli.runtime.tensors import Maker, Values
from composecli.runtime.weights.lazy_weights import AnyWeights
from composecli.workers.protocol import BuildRequest, Built, LeftOut


def part_name(blueprint: Blueprint, model: int) -> str:
    """The attribute that holds a model; a model that is used twice is held once."""
    return f"part_{list(dict.fromkeys(models(blueprint))).index(model)}"


def layer_name(number: int) -> str:
    return f"bridge_{number}"


def build(request: BuildRequest, parts: dict[int, Model], maker: Maker) -> Built:
    """Write the combined module to the request's path.

    Raises:
        CouldNotAttempt: torch cannot make one module of the parts.
    """
    blueprint = request.blueprint
    used = [parts[number] for number in dict.fromkeys(models(blueprint))]
    layers = bridge_layers(blueprint, request.seed, used[0].request.device)
    notes = list[str]()
    scripts = dict[int, torch.jit.ScriptModule]()
    inputs = _inputs(request, parts, layers, maker) if not is_all_script(blueprint, parts) else {}
    for number in dict.fromkeys(models(blueprint)):
        scripts[number] = _script(parts[number], inputs.get(number, ((), {})), notes)
    try:
        joined = _join(blueprint, scripts, layers, request.call)
    except Exception as error:
        raise _could_not_build(used, error) from error
    joined.training = all(getattr(model.module, "training", False) for model in used)
    named = {
        part_name(blueprint, number): (number, parts[number].weights)
        for number in dict.fromkeys(models(blueprint))
    }
    with _left_out(
        joined, [(name, weights) for name, (_, weights) in named.items() if weights is not None]
    ):
        joined.save(request.path)
    return Built(tuple(notes), tuple(_left_out_records(request.path, named)))


def is_all_script(blueprint: Blueprint, parts: Mapping[int, Model]) -> bool:
    """Whether nothing has to be run or traced to build it."""
    return all(
        isinstance(parts[number].module, torch.jit.ScriptModule) for number in models(blueprint)
    )


def _inputs(
    request: BuildRequest, parts: dict[int, Model], layers: Layers, maker: Maker
) -> dict[int, Values]:
    """What each part is given the first time."""
    order = models(request.blueprint)
    used = [parts[number] for number in dict.fromkeys(order)]
    with torch.no_grad(), preserving_state(used, request.seed):
        given = run(request.blueprint, parts, maker.call(request.call), layers).inputs
    return dict(zip(reversed(order), reversed(given), strict=True))


@contextmanager
def _left_out(
    joined: torch.jit.ScriptModule, parts: list[tuple[str, AnyWeights]]
) -> Iterator[None]:
    """The joined module without the tensors of these parts, by name, while it is saved."""
    owners = dict(joined.named_modules(remove_duplicate=False))
    kept = list[tuple[Any, str, Any]]()
    for name, weights in parts:
        for module, attribute, tensor in weights.on_meta():
            owner = owners[f"{name}.{module}".rstrip(".")]._c
            if owner.hasattr(attribute):
                kept.append((owner, attribute, owner.getattr(attribute)))
                owner.setattr(attribute, tensor)
    try:
        yield
    finally:
        for owner, attribute, tensor in kept:
            owner.setattr(attribute, tensor)


def _left_out_records(
    path: str, parts: Mapping[str, tuple[int, AnyWeights | None]]
) -> Iterator[LeftOut]:
    """Which record of which part is the content of each that was left out."""
    with Archive(Path(path)) as archive:
        held = attributes(archive)
    found = dict[str, LeftOut]()
    for name, (number, weights) in parts.items():
        for place in weights.places if weights is not None else ():
            attribute = held.get(f"{name}.{place.module}".rstrip("."), {}).get(place.attribute)
            if attribute is not None and attribute.records:
                record = attribute.records[place.index or 0]
                found[record] = LeftOut(record, number, place.record)
    yield from found.values()


def _could_not_build(used: list[Model], error: BaseException) -> CouldNotAttempt:
    names = " and ".join(model.name for model in used)
    return CouldNotAttempt(
        Problem(
            Rule.COULD_NOT_BUILD,
            "PyTorch could not make one TorchScript module of the parts",
            names,
            (last_line(error),),
        )
    )


def _script(model: Model, values: Values, notes: list[str]) -> torch.jit.ScriptModule:
    if isinstance(model.module, torch.jit.ScriptModule):
        return model.module
    reason = "a torch.export archive cannot be scripted: its ranges and guards are lost, its mode is fixed"
    if model.switchable:
        try:
            with warnings.catch_warnings(action="ignore"):
                scripted = torch.jit.script(model.module)
            if scripted._c._has_method("forward"):
                return scripted
            reason = "its forward is overloaded and cannot be scripted: one path through its code is kept"
        except Exception as error:
            reason = (
                f"it could not be scripted ({last_line(error)}): one path through its code is kept"
            )
    if values[1] and not model.switchable:
        title = (
            "a torch.export archive that takes named arguments cannot be traced into TorchScript"
        )
        help = ("export it with positional arguments",)
        raise CouldNotAttempt(
            Problem(
                Rule.COULD_NOT_BUILD, title, model.name, (f"named: {', '.join(values[1])}",), help
            )
        )
    try:
        example = (
            {"example_kwarg_inputs": _named(model, values)}
            if values[1]
            else {"example_inputs": values[0]}
        )
        with warnings.catch_warnings(action="ignore"), preserving_state([model], 0):
            traced = torch.jit.trace(model.module, strict=False, check_trace=False, **example)
    except Exception as error:
        raise _could_not_build([model], error) from error
    notes.append(f"{model.name} was traced: {reason}")
    return traced


def _named(model: Model, values: Values) -> dict[str, Any]:
    names = [argument.name for argument in model.arguments]
    return {**dict(zip(names, values[0], strict=False)), **values[1]}


def _join(
    blueprint: Blueprint, scripts: dict[int, torch.jit.ScriptModule], layers: Layers, call: Call
) -> torch.jit.ScriptModule:
    # A class of its own each time: TorchScript compiles one type for all modules of a class that hold the same.
    holder = type("Joined", (nn.Module,), {"__module__": "composecli"})()
    for number, script in scripts.items():
        holder.add_module(part_name(blueprint, number), script)
    for number, layer in layers.items():
        holder.add_module(layer_name(number), layer)
    with warnings.catch_warnings(action="ignore"):
        joined = torch.jit.script(holder)
    first = script_arguments(scripts[models(blueprint)[0]])
    joined.define(forward_source(blueprint, _signature(first, call)))
    return joined


@dataclass(frozen=True)
class Parameter:
    """One argument of the joined forward: its name there, its type, and its name in the call if it has one."""

    name: str
    type_name: str
    keyword: str | None


def _signature(arguments: tuple[ArgumentFact, ...], call: Call) -> tuple[Parameter, ...]:
    """The joined module's arguments: those of the first part that the call gives."""
    by_name = {argument.name: argument for argument in arguments}
    found, used = list[Parameter](), {"self"}
    for number, given in enumerate(call.arguments):
        own = by_name.get(given.name) if given.name else arguments[number]
        if own is None:
            raise ValueError(f"the first part takes no argument {given.name}")
        name = re.sub(r"\W", "_", own.name)
        if name in used or keyword.iskeyword(name) or not name.isidentifier():
            name = f"input_{number}"
        used.add(name)
        found.append(Parameter(name, own.type_name, given.name))
    return tuple(found)


def forward_source(blueprint: Blueprint, signature: tuple[Parameter, ...]) -> str:
    """The TorchScript source of the joined forward."""
    head = "".join(f", {parameter.name}: {parameter.type_name}" for parameter in signature)
    given = ", ".join(f"{p.keyword}={p.name}" if p.keyword else p.name for p in signature)
    lines = list(_body(blueprint, given))
    return "\n".join([f"def forward(self{head}):", *(f"    {line}" for line in lines), ""])


def _body(blueprint: Blueprint, given: str) -> Iterator[str]:
    layers = itertools.count()
    match blueprint:
        case Sequential(stages):
            for number, stage in enumerate(stages):
                if number:
                    fed = [
                        _source_of(f"y{number - 1}", feed.path, feed.bridge, layers)
                        for feed in stage.feeds
                    ]
                    named = zip((feed.name for feed in stage.feeds), fed, strict=True)
                    given = ", ".join(f"{name}={text}" if name else text for name, text in named)
                yield f"y{number} = self.{part_name(blueprint, stage.model)}({given})"
            yield f"return y{len(stages) - 1}"
        case Parallel(branches, merge, dim):
            for number, branch in enumerate(branches):
                yield f"y{number} = self.{part_name(blueprint, branch.model)}({given})"
                yield f"z{number} = {_source_of(f'y{number}', branch.path, branch.bridge, layers)}"
            yield f"return {_merged([f'z{number}' for number in range(len(branches))], merge, dim)}"
        case _:
            assert_never(blueprint)


def _source_of(name: str, path: Port, bridge: Bridge, layers: Iterator[int]) -> str:
    text = name + keystr(path)
    for step in bridge:
        match step:
            case Cast(dtype):
                text = f"{text}.to(torch.{dtype})"
            case Flatten(start):
                text = f"torch.flatten({text}, {start})"
            case Squeeze(axis):
                text = f"torch.squeeze({text}, {axis})"
            case Linear(axis):
                layer = layer_name(next(layers))
                text = f"torch.movedim(self.{layer}(torch.movedim({text}, {axis}, -1)), -1, {axis})"
            case _:
                assert_never(step)
    return text


def _merged(names: list[str], merge: Merge, dim: int) -> str:
    listed = f"[{', '.join(names)}]"
    match merge:
        case Merge.CAT:
            return f"torch.cat({listed}, {dim})"
        case Merge.STACK:
            return f"torch.stack({listed}, {dim})"
        case Merge.ADD:
            return " + ".join(names)
        case Merge.MEAN:
            return f"({' + '.join(names)}) / {len(names)}"
        case Merge.TUPLE:
            return f"({', '.join(names)})"
        case _:
            assert_never(merge)
