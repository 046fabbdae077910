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
from composecli.runtime.loading.lazy import ArchiveLoader, Attempt, NotLazy
from composecli.runtime.loading.torchscript_scan import unsafe_ops
from composecli.runtime.model import Model, could_not_load, last_line, set_training
from composecli.runtime.weights.lazy_weights import ArchiveWeights, find_slots
from composecli.workers.protocol import OpenRequest


def _open_lazily(request: OpenRequest, archive: Archive) -> Attempt:
    if is_frozen(archive):
        return NotLazy("they are constants of its code")
    if _reads_memory_directly(archive):
        return NotLazy("its code looks at them without an op (tolist)")
    held = attributes(archive)
    skeleton = script_skeleton(archive)
    if skeleton is None or has_foreign_byte_order(archive):
        return NotLazy("they are stored in an unusual way")
    if not _has_a_slot_for_every_tensor(archive, held):
        return NotLazy("some lie in structures of its own")
    # Some objects, such as packed weights, compute on values while they are loaded. If the file is
    # damaged instead, loading it whole raises the problem to report.
    on_meta = request.device == "meta"
    try:
        module = torch.jit.load(io.BytesIO(skeleton), map_location="meta" if on_meta else None)
        if on_meta:
            return _model(request, module, held, None)
        weights = ArchiveWeights(archive, find_slots(module, held))
        weights.fill_with_zeros()
    except CouldNotAttempt:
        raise
    except Exception as error:
        return NotLazy(f"without them it does not load ({last_line(error)[:80]})")
    return _model(request, module, held, weights)


def _read_whole(request: OpenRequest, copy: Path) -> Model:
    with Archive(copy) as archive:
        try:
            module = torch.jit.load(copy, map_location=request.device)
        except Exception as error:
            raise could_not_load(request, error) from error
        held = attributes(archive)
    return _model(request, module, held, None)


LOADER = ArchiveLoader(unsafe_ops, _open_lazily, _read_whole)


def _model(
    request: OpenRequest, module: Any, held: Attributes, weights: ArchiveWeights | None
) -> Model:
    if not module._c._has_method("forward"):
        raise _without_forward(request, module)
    set_training(module, request.training)
    state = _state_names(module, held)
    return Model(module, request, script_arguments(module), state, weights=weights)


def _state_names(module: torch.jit.ScriptModule, held: Attributes) -> dict[str, tuple[str, ...]]:
    """Return, by submodule, its attributes that are neither submodules nor parameters."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    names = dict[str, tuple[str, ...]]()
    for path, inner in held.items():
        names[path] = tuple(
            name for name in inner if f"{path}.{name}".lstrip(".") not in parameters
        )
    return names


def _has_a_slot_for_every_tensor(archive: Archive, held: Attributes) -> bool:
    """Whether every tensor is an attribute of a submodule, or in a list that is one."""
    records = set[str]()
    for inner in held.values():
        for attribute in inner.values():
            if attribute.hides_tensors:
                return False
            records.update(attribute.records)
    return records == {name for name in archive.names if name.startswith("data/")}


def _reads_memory_directly(archive: Archive) -> bool:
    """Whether the code calls `tolist`, which reads a tensor without an op."""
    code = (name for name in archive.names if name.endswith(".py"))
    return any(b"tolist" in archive.read(name) for name in code)


def _without_forward(request: OpenRequest, module: torch.jit.ScriptModule) -> CouldNotAttempt:
    """Return the error for a module that torch itself cannot call.

    A bare scripted nn.LSTM or nn.GRU is an example: its forward is overloaded.
    """
    methods = ", ".join(module._c._method_names()[:6])
    return CouldNotAttempt(
        Problem(
            Rule.COULD_NOT_LOAD,
            "the archive has no method named forward, so it cannot be called",
            request.reference.name,
            (f"its methods: {methods or 'none'}",),
            ("script a module that calls it in its own forward, or trace it with torch.jit.trace",),
        )
    )


def script_arguments(module: torch.jit.ScriptModule) -> tuple[ArgumentFact, ...]:
    """Return the arguments of forward without self.

    As in TorchScript, an Optional argument without a default is required.
    """
    schema = module._c._get_method("forward").schema
    return tuple(
        ArgumentFact(argument.name, argument.type.annotation_str, not argument.has_default_value())
        for argument in schema.arguments[1:]
    )
