"""Loading: one file per kind of model."""

from __future__ import annotations

from typing import assert_never

from composecli.protocol import ModelKind, OpenRequest
from composecli.worker.load.exported import load_exported
from composecli.worker.load.factory import load_factory
from composecli.worker.load.pickled import load_pickled
from composecli.worker.load.torchscript import load_torchscript
from composecli.worker.model import Model


def load(request: OpenRequest) -> Model:
    """The model that a request names, on its device and in its training state.

    Raises:
        CouldNotAttempt: it cannot be loaded, or its device is not there.
    """
    match request.kind:
        case ModelKind.TORCHSCRIPT:
            return load_torchscript(request)
        case ModelKind.EXPORTED:
            return load_exported(request)
        case ModelKind.PICKLED:
            return load_pickled(request)
        case ModelKind.FACTORY:
            return load_factory(request)
        case _:
            assert_never(request.kind)
