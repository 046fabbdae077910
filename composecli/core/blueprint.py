"""Blueprints: what is put together and how, as data. The worker runs them by hand and builds modules of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from composecli.core.bridge import Bridge
from composecli.core.pytree import KeyPath


class Mode(StrEnum):
    SEQUENTIAL = "sequential"
    PARALLEL = "parallel"
    PAIRS = "pairs"


class Merge(StrEnum):
    CAT = "cat"
    ADD = "add"
    MEAN = "mean"
    STACK = "stack"
    TUPLE = "tuple"


@dataclass(frozen=True, slots=True)
class Feed:
    """One argument of a stage: the part of the previous result at `path`, through `bridge`."""

    path: KeyPath = ()
    name: str | None = None
    bridge: Bridge = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """One model of a sequence, by the number that the worker gave it. The first one has no feeds: it gets the call."""

    model: int
    feeds: tuple[Feed, ...] = ()


@dataclass(frozen=True, slots=True)
class Sequential:
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """One model beside others: it gets the call, and the part of its result at `path` is merged."""

    model: int
    path: KeyPath = ()
    bridge: Bridge = ()


@dataclass(frozen=True, slots=True)
class Parallel:
    branches: tuple[Branch, ...]
    merge: Merge
    dim: int = 1


Blueprint = Sequential | Parallel


def single_model(model: int) -> Sequential:
    """One model alone."""
    return Sequential((Stage(model),))


def models(blueprint: Blueprint) -> tuple[int, ...]:
    """The number of each model, in the order in which they run."""
    parts = blueprint.stages if isinstance(blueprint, Sequential) else blueprint.branches
    return tuple(part.model for part in parts)


def renumber(blueprint: Blueprint, numbers: Mapping[int, int]) -> Blueprint:
    """The same with other numbers for its models."""
    if isinstance(blueprint, Sequential):
        return Sequential(
            tuple(replace(stage, model=numbers[stage.model]) for stage in blueprint.stages)
        )
    return replace(
        blueprint, branches=tuple(replace(b, model=numbers[b.model]) for b in blueprint.branches)
    )


def bridges(blueprint: Blueprint) -> tuple[Bridge, ...]:
    """Every bridge that holds a step, in order."""
    if isinstance(blueprint, Parallel):
        return tuple(branch.bridge for branch in blueprint.branches if branch.bridge)
    return tuple(feed.bridge for stage in blueprint.stages for feed in stage.feeds if feed.bridge)
