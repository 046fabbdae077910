"""A model that is loaded: its module, how to call it, and how to load it again."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.facts import ArgumentFact
from composecli.core.rules import Rule
from composecli.runtime.pt2.program import Program
from composecli.runtime.weights.lazy_weights import AnyWeights
from composecli.workers.protocol import OpenRequest, Training

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Model:
    """`attributes` lists, for TorchScript, what each submodule holds beside its submodules and parameters. `weights`
    are to be read where values are needed; None where all of them are there."""

    module: nn.Module
    request: OpenRequest
    arguments: tuple[ArgumentFact, ...]
    attributes: dict[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()
    weights: AnyWeights | None = None

    @property
    def name(self) -> str:
        return self.request.reference.name

    @property
    def switchable(self) -> bool:
        """Whether it can be put into eval and train mode: an exported program cannot."""
        return not isinstance(self.module, torch.fx.GraphModule | Program)


def could_not_load(request: OpenRequest, error: BaseException) -> CouldNotAttempt:
    return CouldNotAttempt(
        Problem(
            Rule.COULD_NOT_LOAD,
            f"PyTorch could not load this {request.kind}",
            request.reference.name,
            (last_line(error),),
        )
    )


def last_line(error: BaseException) -> str:
    """What an error says, in one line: torch puts the point of it last, and a long text after a trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    text = text.removeprefix("RuntimeError: ")
    return text if len(text) <= 300 else text[:299] + "…"


def set_training(module: nn.Module, training: Training) -> None:
    if training is not Training.SAVED and hasattr(module, "training"):
        module.train(training is Training.TRAIN)


def eager_arguments(module: nn.Module) -> tuple[ArgumentFact, ...]:
    """The arguments of a Python forward; none known where its signature cannot be read."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(
        ArgumentFact(
            parameter.name, _type_name(parameter.annotation), parameter.default is parameter.empty
        )
        for parameter in parameters
        if parameter.kind in _POSITIONAL
    )


def _type_name(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return (
        getattr(annotation, "__name__", str(annotation))
        if isinstance(annotation, type)
        else str(annotation)
    )
