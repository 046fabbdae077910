"""TorchScript archives. They are programs: what one holds is scanned before it is loaded."""

from __future__ import annotations

import io
from typing import Any

import torch

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.facts import ArgumentFact
from composecli.core.rules import Rule
from composecli.files.archive import Archive
from composecli.files.skeleton import has_foreign_byte_order, is_frozen, script_skeleton
from composecli.files.torchscript import Attributes, attributes
from composecli.runtime.loading.admission import admitted_whole
from composecli.runtime.loading.lazy import load_lazily
from composecli.runtime.model import Model, could_not_load, last_line, set_training
from composecli.runtime.weights.lazy_weights import Weights, places_of
from composecli.workers.protocol import OpenRequest


def load_torchscript(request: OpenRequest) -> Model:
    return load_lazily(request, _without_tensors, load_whole)


def load_whole(request: OpenRequest) -> Model:
    with admitted_whole(request) as copy, Archive(copy) as archive:
        try:
            module = torch.jit.load(copy, map_location=request.device)
        except Exception as error:
            raise could_not_load(request, error) from error
        held = attributes(archive)
    return _model(request, module, held, None)


def _without_tensors(request: OpenRequest, archive: Archive) -> Model | str:
    """The model, or why it cannot be had so."""
    if is_frozen(archive):
        return "they are constants of its code"
    if _looks_at_memory(archive):
        return "its code looks at them without an op (tolist)"
    held, emptied = attributes(archive), script_skeleton(archive)
    if emptied is None or has_foreign_byte_order(archive):
        return "they are stored in an unusual way"
    if not _all_placed(archive, held):
        return "some lie in structures of its own"
    # A packed weight, for one, is made of values while it is loaded; and a damaged file is told of by loading it whole.
    try:
        module = torch.jit.load(
            io.BytesIO(emptied), map_location="meta" if request.device == "meta" else None
        )
        if request.device == "meta":
            return _model(request, module, held, None)
        weights = Weights(archive, places_of(module, held))
        weights.leave_out()
    except CouldNotAttempt:
        raise
    except Exception as error:
        return f"without them it does not load ({last_line(error)[:80]})"
    return _model(request, module, held, weights)


def _model(request: OpenRequest, module: Any, held: Attributes, weights: Weights | None) -> Model:
    if not module._c._has_method("forward"):
        raise _without_forward(request, module)
    set_training(module, request.training)
    return Model(module, request, script_arguments(module), state_of(module, held), weights=weights)


def state_of(module: torch.jit.ScriptModule, held: Attributes) -> dict[str, tuple[str, ...]]:
    """What each submodule holds beside its submodules and its parameters."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return {
        name: tuple(key for key in inner if f"{name}.{key}".lstrip(".") not in parameters)
        for name, inner in held.items()
    }


def _all_placed(archive: Archive, held: Attributes) -> bool:
    """Whether every tensor is an attribute of a submodule, or in a list that is one."""
    attributes = [attribute for inner in held.values() for attribute in inner.values()]
    records = {record for attribute in attributes for record in attribute.records}
    everything = {name for name in archive.names if name.startswith("data/")}
    return records == everything and not any(attribute.hidden for attribute in attributes)


def _looks_at_memory(archive: Archive) -> bool:
    """`tolist` reads a tensor without an op."""
    return any(b"tolist" in archive.read(name) for name in archive.names if name.endswith(".py"))


def _without_forward(request: OpenRequest, module: torch.jit.ScriptModule) -> CouldNotAttempt:
    """A bare scripted nn.LSTM or nn.GRU, for one: its forward is overloaded, and torch itself cannot call it."""
    methods = ", ".join(name for name in module._c._method_names()[:6])
    return CouldNotAttempt(
        Problem(
            Rule.COULD_NOT_LOAD, "the archive has no method named forward, so it cannot be called", request.reference.name,
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
