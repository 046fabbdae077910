"""Running a blueprint model by model: the reference that a joined file is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from composecli.core.blueprint import Blueprint, Merge, Parallel, Sequential, Settings, Stage
from composecli.core.pytree import KeyPath, Literal, keystr
from composecli.runtime.bridge_steps import Layers, run_bridge
from composecli.runtime.model import Model
from composecli.runtime.tensors import Values, mapping_of


@dataclass
class BlueprintRun:
    """The inputs and results of each model, in the order in which they ran.

    After a parallel run, the last result is the merged one.
    """

    inputs: list[Values] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)

    @property
    def result(self) -> Any:
        """The result of the whole blueprint."""
        return self.results[-1]


class ModelFailed(Exception):
    """The model with this number raised, or the bridge or merge before it; `run` ends there."""

    def __init__(self, number: int, error: BaseException, run: BlueprintRun) -> None:
        super().__init__(str(error))
        self.number = number
        self.error = error
        self.run = run


def run_blueprint(
    blueprint: Blueprint, models: Mapping[int, Model], values: Values, layers: Layers
) -> BlueprintRun:
    """Run each model of a blueprint once, on `values` and on each other's results.

    Raises ModelFailed if a model, a bridge or the merge raises.
    """
    layers_in_order = iter(layers.values())
    match blueprint:
        case Sequential():
            return _run_sequential(blueprint, models, values, layers_in_order)
        case Parallel():
            return _run_parallel(blueprint, models, values, layers_in_order)
        case _:
            assert_never(blueprint)


def _run_sequential(
    blueprint: Sequential,
    models: Mapping[int, Model],
    values: Values,
    layers: Iterator[nn.Module],
) -> BlueprintRun:
    """Run the models one after the other; `layers` are those of the bridges, in order."""
    run = BlueprintRun()
    for number, stage in enumerate(blueprint.stages):
        if number > 0:
            values = _stage_values(number, stage, run, layers)
        given = _with_settings(values, stage.settings)
        _run_model(number, models[stage.model], given, run)
    return run


def _run_parallel(
    blueprint: Parallel,
    models: Mapping[int, Model],
    values: Values,
    layers: Iterator[nn.Module],
) -> BlueprintRun:
    """Run the models on the same values, then merge; a failed merge has the next number."""
    run = BlueprintRun()
    for number, branch in enumerate(blueprint.branches):
        given = _with_settings(values, branch.settings)
        _run_model(number, models[branch.model], given, run)
    parts = list[Tensor]()
    try:
        for result, branch in zip(run.results, blueprint.branches, strict=True):
            value = get_value(result, branch.path)
            part = run_bridge(branch.bridge, value, layers)
            parts.append(part)
        merged = merge_results(parts, blueprint.merge, blueprint.dim)
        run.results.append(merged)
    except Exception as error:
        number = len(blueprint.branches)
        raise ModelFailed(number, error, run) from error
    return run


def _with_settings(values: Values, settings: Settings) -> Values:
    """Return the values with the plain ones that are stated for one model."""
    named = dict(values.named)
    for argument in settings:
        if argument.name is not None and isinstance(argument.value, Literal):
            named[argument.name] = argument.value.value
    return Values(values.positional, named)


def _run_model(number: int, model: Model, values: Values, run: BlueprintRun) -> None:
    """Run one model. Its inputs are kept even if it fails, its result is not."""
    run.inputs.append(values)
    try:
        result = model.module(*values.positional, **values.named)
        run.results.append(result)
    except (Exception, SystemExit) as error:
        raise ModelFailed(number, error, run) from error


def _stage_values(
    number: int, stage: Stage, run: BlueprintRun, layers: Iterator[nn.Module]
) -> Values:
    """Return the arguments of a stage: parts of the previous result, through their bridges."""
    positional = list[Any]()
    named = dict[str, Any]()
    try:
        for feed in stage.feeds:
            value = get_value(run.result, feed.path)
            value = run_bridge(feed.bridge, value, layers)
            if feed.name is None:
                positional.append(value)
            else:
                named[feed.name] = value
    except Exception as error:
        raise ModelFailed(number, error, run) from error
    return Values(tuple(positional), named)


def get_value(value: Any, path: KeyPath) -> Any:
    """Return the part of a result at `path`; keys that are not strings are compared as text.

    Raises:
        KeyError: if the result has no such part.
    """
    for step in path:
        items = mapping_of(value)
        if items is not None:
            value = _get_item(items, str(step))
        elif isinstance(value, tuple | list) and isinstance(step, int):
            value = value[step]
        else:
            raise KeyError(keystr(path))
    return value


def _get_item(mapping: Mapping[Any, Any], key_text: str) -> Any:
    """Return the item at this text, or the first one whose key has it as its text."""
    if isinstance(mapping, dict) and key_text in mapping:
        return mapping[key_text]
    for key, item in mapping.items():
        if str(key) == key_text:
            return item
    raise KeyError(key_text)


def merge_results(parts: list[Tensor], merge: Merge, dim: int) -> Any:
    """Merge the results of parallel models. `dim` is where they are concatenated or stacked.

    Two results `(2, 5)` give `(2, 10)` with CAT on dim 1, `(2, 2, 5)` with STACK on dim 1, and
    `(2, 5)` with ADD and MEAN.
    """
    match merge:
        case Merge.CAT:
            return torch.cat(parts, dim)
        case Merge.STACK:
            return torch.stack(parts, dim)
        case Merge.ADD:
            return _sum(parts)
        case Merge.MEAN:
            return _sum(parts) / len(parts)
        case Merge.TUPLE:
            return tuple(parts)
        case _:
            assert_never(merge)


def _sum(parts: list[Tensor]) -> Tensor:
    """Add tensors of the same sizes: PyTorch itself would broadcast them."""
    shapes = {part.shape for part in parts}
    if len(shapes) > 1:
        texts = [str(list(part.shape)) for part in parts]
        sizes = ", ".join(texts)
        raise ValueError(f"sizes differ: {sizes}")
    return sum(parts[1:], parts[0])
