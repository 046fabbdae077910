"""TorchScript archives. They are programs: what one holds is scanned before it is loaded."""

from __future__ import annotations

import torch

from composecli.errors import CouldNotAttempt, Problem
from composecli.files.torchscript import attributes
from composecli.files.zip import Archive
from composecli.protocol import ArgumentFact, OpenRequest
from composecli.worker.load.admit import admitted
from composecli.worker.model import Model, could_not_load, set_training


def load_torchscript(request: OpenRequest) -> Model:
    with admitted(request) as copy:
        try:
            module = torch.jit.load(copy, map_location=request.device)
        except Exception as error:
            raise could_not_load(request, error) from error
        with Archive(copy) as archive:
            held = attributes(archive)
    if not module._c._has_method("forward"):
        raise _without_forward(request, module)
    set_training(module, request.training)
    return Model(module, request, script_arguments(module), held)


def _without_forward(request: OpenRequest, module: torch.jit.ScriptModule) -> CouldNotAttempt:
    """A bare scripted nn.LSTM or nn.GRU, for one: its forward is overloaded, and torch itself cannot call it."""
    methods = ", ".join(name for name in module._c._method_names()[:6])
    return CouldNotAttempt(
        Problem(
            "CC913", "the archive has no method named forward, so it cannot be called", request.reference.name,
            (f"its methods: {methods or 'none'}",),
            ("script a module that calls it in its own forward, or trace it with torch.jit.trace",),
        )
    )  # fmt: skip


def script_arguments(module: torch.jit.ScriptModule) -> tuple[ArgumentFact, ...]:
    """The arguments of forward, without self; an Optional one without default is required, as TorchScript has it."""
    schema = module._c._get_method("forward").schema
    return tuple(
        ArgumentFact(argument.name, argument.type.annotation_str, not argument.has_default_value())
        for argument in schema.arguments[1:]
    )
