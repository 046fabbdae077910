"""One forward of the reference or of the joined file, and the gradients of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from composecli.core.pytree import leaves
from composecli.runtime.forward.restore_state import preserving_state
from composecli.runtime.joining.factored_gradients import (
    ProductUsed,
    crc,
    factored_gradients,
    factors_of,
)
from composecli.runtime.model import Model
from composecli.runtime.tensors import tensors_in, tree_of

# Of a larger gradient, only a digest of its bytes is kept.
MAX_KEPT_GRADIENT_BYTES = 2**16


@dataclass(frozen=True)
class Digest:
    """A gradient that was not kept: the checksum of its values, or of the two factors of it."""

    shape: torch.Size
    crcs: tuple[int, ...]


# A tensor, a `Digest`, or None for a parameter that gets no gradient. torch's types are Any here.
Gradient: TypeAlias = Any


@dataclass(frozen=True)
class RunResult:
    """The outputs of one forward, as tensors and as text, and the gradients by parameter."""

    outputs: list[torch.Tensor]
    result: str
    gradients: dict[str, Gradient]


@dataclass(frozen=True)
class GradientRun:
    """A forward that can be run, with or without gradients.

    Attributes:
        parameters: by the names that they have in the joined file.
        kept: the parameters whose gradients are kept whole, whatever their size.
    """

    models: list[Model]
    forward: Callable[[], Any]
    parameters: dict[str, torch.Tensor]
    seed: int
    gradients: bool
    kept: frozenset[str] = frozenset()

    def run(self) -> RunResult:
        """Run the forward under the seed, and restore the models and their gradients."""
        with torch.set_grad_enabled(self.gradients), preserving_state(self.models, self.seed):
            result = self.forward()
            outputs = tensors_in(result)
            tree = tree_of(result)
            text = ", ".join(str(spec) for _, spec in leaves(tree))
            gradients = dict[str, Gradient]()
            if self.gradients:
                gradients = _gradients(outputs, self)
            detached = [output.detach() for output in outputs]
            return RunResult(detached, text, gradients)


def _gradients(outputs: list[torch.Tensor], run: GradientRun) -> dict[str, Gradient]:
    """Return the gradient of a random combination of all outputs, by trainable parameter."""
    trainable = dict[str, torch.Tensor]()
    for name, parameter in run.parameters.items():
        if parameter.requires_grad:
            trainable[name] = parameter
    loss = _loss(outputs)
    if not trainable or loss is None:
        return dict.fromkeys(trainable)
    by_id = {id(parameter): parameter for parameter in trainable.values()}
    distinct = list(by_id.values())
    whole = {id(trainable[name]) for name in run.kept & trainable.keys()}
    collector = _Collector(whole)
    previous = [(parameter, parameter.grad) for parameter in distinct]
    hooks = list[Any]()
    for parameter in distinct:
        hook = parameter.register_post_accumulate_grad_hook(collector.collect)
        hooks.append(hook)
    try:
        _backward(loss, distinct, collector)
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, gradient in previous:
            parameter.grad = gradient
    collected = collector.collected
    return {name: collected.get(id(parameter)) for name, parameter in trainable.items()}


def _loss(outputs: list[torch.Tensor]) -> torch.Tensor | None:
    """Return a scalar that depends on every differentiable output; None if there is none."""
    generator = torch.Generator().manual_seed(0)
    loss: torch.Tensor | None = None
    for output in outputs:
        if output.requires_grad:
            weight = torch.randn(output.shape, generator=generator).to(output)
            term = (output * weight).sum().abs()
            if loss is None:
                loss = term
            else:
                loss = loss + term
    return loss


@dataclass
class _Collector:
    """Digests each gradient as it arrives, and frees it: together they are as large as the model.

    The gradients of the parameters in `whole`, by id, are kept.
    """

    whole: set[int]
    collected: dict[int, Gradient] = field(default_factory=dict)

    def collect(self, parameter: torch.Tensor) -> None:
        """Take the gradient of a parameter. To be registered as an accumulation hook."""
        gradient = parameter.grad
        assert gradient is not None
        parameter.grad = None
        factors = factors_of(gradient)
        if factors is not None:
            self.collected[id(parameter)] = Digest(gradient.shape, factors)
        elif gradient.nbytes <= MAX_KEPT_GRADIENT_BYTES or id(parameter) in self.whole:
            self.collected[id(parameter)] = gradient
        else:
            self.collected[id(parameter)] = Digest(gradient.shape, (crc(gradient),))


def _backward(loss: torch.Tensor, parameters: list[Any], collector: _Collector) -> None:
    """Run a backward pass, with large products in factored form unless an op needs their values."""
    shapes = set[tuple[int, ...]]()
    if not collector.whole:
        shapes = {tuple(parameter.shape) for parameter in parameters if parameter.is_cpu}
    for parameter in parameters:
        parameter.grad = None
    try:
        with factored_gradients(shapes):
            loss.backward(inputs=parameters, retain_graph=True)
    except ProductUsed:
        collector.collected.clear()
        for parameter in parameters:
            parameter.grad = None
        loss.backward(inputs=parameters)
