"""Blueprints: how models are composed, as data.

The worker runs a blueprint on its models one after the other, and builds a module from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from composecli.core.bridge import Bridge
from composecli.core.pytree import Argument, KeyPath


class Mode(StrEnum):
    """How the models of a command relate: one after the other, on the same input, or in pairs."""

    SEQUENTIAL = "sequential"
    PARALLEL = "parallel"
    PAIRS = "pairs"


class Merge(StrEnum):
    """How the outputs of parallel models become one: all but TUPLE are functions of torch."""

    CAT = "cat"
    ADD = "add"
    MEAN = "mean"
    STACK = "stack"
    TUPLE = "tuple"


Settings = tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Feed:
    """One argument of a stage: the part of the previous result at `path`, after `bridge`."""

    path: KeyPath = ()
    name: str | None = None
    bridge: Bridge = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """One model of a sequence, by the number that the worker assigned to it.

    The first stage has no feeds: it receives the call itself. `settings` are plain values that the
    user stated for this model alone, by name.
    """

    model: int
    feeds: tuple[Feed, ...] = ()
    settings: Settings = ()


@dataclass(frozen=True, slots=True)
class Sequential:
    """Models that run one after the other."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """One of several parallel models: the part of its result at `path` is merged.

    `settings` are as those of a stage.
    """

    model: int
    path: KeyPath = ()
    bridge: Bridge = ()
    settings: Settings = ()


@dataclass(frozen=True, slots=True)
class Parallel:
    """Models that run on the same call, and how their outputs are merged."""

    branches: tuple[Branch, ...]
    merge: Merge
    dim: int = 1


Blueprint = Sequential | Parallel


def single_model(model: int, settings: Settings = ()) -> Sequential:
    """Return a blueprint that runs one model."""
    stage = Stage(model, settings=settings)
    return Sequential((stage,))


def settings_of(blueprint: Blueprint, number: int) -> Settings:
    """Return the settings of the model at this place."""
    if isinstance(blueprint, Sequential):
        return blueprint.stages[number].settings
    return blueprint.branches[number].settings


def merge_of(blueprint: Blueprint) -> Merge | None:
    """Return how the outputs of parallel models are merged; None for models in sequence."""
    if isinstance(blueprint, Sequential):
        return None
    return blueprint.merge


def models(blueprint: Blueprint) -> tuple[int, ...]:
    """Return the number of each model, in the order in which they run."""
    if isinstance(blueprint, Sequential):
        return tuple(stage.model for stage in blueprint.stages)
    return tuple(branch.model for branch in blueprint.branches)


def used_paths(blueprint: Blueprint, model: int) -> tuple[KeyPath, ...]:
    """Return which parts of a model's result are used, each once; the empty path is all of it.

    The last model of a sequence returns the result of the whole.
    """
    paths = list[KeyPath]()
    if isinstance(blueprint, Parallel):
        paths += [branch.path for branch in blueprint.branches if branch.model == model]
        return tuple(dict.fromkeys(paths))
    following = (*blueprint.stages[1:], Stage(-1, (Feed(),)))
    for stage, next_stage in zip(blueprint.stages, following, strict=True):
        if stage.model == model:
            paths += [feed.path for feed in next_stage.feeds]
    return tuple(dict.fromkeys(paths))


def renumber(blueprint: Blueprint, numbers: Mapping[int, int]) -> Blueprint:
    """Return the same blueprint with other numbers for its models."""
    if isinstance(blueprint, Sequential):
        stages = [replace(stage, model=numbers[stage.model]) for stage in blueprint.stages]
        return Sequential(tuple(stages))
    branches = [replace(branch, model=numbers[branch.model]) for branch in blueprint.branches]
    return replace(blueprint, branches=tuple(branches))


def bridges(blueprint: Blueprint) -> tuple[Bridge, ...]:
    """Return every bridge that has a step, in order."""
    candidates = list[Bridge]()
    if isinstance(blueprint, Parallel):
        candidates.extend(branch.bridge for branch in blueprint.branches)
    else:
        for stage in blueprint.stages:
            candidates.extend(feed.bridge for feed in stage.feeds)
    return tuple(bridge for bridge in candidates if bridge)
