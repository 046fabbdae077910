"""Running a blueprint by hand: each part as it is, one after the other or beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

import torch
from torch import nn

from composecli.core.blueprint import Blueprint, Merge, Parallel, Sequential, bridges
from composecli.core.bridge import Bridge, Cast, Flatten, Linear, Squeeze
from composecli.core.pytree import KeyPath, keystr
from composecli.runtime.model import Model
from composecli.runtime.tensors import Values, dtype_of


@dataclass
class Run:
    """What went into each part and what came out of it, as far as it got."""

    inputs: list[Values]
    results: list[Any]

    @property
    def result(self) -> Any:
        return self.results[-1]


class ModelFailed(Exception):
    """The part with this number raised; `run` holds what came before it."""

    def __init__(self, number: int, error: BaseException, run: Run) -> None:
        super().__init__(str(error))
        self.number = number
        self.error = error
        self.run = run


Layers = dict[int, nn.Linear]


def bridge_layers(blueprint: Blueprint, seed: int, device: str) -> Layers:
    """The generated layers of a blueprint, by their number, always the same for the same seed."""
    linears = [step for bridge in bridges(blueprint) for step in bridge if isinstance(step, Linear)]
    layers = dict[int, nn.Linear]()
    for number, step in enumerate(linears):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + number)
            layer = nn.Linear(step.before, step.after)
        layers[number] = layer.to(dtype_of(step.dtype)).to(device)
    return layers


def run(blueprint: Blueprint, models: dict[int, Model], values: Values, layers: Layers) -> Run:
    """One forward. Raises PartFailed where a part does."""
    match blueprint:
        case Sequential():
            return _run_sequential(blueprint, models, values, iter(layers.values()))
        case Parallel():
            return _run_parallel(blueprint, models, values, iter(layers.values()))
        case _:
            assert_never(blueprint)


def _forward(number: int, model: Model, values: Values, done: Run) -> None:
    done.inputs.append(values)
    try:
        done.results.append(model.module(*values[0], **values[1]))
    except (Exception, SystemExit) as error:
        raise ModelFailed(number, error, done) from error


def _run_sequential(
    blueprint: Sequential, models: dict[int, Model], values: Values, layers: Any
) -> Run:
    done = Run([], [])
    for number, stage in enumerate(blueprint.stages):
        if number:
            try:
                fed = [
                    (
                        feed.name,
                        apply_bridge(get_value(done.result, feed.path), feed.bridge, layers),
                    )
                    for feed in stage.feeds
                ]
            except Exception as error:
                raise ModelFailed(number, error, done) from error
            values = (
                tuple(value for name, value in fed if name is None),
                {name: v for name, v in fed if name},
            )
        _forward(number, models[stage.model], values, done)
    return done


def _run_parallel(
    blueprint: Parallel, models: dict[int, Model], values: Values, layers: Any
) -> Run:
    done = Run([], [])
    for number, branch in enumerate(blueprint.branches):
        _forward(number, models[branch.model], values, done)
    try:
        parts = [
            apply_bridge(get_value(result, branch.path), branch.bridge, layers)
            for result, branch in zip(done.results, blueprint.branches, strict=True)
        ]
        done.results.append(merge(parts, blueprint.merge, blueprint.dim))
    except Exception as error:
        raise ModelFailed(len(blueprint.branches), error, done) from error
    return done


def get_value(value: Any, path: KeyPath) -> Any:
    """The part of a result at `path`; keys of library objects are looked up by their text."""
    for step in path:
        if isinstance(value, Mapping):
            value = next(item for key, item in value.items() if str(key) == str(step))
        elif isinstance(value, tuple | list) and isinstance(step, int):
            value = value[step]
        else:
            raise KeyError(keystr(path))
    return value


def apply_bridge(value: Any, bridge: Bridge, layers: Any) -> Any:
    for step in bridge:
        match step:
            case Cast(dtype):
                value = value.to(dtype_of(dtype))
            case Flatten(start):
                value = torch.flatten(value, start)
            case Squeeze(axis):
                value = torch.squeeze(value, axis)
            case Linear(axis):
                value = torch.movedim(next(layers)(torch.movedim(value, axis, -1)), -1, axis)
            case _:
                assert_never(step)
    return value


def merge(parts: list[Any], merge: Merge, dim: int) -> Any:
    match merge:
        case Merge.CAT:
            return torch.cat(parts, dim)
        case Merge.STACK:
            return torch.stack(parts, dim)
        case Merge.ADD | Merge.MEAN:
            if len({part.shape for part in parts}) > 1:
                raise ValueError(
                    f"sizes differ: {', '.join(str(list(part.shape)) for part in parts)}"
                )
            total = sum(parts[1:], parts[0])
            return total / len(parts) if merge is Merge.MEAN else total
        case Merge.TUPLE:
            return tuple(parts)
        case _:
            assert_never(merge)
