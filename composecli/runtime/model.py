"""A loaded model: its module, how to call it, and how to load it again."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.facts import ArgumentFact
from composecli.core.rules import Rule
from composecli.runtime.error_text import telling_line
from composecli.runtime.pt2.program import Program
from composecli.runtime.weights.lazy_weights import LazyWeights
from composecli.workers.protocol import OpenRequest, Training

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Model:
    """A loaded model.

    `attributes` lists, for TorchScript, the attributes of each submodule by its name, without its
    submodules and parameters. `weights` reads tensors when their values are needed; None if all of
    them are in memory.
    """

    module: nn.Module
    request: OpenRequest
    arguments: tuple[ArgumentFact, ...]
    attributes: dict[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()
    weights: LazyWeights | None = None

    @property
    def name(self) -> str:
        """The file or factory that the user named."""
        return self.request.reference.name

    @property
    def switchable(self) -> bool:
        """Whether it can be put into eval and train mode: an exported program cannot."""
        return not is_exported(self.module)


def is_exported(module: nn.Module) -> bool:
    """Return whether a module is a program of torch.export."""
    return isinstance(module, torch.fx.GraphModule | Program)


def could_not_load(request: OpenRequest, error: BaseException) -> CouldNotAttempt:
    """Return the error to raise if PyTorch fails to load the file of a request."""
    problem = Problem(
        Rule.COULD_NOT_LOAD,
        f"PyTorch could not load this {request.kind}",
        request.reference.name,
        (telling_line(error),),
    )
    return CouldNotAttempt(problem)


def set_training(module: nn.Module, training: Training) -> None:
    """Put a module into train or eval mode, or leave it as it was saved."""
    if training is not Training.SAVED and hasattr(module, "training"):
        module.train(training is Training.TRAIN)


def eager_arguments(module: nn.Module) -> tuple[ArgumentFact, ...]:
    """Return the arguments of a Python forward; none if its signature cannot be read.

    Of those that are passed by name alone, they are the required ones.
    """
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    arguments = list[ArgumentFact]()
    for parameter in parameters:
        if parameter.kind in _POSITIONAL:
            type_name = _type_name(parameter.annotation)
            required = parameter.default is parameter.empty
            arguments.append(ArgumentFact(parameter.name, type_name, required))
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            type_name = _type_name(parameter.annotation)
            fact = ArgumentFact(parameter.name, type_name, required=True, keyword_only=True)
            arguments.append(fact)
    return tuple(arguments)


def _type_name(annotation: Any) -> str:
    """Return an annotation as text; empty if there is none, without the module for a class."""
    if annotation is inspect.Parameter.empty:
        return ""
    if isinstance(annotation, type):
        return getattr(annotation, "__name__", str(annotation))
    return str(annotation)
