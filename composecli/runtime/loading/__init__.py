"""Loading: one module per kind of model, and which of them loads which kind.

A new kind of file needs a module in files/, a member of ModelKind, a module here, and one case in
`loader_of`.
"""

from __future__ import annotations

from typing import Protocol

from composecli.core.model_ref import ModelKind
from composecli.runtime.model import Model
from composecli.workers.protocol import OpenRequest


class Loader(Protocol):
    """Loads the models of one kind."""

    def load(self, request: OpenRequest) -> Model:
        """Load a model, without its tensors if its file allows it."""

    def load_whole(self, request: OpenRequest) -> Model:
        """Load a model with all its tensors in memory."""


def loader_of(kind: ModelKind) -> Loader:
    """Return the loader of a kind, imported now: a command does not wait for the others."""
    match kind:
        case ModelKind.TORCHSCRIPT:
            from composecli.runtime.loading import torchscript

            return torchscript.LOADER
        case ModelKind.EXPORTED:
            from composecli.runtime.loading import exported

            return exported.LOADER
        case ModelKind.PICKLED:
            from composecli.runtime.loading import pickled

            return pickled.LOADER
        case ModelKind.FACTORY:
            from composecli.runtime.loading import factory

            return factory.LOADER
        case ModelKind.FACTORY_ALONE:
            from composecli.runtime.loading import factory

            return factory.LOADER_ALONE
        case ModelKind.CONTRACT:
            from composecli.runtime.loading import contract_module

            return contract_module.LOADER


def load(request: OpenRequest) -> Model:
    """Load the requested model on its device and in its training state.

    If the file allows it, the model is loaded without its tensors, and its `weights` read them on
    demand.

    Raises:
        CouldNotAttempt: if the model cannot be loaded, or its device is missing.
    """
    return loader_of(request.kind).load(request)


def load_whole(request: OpenRequest) -> Model:
    """Load the requested model with all its tensors in memory.

    Raises:
        CouldNotAttempt: if the model cannot be loaded, or its device is missing.
    """
    return loader_of(request.kind).load_whole(request)


def with_values(model: Model, op: str | None = None) -> Model:
    """Return the model with the values of all its tensors, as pages of its file.

    `op` names the op that depends on them, for the note.
    """
    if model.weights is not None:
        model.weights.read(op=op)
    return model
