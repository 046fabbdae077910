"""Verifying a written file: loaded afresh, it must do what its parts do when they are run by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from composecli.blueprint import Blueprint, models
from composecli.errors import CouldNotAttempt
from composecli.protocol import Check, ModelKind, OpenRequest, Training, Verified, VerifyRequest
from composecli.reference import FileReference
from composecli.trees import Call, leaves
from composecli.worker.build import layer_name, part_name
from composecli.worker.describe import shared_names
from composecli.worker.load import load, with_values
from composecli.worker.model import Model, last_line
from composecli.worker.run import Layers, bridge_layers, run
from composecli.worker.state import kept
from composecli.worker.values import Maker, tensors_in, tree_of


@dataclass(frozen=True)
class _Forward:
    """The outputs of one forward, and the gradient of each parameter, None where it gets none."""

    outputs: list[torch.Tensor]
    result: str
    gradients: dict[str, torch.Tensor | None]


def verify(request: VerifyRequest, parts: dict[int, Model], samples: list[torch.Tensor]) -> Verified:
    """Compare outputs, gradients and sharing. Raises nothing that the file causes: a failure is a failed check."""
    used = {number: parts[number] for number in models(request.blueprint)}
    device = next(iter(used.values())).request.device
    layers = bridge_layers(request.blueprint, request.seed, device)
    try:
        written = with_values(load(_written(request, device)))
    except CouldNotAttempt as failure:
        return Verified((Check("reload", passed=False, detail="; ".join(failure.problem.notes)),), ())
    joined = written.module
    checks, results, cut = list[Check](), list[str](), tuple[str, ...]()
    for number, call in enumerate(request.calls):
        seed = request.seed + number
        try:
            hand = _by_hand(request.blueprint, used, layers, call, Maker(device, seed, samples), seed)
            file = _from_file(written, call, Maker(device, seed, samples), seed)
        except Exception as error:
            checks.append(Check(f"forward at {call}", passed=False, detail=last_line(error)))
            continue
        results.append(hand.result)
        checks += [_compare_outputs(hand, file, call), _compare_gradients(hand, file, call)]
        cut = tuple(name for name, gradient in hand.gradients.items() if gradient is None)
    checks.append(_compare_sharing(request.blueprint, used, joined))
    checks.append(_compare_training(request.blueprint, used, joined))
    return Verified(tuple(checks), tuple(results), cut)


def _written(request: VerifyRequest, device: str) -> OpenRequest:
    """What was written here a moment ago is made of what was admitted, and of nothing else."""
    reference = FileReference(request.path)
    return OpenRequest(reference, ModelKind.TORCHSCRIPT, device, Training.SAVED, trusted=True, key=None)


def _parameters(blueprint: Blueprint, used: dict[int, Model], layers: Layers) -> dict[str, torch.Tensor]:
    """Every parameter of the parts under the name that it has in the joined module."""
    named = [(part_name(blueprint, number), model.module) for number, model in used.items()]
    named += [(layer_name(number), layer) for number, layer in layers.items()]
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in named
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }


def _by_hand(
    blueprint: Blueprint, used: dict[int, Model], layers: Layers, call: Call, maker: Maker, seed: int
) -> _Forward:
    with torch.enable_grad(), kept(list(used.values()), seed):
        result = run(blueprint, used, maker.call(call), layers).result
        return _forward(result, _parameters(blueprint, used, layers))


def _from_file(joined: Model, call: Call, maker: Maker, seed: int) -> _Forward:
    positional, named = maker.call(call)
    with torch.enable_grad(), kept([joined], seed):
        result = joined.module(*positional, **named)
        return _forward(result, dict(joined.module.named_parameters(remove_duplicate=False)))


def _forward(result: Any, parameters: dict[str, torch.Tensor]) -> _Forward:
    outputs = tensors_in(result)
    text = ", ".join(str(spec) for _, spec in leaves(tree_of(result)))
    return _Forward([output.detach() for output in outputs], text, _gradients(outputs, parameters))


def _gradients(outputs: list[torch.Tensor], parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | None]:
    """The gradient of one seeded combination of all outputs with respect to each parameter that asks for one."""
    wanted = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    generator = torch.Generator().manual_seed(0)
    loss: Any = 0
    for output in outputs:
        if output.requires_grad:
            weight = torch.randn(output.shape, generator=generator).to(output)
            loss = loss + (output * weight).sum().abs()
    if not wanted or not isinstance(loss, torch.Tensor):
        return dict.fromkeys(wanted)
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return dict(zip(wanted, found, strict=True))


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    try:
        torch.testing.assert_close(one, other, equal_nan=True)
    except AssertionError:
        return False
    return True


def _compare_outputs(hand: _Forward, file: _Forward, call: Call) -> Check:
    same = len(hand.outputs) == len(file.outputs) and all(map(_close, hand.outputs, file.outputs))
    detail = f"{call} -> {hand.result}" if same else f"{call}: the file gives other values than its parts"
    return Check("outputs", same, detail)


def _compare_gradients(hand: _Forward, file: _Forward, call: Call) -> Check:
    if hand.gradients.keys() != file.gradients.keys():
        differing = sorted(hand.gradients.keys() ^ file.gradients.keys())
        return Check("gradients", passed=False, detail=f"parameters differ: {', '.join(differing[:4])}")
    wrong = [name for name, gradient in hand.gradients.items() if not _same_gradient(gradient, file.gradients[name])]
    if wrong:
        return Check("gradients", passed=False, detail=f"{call}: {len(wrong)} differ, {wrong[0]} first")
    some = sum(gradient is not None for gradient in hand.gradients.values())
    return Check("gradients", passed=True, detail=f"{some} of {len(hand.gradients)} parameters, as by hand")


def _same_gradient(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return _close(one, other)


def _compare_sharing(blueprint: Blueprint, used: dict[int, Model], joined: nn.Module) -> Check:
    hand = {
        frozenset(f"{part_name(blueprint, number)}.{name}" for name in group)
        for number, model in used.items()
        for group in shared_names(model.module)
    }
    file = {frozenset(group) for group in shared_names(joined)}
    lost = hand - file
    detail = f"{len(hand)} shared tensors" if not lost else f"no longer shared: {', '.join(sorted(next(iter(lost))))}"
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
