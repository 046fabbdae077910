"""Verifying a written file: loaded afresh, it must do what its parts do when they are run by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from composecli.blueprint import Blueprint, models
from composecli.errors import CouldNotAttempt
from composecli.files.torchscript import attributes
from composecli.files.zip import Archive
from composecli.protocol import Check, ModelKind, OpenRequest, Training, Verified, VerifyRequest
from composecli.reference import FileReference
from composecli.trees import Call, leaves
from composecli.worker.build import layer_name, part_name
from composecli.worker.describe import shared_names
from composecli.worker.factors import Consumed, crc, factored, factors_of
from composecli.worker.load import load, with_values
from composecli.worker.load.torchscript import script_arguments, state_of
from composecli.worker.model import Model, last_line
from composecli.worker.run import Layers, bridge_layers, run
from composecli.worker.state import kept
from composecli.worker.values import Maker, tensors_in, tree_of
from composecli.worker.weights import Weights, places_of, put

# A gradient that is larger is not kept, but a digest of its bytes.
LARGEST_GRADIENT = 2**16
# The gradients of a model with more bytes of parameters are compared at the first call alone.
LARGEST_TWICE = 2**28


@dataclass(frozen=True)
class _Digest:
    """A gradient that was looked at and let go: what stands for its values, or for those that it is the product of."""

    shape: torch.Size
    crcs: tuple[int, ...]


# A tensor, a digest, or None.
Gradient = Any


@dataclass(frozen=True)
class _Forward:
    """The outputs of one forward, and the gradient of each parameter, None where it gets none."""

    outputs: list[torch.Tensor]
    result: str
    gradients: dict[str, Gradient]


@dataclass(frozen=True)
class _Comparison:
    request: VerifyRequest
    used: dict[int, Model]
    layers: Layers
    written: Model
    samples: list[torch.Tensor]

    def maker(self, seed: int) -> Maker:
        return Maker(self.written.request.device, seed, self.samples)


def verify(request: VerifyRequest, parts: dict[int, Model], samples: list[torch.Tensor]) -> Verified:
    """Compare outputs, gradients and sharing. Raises nothing that the file causes: a failure is a failed check."""
    used = {number: parts[number] for number in models(request.blueprint)}
    device = next(iter(used.values())).request.device
    layers = bridge_layers(request.blueprint, request.seed, device)
    try:
        written = _completed(request, used) if request.left_out else with_values(load(_written(request, device)))
    except CouldNotAttempt as failure:
        return Verified((Check("reload", passed=False, detail="; ".join(failure.problem.notes)),), ())
    comparison = _Comparison(request, used, layers, written, samples)
    if request.expected is not None and _gives(comparison, request.expected):
        same = Check("outputs", passed=True, detail="of the file, as before it was written")
        return Verified((same, *_compare_held(comparison)), ())
    checks, results, cut, expected = list[Check](), list[str](), tuple[str, ...](), None
    large = sum(parameter.nbytes for parameter in written.module.parameters()) > LARGEST_TWICE
    for number, call in enumerate(request.calls):
        gradients = request.gradients and not (number and large)
        sides = (make(comparison, call, request.seed + number) for make in (_by_hand, _from_file))
        hand, file = (replace(side, gradients=gradients) for side in sides)
        try:
            ran = hand.run(), file.run()
        except Exception as error:
            checks.append(Check(f"forward at {call}", passed=False, detail=last_line(error)))
            continue
        results.append(ran[0].result)
        expected = expected or _outputs_digest(ran[1])
        checks.append(_compare_outputs(*ran, call))
        if gradients:
            checks.append(_compare_gradients(hand, file, ran, call))
            cut = tuple(name for name, gradient in ran[0].gradients.items() if gradient is None)
    return Verified((*checks, *_compare_held(comparison)), tuple(results), cut, expected)


def _compare_held(comparison: _Comparison) -> tuple[Check, Check]:
    """What the file says of its tensors and modules, without running it."""
    blueprint, used, module = comparison.request.blueprint, comparison.used, comparison.written.module
    return _compare_sharing(blueprint, used, module), _compare_training(blueprint, used, module)


def _gives(comparison: _Comparison, expected: str) -> bool:
    """Whether the file gives at the first call what it gave before, to the bit."""
    request = comparison.request
    side = replace(_from_file(comparison, request.calls[0], request.seed), gradients=False)
    try:
        return _outputs_digest(side.run()) == expected
    except RuntimeError:
        return False


def _outputs_digest(ran: _Forward) -> str:
    return " ".join(f"{output.dtype} {tuple(output.shape)} {crc(output):08x}" for output in ran.outputs)


def _completed(request: VerifyRequest, used: dict[int, Model]) -> Model:
    """The file with what it leaves out, over the memory of the models that it is made of."""
    written = _written(request, "cpu")
    module = torch.jit.load(request.path)
    with Archive(Path(request.path)) as archive:
        held = attributes(archive)
    storages = dict[str, torch.UntypedStorage]()
    for left in request.left_out:
        weights = used[left.model].weights
        assert isinstance(weights, Weights)
        storages[left.record] = weights.storage(left.source)
    places = places_of(module, held)
    put(places, storages, {id(place.tensor): place.tensor for place in places})
    return Model(module, written, script_arguments(module), state_of(module, held))


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


@dataclass(frozen=True)
class _Side:
    """One of the two that are compared, by hand or from the file: how it runs, and its parameters by the names that
    they have in the file. `kept` names those whose gradients are kept whole, whatever their size."""

    models: list[Model]
    forward: Callable[[], Any]
    parameters: dict[str, torch.Tensor]
    seed: int
    kept: frozenset[str] = frozenset()
    gradients: bool = True

    def run(self) -> _Forward:
        with torch.set_grad_enabled(self.gradients), kept(self.models, self.seed):
            result = self.forward()
            outputs = tensors_in(result)
            text = ", ".join(str(spec) for _, spec in leaves(tree_of(result)))
            gradients = _gradients(outputs, self) if self.gradients else {}
            return _Forward([output.detach() for output in outputs], text, gradients)


def _by_hand(comparison: _Comparison, call: Call, seed: int) -> _Side:
    request, used, layers = comparison.request, comparison.used, comparison.layers

    def forward() -> Any:
        return run(request.blueprint, used, comparison.maker(seed).call(call), layers).result

    return _Side(list(used.values()), forward, _parameters(request.blueprint, used, layers), seed)


def _from_file(comparison: _Comparison, call: Call, seed: int) -> _Side:
    joined = comparison.written

    def forward() -> Any:
        positional, named = comparison.maker(seed).call(call)
        return joined.module(*positional, **named)

    return _Side([joined], forward, dict(joined.module.named_parameters(remove_duplicate=False)), seed)


def _gradients(outputs: list[torch.Tensor], side: _Side) -> dict[str, Gradient]:
    """The gradient of one seeded combination of all outputs with respect to each parameter that asks for one."""
    wanted = {name: parameter for name, parameter in side.parameters.items() if parameter.requires_grad}
    loss = _loss(outputs)
    if not wanted or loss is None:
        return dict.fromkeys(wanted)
    distinct = list({id(parameter): parameter for parameter in wanted.values()}.values())
    collected = _Collected({id(wanted[name]) for name in side.kept & wanted.keys()})
    before = [(parameter, parameter.grad) for parameter in distinct]
    handles = [parameter.register_post_accumulate_grad_hook(collected.look) for parameter in distinct]
    try:
        _backward(loss, distinct, collected)
    finally:
        for handle in handles:
            handle.remove()
        for parameter, gradient in before:
            parameter.grad = gradient
    return {name: collected.found.get(id(parameter)) for name, parameter in wanted.items()}


def _loss(outputs: list[torch.Tensor]) -> torch.Tensor | None:
    generator = torch.Generator().manual_seed(0)
    loss: torch.Tensor | None = None
    for output in outputs:
        if output.requires_grad:
            weight = torch.randn(output.shape, generator=generator).to(output)
            part = (output * weight).sum().abs()
            loss = part if loss is None else loss + part
    return loss


@dataclass
class _Collected:
    """Gradients, each looked at when it is there and let go: all of them together are as large as the model. Those of
    the parameters in `whole` are kept as they are."""

    whole: set[int]
    found: dict[int, Gradient] = field(default_factory=dict)

    def look(self, parameter: torch.Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        factors = factors_of(gradient)
        if factors is not None:
            self.found[id(parameter)] = _Digest(gradient.shape, factors)
        elif gradient.nbytes <= LARGEST_GRADIENT or id(parameter) in self.whole:
            self.found[id(parameter)] = gradient
        else:
            self.found[id(parameter)] = _Digest(gradient.shape, (crc(gradient),))


def _backward(loss: torch.Tensor, parameters: list[Any], collected: _Collected) -> None:
    """One backward pass, in which large products are not formed unless more than a gradient asks for them."""
    shapes = {tuple(parameter.shape) for parameter in parameters if parameter.is_cpu and not collected.whole}
    for parameter in parameters:
        parameter.grad = None
    try:
        with factored(shapes):
            loss.backward(inputs=parameters, retain_graph=True)
    except Consumed:
        collected.found.clear()
        for parameter in parameters:
            parameter.grad = None
        loss.backward(inputs=parameters)


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


def _compare_gradients(hand: _Side, file: _Side, ran: tuple[_Forward, _Forward], call: Call) -> Check:
    by_hand, from_file = (forward.gradients for forward in ran)
    if by_hand.keys() != from_file.keys():
        differing = sorted(by_hand.keys() ^ from_file.keys())
        return Check("gradients", passed=False, detail=f"parameters differ: {', '.join(differing[:4])}")
    wrong = [name for name, gradient in by_hand.items() if not _same_gradient(gradient, from_file[name])]
    wrong = [name for name in wrong if not _close_when_kept(hand, file, name)]
    if wrong:
        return Check("gradients", passed=False, detail=f"{call}: {len(wrong)} differ, {wrong[0]} first")
    some = sum(gradient is not None for gradient in by_hand.values())
    return Check("gradients", passed=True, detail=f"{some} of {len(by_hand)} parameters, as by hand")


def _same_gradient(one: Gradient, other: Gradient) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return _close(one, other)
    return bool(one == other) if isinstance(one, _Digest) and isinstance(other, _Digest) else one is other


def _close_when_kept(hand: _Side, file: _Side, name: str) -> bool:
    """Whether two gradients that differ in their bytes are close, as those are that were rounded in another order."""
    one, other = (replace(side, kept=frozenset((name,))).run().gradients[name] for side in (hand, file))
    return isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and _close(one, other)


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
