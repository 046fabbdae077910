"""Verifying a written file: loaded afresh, it must do what its parts do when they are run by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from composecli.core.blueprint import Blueprint, models
from composecli.core.errors import CouldNotAttempt
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.pytree import Call
from composecli.runtime.describe import shared_names
from composecli.runtime.forward.run import Layers, bridge_layers, run
from composecli.runtime.joining.allclose import allclose
from composecli.runtime.joining.build import layer_name, part_name
from composecli.runtime.joining.gradients import Digest, Gradient, GradientRun, RunResult
from composecli.runtime.loading import load, with_values
from composecli.runtime.model import Model, last_line
from composecli.runtime.tensors import Maker
from composecli.workers.protocol import Check, OpenRequest, ReferenceRequest, Training, Verified

# The gradients of a model with more bytes of parameters are compared at the first call alone.
LARGEST_TWICE = 2**28
# Gradients that are compared again are kept whole, so many bytes of them at a time.
LARGEST_KEPT = 2**26


@dataclass(frozen=True)
class _Parts:
    """What was joined, by its numbers."""

    request: ReferenceRequest
    used: dict[int, Model]
    layers: Layers
    samples: list[torch.Tensor]

    @property
    def device(self) -> str:
        return next(iter(self.used.values())).request.device

    def seed(self, number: int) -> int:
        """Of the call with this number."""
        return self.request.seed + number

    def maker(self, number: int) -> Maker:
        """Of its values."""
        return Maker(self.device, self.seed(number), self.samples)


@dataclass(frozen=True)
class Reference:
    """What the parts give at each call when they are run by hand; text is why they do not."""

    parts: _Parts
    ran: tuple[tuple[GradientRun, RunResult | str], ...]


def run_reference(
    request: ReferenceRequest, opened: dict[int, Model], samples: list[torch.Tensor]
) -> Reference:
    """Run the parts by hand."""
    used = {number: opened[number] for number in models(request.blueprint)}
    layers = bridge_layers(
        request.blueprint, request.seed, next(iter(used.values())).request.device
    )
    parts = _Parts(request, used, layers, samples)
    sides = [_by_hand(parts, number, call) for number, call in enumerate(request.calls)]
    return Reference(parts, tuple((side, _ran(side)) for side in sides))


def verify(path: str, expected: Reference) -> Verified:
    """Compare outputs, gradients and sharing. Raises nothing that the file causes: a failure is a failed check."""
    parts = expected.parts
    try:
        written = with_values(load(_written(path, parts.device)))
    except CouldNotAttempt as failure:
        return Verified(
            (Check("reload", passed=False, detail="; ".join(failure.problem.notes)),), ()
        )
    checks, results, cut = list[Check](), list[str](), tuple[str, ...]()
    for number, (call, (hand, forward)) in enumerate(
        zip(parts.request.calls, expected.ran, strict=True)
    ):
        file = _from_file(parts, written, number, call, gradients=hand.gradients)
        ran = _ran(file) if not isinstance(forward, str) else forward
        if isinstance(forward, str) or isinstance(ran, str):
            checks.append(Check(f"forward at {call}", passed=False, detail=str(ran)))
            continue
        results.append(forward.result)
        checks.append(_compare_outputs(forward, ran, call))
        if hand.gradients:
            checks.append(_compare_gradients((hand, file), (forward, ran), call))
            cut = tuple(name for name, gradient in forward.gradients.items() if gradient is None)
    return Verified((*checks, *_compare_held(parts, written.module)), tuple(results), cut)


def _ran(side: GradientRun) -> RunResult | str:
    try:
        return side.run()
    except Exception as error:
        return last_line(error)


def _compare_held(parts: _Parts, module: nn.Module) -> tuple[Check, Check]:
    """What the file says of its tensors and modules, without running it."""
    blueprint, used = parts.request.blueprint, parts.used
    return _compare_sharing(blueprint, used, module), _compare_training(blueprint, used, module)


def _written(path: str, device: str) -> OpenRequest:
    """What was written here a moment ago is made of what was admitted, and of nothing else."""
    return OpenRequest(
        FileReference(path), ModelKind.TORCHSCRIPT, device, Training.SAVED, trusted=True, key=None
    )


def _parameters(parts: _Parts) -> dict[str, torch.Tensor]:
    """Every parameter of the parts under the name that it has in the joined module."""
    named = [
        (part_name(parts.request.blueprint, number), model.module)
        for number, model in parts.used.items()
    ]
    named += [(layer_name(number), layer) for number, layer in parts.layers.items()]
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in named
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }


def _by_hand(parts: _Parts, number: int, call: Call) -> GradientRun:
    def forward() -> Any:
        return run(
            parts.request.blueprint, parts.used, parts.maker(number).call(call), parts.layers
        ).result

    parameters = _parameters(parts)
    distinct = {id(parameter): parameter for parameter in parameters.values()}
    large = sum(parameter.nbytes for parameter in distinct.values()) > LARGEST_TWICE
    gradients = not (number and large)
    return GradientRun(
        list(parts.used.values()), forward, parameters, parts.seed(number), gradients
    )


def _from_file(
    parts: _Parts, written: Model, number: int, call: Call, *, gradients: bool
) -> GradientRun:
    def forward() -> Any:
        positional, named = parts.maker(number).call(call)
        return written.module(*positional, **named)

    parameters = dict(written.module.named_parameters(remove_duplicate=False))
    return GradientRun([written], forward, parameters, parts.seed(number), gradients)


def _compare_outputs(hand: RunResult, file: RunResult, call: Call) -> Check:
    same = len(hand.outputs) == len(file.outputs) and all(map(allclose, hand.outputs, file.outputs))
    detail = (
        f"{call} -> {hand.result}"
        if same
        else f"{call}: the file gives other values than its parts"
    )
    return Check("outputs", same, detail)


def _compare_gradients(
    sides: tuple[GradientRun, GradientRun], ran: tuple[RunResult, RunResult], call: Call
) -> Check:
    by_hand, from_file = (forward.gradients for forward in ran)
    if by_hand.keys() != from_file.keys():
        differing = sorted(by_hand.keys() ^ from_file.keys())
        return Check(
            "gradients", passed=False, detail=f"parameters differ: {', '.join(differing[:4])}"
        )
    others = [
        name for name, gradient in by_hand.items() if not _same_gradient(gradient, from_file[name])
    ]
    wrong = [name for group in _groups(others, sides[0]) for name in _not_close(group, sides)]
    if wrong:
        return Check(
            "gradients", passed=False, detail=f"{call}: {len(wrong)} differ, {wrong[0]} first"
        )
    some = sum(gradient is not None for gradient in by_hand.values())
    return Check(
        "gradients", passed=True, detail=f"{some} of {len(by_hand)} parameters, as by hand"
    )


def _same_gradient(one: Gradient, other: Gradient) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return allclose(one, other)
    return (
        bool(one == other)
        if isinstance(one, Digest) and isinstance(other, Digest)
        else one is other
    )


def _groups(names: list[str], side: GradientRun) -> Iterator[list[str]]:
    """The parameters, as many together as there is room for their gradients."""
    group, size = list[str](), 0
    for name in names:
        if group and size + side.parameters[name].nbytes > LARGEST_KEPT:
            yield group
            group, size = [], 0
        group.append(name)
        size += side.parameters[name].nbytes
    if group:
        yield group


def _not_close(names: list[str], sides: tuple[GradientRun, GradientRun]) -> Iterator[str]:
    """Of gradients that differ in their bytes those that are not close, as those are that were rounded in another
    order."""
    hand, file = (replace(side, kept=frozenset(names)).run().gradients for side in sides)
    for name in names:
        one, other = hand[name], file[name]
        if not (
            isinstance(one, torch.Tensor)
            and isinstance(other, torch.Tensor)
            and allclose(one, other)
        ):
            yield name


def _compare_sharing(blueprint: Blueprint, used: dict[int, Model], joined: nn.Module) -> Check:
    hand = {
        frozenset(f"{part_name(blueprint, number)}.{name}" for name in group)
        for number, model in used.items()
        for group in shared_names(model.module)
    }
    file = {frozenset(group) for group in shared_names(joined)}
    lost = hand - file
    detail = (
        f"{len(hand)} shared tensors"
        if not lost
        else f"no longer shared: {', '.join(sorted(next(iter(lost))))}"
    )
    return Check("sharing", not lost, detail)


def _compare_training(blueprint: Blueprint, used: dict[int, Model], joined: nn.Module) -> Check:
    wrong = list(_moved_flags(blueprint, used, joined))
    detail = "as saved" if not wrong else f"{wrong[0]} changed"
    return Check("training state", not wrong, detail)


def _moved_flags(blueprint: Blueprint, used: dict[int, Model], joined: nn.Module) -> Iterator[str]:
    flags = _flags(joined)
    for number, model in used.items():
        if model.switchable:
            prefix = part_name(blueprint, number)
            for name, training in _flags(model.module).items():
                full = f"{prefix}.{name}".rstrip(".")
                if flags.get(full, training) != training:
                    yield full


def _flags(module: nn.Module) -> dict[str, bool]:
    """Whether each submodule is in train mode; a frozen one has no mode."""
    return {
        name: inner.training
        for name, inner in module.named_modules(remove_duplicate=False)
        if hasattr(inner, "training")
    }
