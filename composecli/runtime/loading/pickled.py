"""Pickled modules: torch.nn's own classes load as they are, anything else only where the file is trusted."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.modules
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.files.archive import Archive
from composecli.files.checkpoint import layers
from composecli.files.safety.refusals import of_overrides
from composecli.files.skeleton import checkpoint_skeleton, has_foreign_byte_order, record_starts
from composecli.runtime.loading.admission import admitted_whole
from composecli.runtime.loading.lazy import load_lazily
from composecli.runtime.model import Model, could_not_load, eager_arguments, last_line, set_training
from composecli.runtime.weights.lazy_weights import TensorSlot, Weights
from composecli.workers.protocol import OpenRequest


def load_pickled(request: OpenRequest) -> Model:
    return load_lazily(request, _without_tensors, load_whole)


def _without_tensors(request: OpenRequest, archive: Archive) -> Model | str:
    """The module, or why it cannot be had so: empty where it cannot be had at all."""
    if not request.trusted:
        _refuse_overrides(request, archive)
    if has_foreign_byte_order(archive):
        return "they are stored in an unusual way"
    emptied = checkpoint_skeleton(archive)
    try:
        module = _unpickled(request, io.BytesIO(emptied), "meta")
        if not isinstance(module, nn.Module):
            return ""
        _refuse_malformed(request, module)
        if request.device == "meta":
            weights = None
        else:
            weights = Weights(archive, tuple(_places(module, record_starts(emptied))))
            weights.leave_out()
            if _is_left_out(module):
                return "some lie in structures of its own"
    except Exception as error:
        return f"without them it does not load ({last_line(error)[:80]})"
    set_training(module, request.training)
    return Model(module, request, eager_arguments(module), {}, weights=weights)


def load_whole(request: OpenRequest) -> Model:
    try:
        with admitted_whole(request) as copy:
            if not request.trusted:
                with Archive(copy) as archive:
                    _refuse_overrides(request, archive)
            module = _unpickled(request, copy, request.device)
    except CouldNotAttempt:
        raise
    except ModuleNotFoundError as error:
        raise CouldNotAttempt(
            Problem(
                Rule.PACKAGE_MISSING, "the pickle imports a module that is not here", request.reference.name, (last_line(error),),
                ("run composecli where the module can be imported, or save with torch.jit.script or torch.export",),
            )
        ) from error  # fmt: skip
    except Exception as error:
        raise could_not_load(request, error) from error
    if not isinstance(module, nn.Module):
        raise CouldNotAttempt(
            Problem(
                Rule.NOT_A_MODEL,
                f"the file holds a {type(module).__name__}, not a module",
                request.reference.name,
            )
        )
    _refuse_malformed(request, module)
    set_training(module, request.training)
    return Model(module, request, eager_arguments(module), {})


def _refuse_malformed(request: OpenRequest, module: nn.Module) -> None:
    """Modules whose insides are not what every module has: torch meets them much later, and not by name."""
    usual = nn.Module().__dict__
    todo, seen = [("", module)], set[int]()
    while todo:
        path, inner = todo.pop()
        seen.add(id(inner))
        for key, value in usual.items():
            if not _is_like(key, inner.__dict__.get(key), value):
                title = "the pickled module does not hold together"
                note = (
                    f"{path or 'the module'}: {key} is a {type(inner.__dict__.get(key)).__name__}"
                )
                raise CouldNotAttempt(
                    Problem(Rule.COULD_NOT_LOAD, title, request.reference.name, (note,))
                )
        children = inner.__dict__["_modules"].items()
        todo += [
            (f"{path}.{name}".strip("."), child)
            for name, child in children
            if child is not None and id(child) not in seen
        ]


def _is_like(key: str, held: Any, usual: Any) -> bool:
    """Whether an attribute of a module is what it usually is there: a dict of what it is for, a set, or a flag."""
    if isinstance(usual, dict):
        kind = {"_parameters": torch.Tensor, "_buffers": torch.Tensor, "_modules": nn.Module}.get(
            key, object
        )
        filled = isinstance(held, dict) and all(
            isinstance(name, str) for name in held if kind is not object
        )
        return filled and all(value is None or isinstance(value, kind) for value in held.values())
    return isinstance(held, set) if isinstance(usual, set) else isinstance(held, bool | type(None))


def _unpickled(request: OpenRequest, file: Path | io.BytesIO, device: str) -> Any:
    if request.trusted:
        return torch.load(file, map_location=device, weights_only=False)
    with torch.serialization.safe_globals(_layers()):
        return torch.load(file, map_location=device, weights_only=True)


def _refuse_overrides(request: OpenRequest, archive: Archive) -> None:
    """Attributes that would stand before what a class itself can do."""
    made = layers(archive.pickle("data.pkl"))
    kinds = {kind.__name__: kind for kind in _layers() if isinstance(kind, type)}
    shadows = tuple(
        f"{name}: {key} is overridden"
        for name, keys in made
        for key in keys
        if callable(getattr(kinds.get(name.name), key, None))
    )
    if shadows:
        raise CouldNotAttempt(of_overrides(request.reference.path, shadows))


def _layers() -> list[Any]:
    """torch.nn's module classes, and the functions that its Transformer keeps as attributes."""
    found = {name: getattr(torch.nn.modules, name) for name in torch.nn.modules.__all__}
    layers = [
        kind for kind in found.values() if isinstance(kind, type) and issubclass(kind, nn.Module)
    ]
    inner = nn.modules.linear.NonDynamicallyQuantizableLinear
    return [*layers, inner, nn.functional.relu, nn.functional.gelu, torch.relu, set]


def _places(module: nn.Module, records: Mapping[int, str]) -> Iterator[TensorSlot]:
    """Where tensors are held. PyTorch notes of a storage that it left on meta where its record starts."""
    for name, inner in module.named_modules():
        held = {**inner.__dict__, **inner._buffers, **inner._parameters}
        for attribute, tensor in held.items():
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                parameter = attribute in inner._parameters
                if type(tensor) is not (nn.Parameter if parameter else torch.Tensor):
                    raise TypeError("a tensor of another class")
                record = records[tensor.untyped_storage()._checkpoint_offset]
                yield TensorSlot(inner, name, attribute, record, tensor, parameter)


def _is_left_out(module: nn.Module) -> bool:
    """Whether a tensor is held in another way, in a list say, and is still without memory."""
    return any(
        tensor.is_meta for inner in module.modules() for tensor in _tensors(inner.__dict__, 0)
    )


def _tensors(value: Any, depth: int) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif depth < 4 and isinstance(value, dict | list | tuple | set):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item, depth + 1)
