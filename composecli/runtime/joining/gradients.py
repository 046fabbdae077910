"""One of the two that are to do the same, the parts run by hand or the file made of them: a forward and its
gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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

# A gradient that is larger is not kept, but a digest of its bytes.
LARGEST_GRADIENT = 2**16


@dataclass(frozen=True)
class Digest:
    """A gradient that was looked at and let go: what stands for its values, or for those that it is the product of."""

    shape: torch.Size
    crcs: tuple[int, ...]


# A tensor, a digest, or None.
Gradient = Any


@dataclass(frozen=True)
class RunResult:
    """The outputs of one forward, and the gradient of each parameter, None where it gets none."""

    outputs: list[torch.Tensor]
    result: str
    gradients: dict[str, Gradient]


@dataclass(frozen=True)
class GradientRun:
    """How it runs, and its parameters by the names that they have in the file. `kept` names those whose gradients are
    kept whole, whatever their size."""

    models: list[Model]
    forward: Callable[[], Any]
    parameters: dict[str, torch.Tensor]
    seed: int
    gradients: bool
    kept: frozenset[str] = frozenset()

    def run(self) -> RunResult:
        with torch.set_grad_enabled(self.gradients), preserving_state(self.models, self.seed):
            result = self.forward()
            outputs = tensors_in(result)
            text = ", ".join(str(spec) for _, spec in leaves(tree_of(result)))
            gradients = _gradients(outputs, self) if self.gradients else {}
            return RunResult([output.detach() for output in outputs], text, gradients)


def _gradients(outputs: list[torch.Tensor], side: GradientRun) -> dict[str, Gradient]:
    """The gradient of one seeded combination of all outputs with respect to each parameter that asks for one."""
    wanted = {
        name: parameter for name, parameter in side.parameters.items() if parameter.requires_grad
    }
    loss = _loss(outputs)
    if not wanted or loss is None:
        return dict.fromkeys(wanted)
    distinct = list({id(parameter): parameter for parameter in wanted.values()}.values())
    collected = _Collected({id(wanted[name]) for name in side.kept & wanted.keys()})
    before = [(parameter, parameter.grad) for parameter in distinct]
    handles = [
        parameter.register_post_accumulate_grad_hook(collected.look) for parameter in distinct
    ]
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
            self.found[id(parameter)] = Digest(gradient.shape, factors)
        elif gradient.nbytes <= LARGEST_GRADIENT or id(parameter) in self.whole:
            self.found[id(parameter)] = gradient
        else:
            self.found[id(parameter)] = Digest(gradient.shape, (crc(gradient),))


def _backward(loss: torch.Tensor, parameters: list[Any], collected: _Collected) -> None:
    """One backward pass, in which large products are not formed unless more than a gradient asks for them."""
    shapes = {
        tuple(parameter.shape)
        for parameter in parameters
        if parameter.is_cpu and not collected.whole
    }
    for parameter in parameters:
        parameter.grad = None
    try:
        with factored_gradients(shapes):
            loss.backward(inputs=parameters, retain_graph=True)
    except ProductUsed:
        collected.found.clear()
        for parameter in parameters:
            parameter.grad = None
        loss.backward(inputs=parameters)
