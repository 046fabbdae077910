"""A forward of a blueprint with marks in some slices of its input, or with other values there."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from composecli.core.blueprint import Blueprint
from composecli.core.pytree import Axis, Call, KeyPath, leaves
from composecli.runtime.bridge_steps import make_layers
from composecli.runtime.forward.data_dependence import is_python, weightless
from composecli.runtime.forward.mark_mode import MarkMode, SampleWise, Trail
from composecli.runtime.forward.marking_kernels import MarkingKernels
from composecli.runtime.forward.marks import Marks, holds_nan
from composecli.runtime.forward.op_recorder import register_hooks
from composecli.runtime.forward.restore_state import preserving_state
from composecli.runtime.forward.run import BlueprintRun, get_value, run_blueprint
from composecli.runtime.model import Model
from composecli.runtime.op_mode import MemoryReads
from composecli.runtime.tensors import Values, tree_of

Leaves: TypeAlias = dict[KeyPath, Tensor]


@dataclass(frozen=True)
class Slices:
    """The axes of a call that are followed together, all of them of this size."""

    call: Call
    axes: tuple[Axis, ...]
    size: int

    @property
    def left_out(self) -> int:
        """The slice that is not marked, behind the middle.

        Neither one that goes on to the next slice nor a reversed axis looks as if it was kept.
        """
        return self.size // 2 + self.size % 2

    def marked(self, *, complement: bool = False) -> Tensor:
        """Return whether each slice is marked: all but one are, or only that one."""
        marked = torch.full((self.size,), not complement)
        marked[self.left_out] = complement
        return marked

    def leaves(self, values: Values) -> Iterator[tuple[Tensor, int]]:
        """Yield each tensor that has one of the axes, with the number of the axis."""
        positional = iter(values.positional)
        arguments = list[Any]()
        for argument in self.call.arguments:
            if argument.name is None:
                arguments.append(next(positional))
            else:
                arguments.append(values.named[argument.name])
        for path, axis in self.axes:
            yield get_value(arguments, path), axis


@dataclass(frozen=True)
class MarkedRun:
    """A forward with marks, and which slices had some."""

    run: BlueprintRun
    marks: Marks
    marked: Tensor

    def of_stage(self, number: int) -> Leaves:
        """Return the marks of each tensor in the result of a stage."""
        found = Leaves()
        for path, tensor in tensors_of(self.run.results[number]).items():
            marks = self.marks.of(tensor)
            if marks is None:
                marks = torch.zeros(tensor.shape, dtype=torch.bool, device=tensor.device)
            found[path] = marks
        return found


class Follower:
    """Runs models with marked and with changed slices, in the way that a blueprint says."""

    def __init__(self, blueprint: Blueprint, used: Mapping[int, Model], seed: int) -> None:
        self.blueprint = blueprint
        self.used = used
        self.seed = seed
        self.forwards = 0
        weights = set[int]()
        for model in used.values():
            if model.weights is not None:
                weights.update(storage._cdata for storage in model.weights.unread.values())
        self._kernels = MarkingKernels(frozenset(weights))

    @property
    def unread(self) -> bool:
        """Whether a forward runs without weights, so that its values mean nothing."""
        weights = [model.weights for model in self.used.values()]
        return any(lazy is not None and lazy.unread for lazy in weights)

    def run_marked(
        self, values: Values, slices: Slices, trail: Trail, *, complement: bool = False
    ) -> MarkedRun:
        """Run with marks in all slices but one, or only in that one.

        Raises ModelFailed if a model fails, and ValuesRequired if weights have to be read.
        """
        marks = Marks()
        marked = slices.marked(complement=complement)
        values = copy.deepcopy(values)
        for tensor, axis in slices.leaves(values):
            marks.set(tensor, on_axis(marked, tensor, axis))
        return MarkedRun(self.run_with(values, marks, trail), marks, marked)

    def run_with(self, values: Values, marks: Marks, trail: Trail) -> BlueprintRun:
        """Run on values that have marks."""
        mode = MarkMode(marks, trail)
        modes: list[AbstractContextManager[Any]] = [mode]
        if any(is_python(model) for model in self.used.values()):
            modes.append(MemoryReads(mode.note_memory_read))
        return self._run(values, modes, trail)

    def run_plain(self, values: Values) -> BlueprintRun:
        """Run on values without marks."""
        trail = Trail()
        return self._run(copy.deepcopy(values), (SampleWise(trail),), trail)

    def _run(
        self, values: Values, modes: Sequence[AbstractContextManager[Any]], trail: Trail
    ) -> BlueprintRun:
        """Run once in these modes, without gradients, and restore the state of the models."""
        self.forwards += 1
        trail.stage = 0
        used = list(self.used.values())
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(preserving_state(used, self.seed))
            stack.enter_context(weightless(self.used, kernels=self._kernels.by_op))
            layers = make_layers(self.blueprint, 0, used[0].request.device)
            for model in used:
                if isinstance(model.module, torch.jit.ScriptModule):
                    continue
                for handle in register_hooks(model.module, trail.running):
                    stack.callback(handle.remove)
            for mode in modes:
                stack.enter_context(mode)
            announced = {
                number: replace(model, module=_Announced(model.module, trail))
                for number, model in self.used.items()
            }
            return run_blueprint(self.blueprint, announced, values, layers)


class _Announced(nn.Module):  # type: ignore[misc]
    """A module that says when it begins: TorchScript has no hooks."""

    def __init__(self, module: nn.Module, trail: Trail) -> None:
        super().__init__()
        self.module = module
        self.trail = trail

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Run the module."""
        self.trail.stage += 1
        return self.module(*arguments, **keywords)


def tensors_of(result: Any) -> Leaves:
    """Return each tensor of a result by its path."""
    return {path: get_value(result, path) for path, _ in leaves(tree_of(result))}


def on_axis(slices: Tensor, tensor: Tensor, axis: int) -> Tensor:
    """Return one boolean for each slice, with as many axes as the tensor, to be broadcast."""
    sizes = [1] * tensor.dim()
    sizes[axis] = len(slices)
    return slices.view(sizes).to(tensor.device)


def with_changes(values: Values, other: Values, slices: Slices, scale: float) -> Values:
    """Return the values with other ones in all slices but one."""
    changed = copy.deepcopy(values)
    pairs = zip(slices.leaves(changed), slices.leaves(other), strict=True)
    for (tensor, axis), (replacement, _) in pairs:
        mask = on_axis(slices.marked(), tensor, axis)
        if holds_nan(tensor):
            replacement = replacement * scale  # noqa: PLW2901
        elif tensor.dtype is torch.bool:
            replacement = ~tensor  # noqa: PLW2901
        tensor.copy_(torch.where(mask, replacement, tensor))
    return changed
