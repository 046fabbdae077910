"""The op and the submodule in which slices that were apart first meet, or lose their axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from composecli.core.blueprint import models, single_model
from composecli.core.findings import Place
from composecli.runtime.forward.mark_mode import Trail
from composecli.runtime.forward.marked_forward import Follower, MarkedRun
from composecli.runtime.forward.run import ModelFailed
from composecli.runtime.forward.script_trace import failed_submodule
from composecli.runtime.forward.slice_axes import kept_axes

History: TypeAlias = Sequence[Tensor | None]


def find_meeting_place(follower: Follower, one: MarkedRun, other: MarkedRun) -> Place | None:
    """Return where the slices meet in the last model; None if that is not known.

    `one` has marks in all slices but one, and `other` in that one.
    """
    number = models(follower.blueprint)[-1]
    alone = Follower(single_model(number), {number: follower.used[number]}, follower.seed)
    trails = [Trail(history=[]), Trail(history=[])]
    try:
        for run, trail in zip((one, other), trails, strict=True):
            alone.run_with(run.run.inputs[-1], run.marks, trail)
    except ModelFailed:
        return None
    first, second = [trail.history or () for trail in trails]
    position = _first_overlap(first, second)
    if position is None:
        position = _first_without_axis(first, one.marked)
    if position is None:
        return None
    place = trails[0].names[position]
    if place.submodule is not None:
        return place
    return replace(place, submodule=_script_submodule(alone, one, position))


def _first_overlap(one: History, other: History) -> int | None:
    """Return the first op with an element that depends on marks of both runs."""
    for number, (first, second) in enumerate(zip(one, other, strict=False)):
        if first is None or second is None or first.shape != second.shape:
            continue
        if bool((first & second).any()):
            return number
    return None


def _first_without_axis(history: History, marked: Tensor) -> int | None:
    """Return the first op behind which no result has the axis."""
    position: int | None = None
    for number in reversed(range(len(history))):
        marks = history[number]
        if marks is None:
            continue
        if kept_axes(marks, marked):
            return position
        position = number
    return position


def _script_submodule(alone: Follower, run: MarkedRun, position: int) -> str | None:
    """Return the submodule of TorchScript that runs an op, from the trace of an error there."""
    (model,) = alone.used.values()
    if not isinstance(model.module, torch.jit.ScriptModule):
        return None
    try:
        alone.run_with(run.run.inputs[-1], run.marks, Trail(stop=position))
    except ModelFailed as failed:
        return failed_submodule(model.module, failed.error)
    return None
