"""TorchScript archives. They are programs, so their code is scanned before it is loaded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.facts import ArgumentFact
from composecli.core.rules import Rule
from composecli.files.archive import Archive
from composecli.files.skeleton import has_foreign_byte_order, is_frozen, script_skeleton
from composecli.files.torchscript import Attributes, attributes
from composecli.runtime.error_text import telling_line
from composecli.runtime.loading.extensions import (
    NotRegistered,
    not_registered,
    refuse_unregistered_code,
)
from composecli.runtime.loading.lazy import ArchiveLoader, Attempt, NotLazy
from composecli.runtime.loading.torchscript_scan import unsafe_ops
from composecli.runtime.model import Model, could_not_load, set_training
from composecli.runtime.weights.lazy_weights import ArchiveWeights, find_slots
from composecli.workers.protocol import OpenRequest


def _open_lazily(request: OpenRequest, archive: Archive) -> Attempt:
    """Load an archive whose tensors are emptied, or return the reason to read it whole."""
    if is_frozen(archive):
        return NotLazy("they are constants of its code")
    if _reads_memory_directly(archive):
        return NotLazy("its code reads them without an op (tolist)")
    held = attributes(archive)
    skeleton = script_skeleton(archive)
    if skeleton is None or has_foreign_byte_order(archive):
        return NotLazy("they are stored in an unusual way")
    if not _has_a_slot_for_every_tensor(archive, held):
        return NotLazy("some are in data structures of the model's own")
    # Some objects, such as packed weights, compute on values while they are loaded. If the file is
    # damaged instead, loading it whole raises the problem to report.
    on_meta = request.device == "meta"
    map_location: str | None = None
    if on_meta:
        map_location = "meta"
    try:
        module = torch.jit.load(io.BytesIO(skeleton), map_location=map_location)
        if on_meta:
            return _model(request, module, held, None)
        slots = find_slots(module, held)
        weights = ArchiveWeights(archive, slots)
        weights.fill_with_zeros()
    except CouldNotAttempt:
        raise
    except Exception as error:
        return NotLazy(f"without them it does not load ({telling_line(error)[:80]})")
    return _model(request, module, held, weights)


def _read_whole(request: OpenRequest, copy: Path) -> Model:
    """Load an archive with all its tensors on the device of the request."""
    with Archive(copy) as archive:
        try:
            if request.trusted:
                refuse_unregistered_code(archive)
            module = torch.jit.load(copy, map_location=request.device)
        except NotRegistered as error:
            raise not_registered(request, error) from error
        except Exception as error:
            raise could_not_load(request, error) from error
        held = attributes(archive)
    return _model(request, module, held, None)


LOADER = ArchiveLoader(unsafe_ops, _open_lazily, _read_whole)


def _model(
    request: OpenRequest, module: Any, held: Attributes, weights: ArchiveWeights | None
) -> Model:
    """Return a loaded module in the mode of the request; refuse one without a forward."""
    if not module._c._has_method("forward"):
        raise _without_forward(request, module)
    set_training(module, request.training)
    state = _state_names(module, held)
    arguments = script_arguments(module)
    return Model(module, request, arguments, state, weights=weights)


def _state_names(module: torch.jit.ScriptModule, held: Attributes) -> dict[str, tuple[str, ...]]:
    """Return, by submodule, its attributes that are neither submodules nor parameters."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    names = dict[str, tuple[str, ...]]()
    for path, inner in held.items():
        state = list[str]()
        for name in inner:
            full = f"{path}.{name}".lstrip(".")
            if full not in parameters:
                state.append(name)
        names[path] = tuple(state)
    return names


def _has_a_slot_for_every_tensor(archive: Archive, held: Attributes) -> bool:
    """Whether every tensor is an attribute of a submodule, or in a list that is one."""
    records = set[str]()
    for inner in held.values():
        for attribute in inner.values():
            if attribute.hides_tensors:
                return False
            records.update(attribute.records)
    stored = {name for name in archive.names if name.startswith("data/")}
    return records == stored


def _reads_memory_directly(archive: Archive) -> bool:
    """Whether the code calls `tolist`, which reads a tensor without an op."""
    code = (name for name in archive.names if name.endswith(".py"))
    return any(b"tolist" in archive.read(name) for name in code)


def _without_forward(request: OpenRequest, module: torch.jit.ScriptModule) -> CouldNotAttempt:
    """Return the error for a module that torch itself cannot call.

    A bare scripted nn.LSTM or nn.GRU is an example: its forward is overloaded.
    """
    title = "the archive has no method named forward, so it cannot be called"
    names = module._c._method_names()
    methods = ", ".join(names[:6]) or "none"
    notes = (f"its methods: {methods}",)
    help = ("script a module that calls it in its own forward, or trace it with torch.jit.trace",)
    problem = Problem(Rule.COULD_NOT_LOAD, title, request.reference.name, notes, help)
    return CouldNotAttempt(problem)


def script_arguments(module: torch.jit.ScriptModule) -> tuple[ArgumentFact, ...]:
    """Return the arguments of forward without self.

    As in TorchScript, an Optional argument without a default is required.
    """
    schema = module._c._get_method("forward").schema
    arguments = list[ArgumentFact]()
    for argument in schema.arguments[1:]:
        type_name = argument.type.annotation_str
        required = not argument.has_default_value()
        fact = ArgumentFact(argument.name, type_name, required, argument.kwarg_only)
        arguments.append(fact)
    return tuple(arguments)
