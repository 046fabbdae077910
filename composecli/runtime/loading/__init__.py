"""Loading: one file per kind of model."""

from __future__ import annotations

from typing import assert_never

from composecli.core.model_ref import ModelKind
from composecli.runtime.loading import exported, factory, pickled, torchscript
from composecli.runtime.model import Model
from composecli.workers.protocol import OpenRequest


def load(request: OpenRequest) -> Model:
    """The model that a request names, on its device and in its training state; without its tensors where it can be had
    so, and then with `weights` to read them.

    Raises:
        CouldNotAttempt: it cannot be loaded, or its device is not there.
    """
    match request.kind:
        case ModelKind.TORCHSCRIPT:
            return torchscript.load_torchscript(request)
        case ModelKind.PICKLED:
            return pickled.load_pickled(request)
        case ModelKind.EXPORTED:
            return exported.load_exported(request)
        case ModelKind.FACTORY:
            return factory.load_factory(request)
        case _:
            assert_never(request.kind)


def load_whole(request: OpenRequest) -> Model:
    """The same with all its tensors in memory."""
    match request.kind:
        case ModelKind.TORCHSCRIPT:
            return torchscript.load_whole(request)
        case ModelKind.EXPORTED:
            return exported.load_whole(request)
        case ModelKind.PICKLED:
            return pickled.load_whole(request)
        case ModelKind.FACTORY:
            return factory.load_whole(request)
        case _:
            assert_never(request.kind)


def with_values(model: Model, op: str | None = None) -> Model:
    """A model with the values of all its tensors, as pages of its file. `op` is what asks for them."""
    if model.weights is not None:
        model.weights.read(op=op)
    return model
