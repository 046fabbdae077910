"""Restoring the state that a forward may change: flags, buffers, attributes and random numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from composecli.runtime.model import Model

Undo: TypeAlias = Callable[[], None]
# Not restored: parameters are not copied, and submodules are restored on their own.
_NOT_RESTORED = frozenset(("_parameters", "_modules"))
_TABLES = ("_buffers", *_NOT_RESTORED)


class ParameterMutated(Exception):
    """The forward wrote to a parameter, or resized one.

    Parameters are not copied, so the model has to be loaded again.
    """


@contextmanager
def preserving_state(models: list[Model], seed: int) -> Iterator[None]:
    """Run the body under `seed`, then restore the models and the random number generators.

    Raises:
        ParameterMutated: if the body wrote to a parameter, or resized one.
    """
    undo = list[Undo]()
    parameters = list[Tensor]()
    devices = set[str]()
    for model in models:
        undo += _remember(model)
        parameters += model.module.parameters()
        if model.request.device.startswith("cuda"):
            devices.add(model.request.device)
    before = list(map(_version, parameters))
    try:
        # Optimized execution would make a forward depend on the calls before it.
        with torch.random.fork_rng(sorted(devices)), torch.jit.optimized_execution(False):
            torch.manual_seed(seed)
            yield
    finally:
        for step in undo:
            step()
        for model in models:
            if model.weights is not None:
                model.weights.reload()
        if list(map(_version, parameters)) != before:
            raise ParameterMutated


def _remember(model: Model) -> Iterator[Undo]:
    """Yield functions that restore the present state of a model."""
    parameters = frozenset(map(id, model.module.parameters()))
    if isinstance(model.module, torch.jit.ScriptModule):
        for name, submodule in model.module.named_modules():
            yield from _remember_script(submodule, model.attributes.get(name), parameters)
    else:
        for submodule in model.module.modules():
            yield from _remember_eager(submodule, parameters)


def _remember_eager(module: nn.Module, parameters: frozenset[int]) -> Iterator[Undo]:
    """Yield functions that restore the buffers, then the attributes, of one module.

    `parameters` are the identities of those of the whole model, which are not copied.
    """
    attributes = dict[str, Any]()
    for name, value in module.__dict__.items():
        if name in _NOT_RESTORED:
            continue
        attributes[name] = value
        if isinstance(value, list | dict | set):
            attributes[name] = copy.copy(value)
        if name not in _TABLES:
            yield from _restore_tensors_in(value, parameters)
    for buffer in module._buffers.values():
        if buffer is not None:
            yield _restore_tensor(buffer)

    def restore() -> None:
        added = module.__dict__.keys() - attributes.keys() - _NOT_RESTORED
        for name in added:
            del module.__dict__[name]
        module.__dict__.update(attributes)

    yield restore


def _restore_tensor(tensor: Tensor) -> Undo:
    """Copy a tensor now, and return a function that writes the copy back."""
    if tensor.is_meta or _is_expanded(tensor):
        return _do_nothing
    saved = tensor.detach().clone()
    geometry = _geometry(tensor)

    def restore() -> None:
        # Even if the version is the same: batch norm does not count writes to its statistics.
        with torch.no_grad():
            if _geometry(tensor) == geometry:
                tensor.copy_(saved)
            else:
                # A resize that failed leaves a tensor that reaches beyond its memory.
                tensor.set_(saved)

    return restore


def _restore_tensors_in(value: object, parameters: frozenset[int]) -> Iterator[Undo]:
    """Yield functions that restore a tensor, or those directly in a container, if they change.

    A recurrent layer has a list of its parameters.
    """
    items: Iterable[object] = (value,)
    if isinstance(value, list | tuple):
        items = value
    elif isinstance(value, dict):
        items = value.values()
    for item in items:
        if isinstance(item, Tensor) and id(item) not in parameters:
            yield _restore_if_changed(item)


def _restore_if_changed(tensor: Tensor) -> Undo:
    """Copy a tensor, which may be a view of a parameter: writing to it would count as a change."""
    before = _version(tensor)
    restore = _restore_tensor(tensor)

    def restore_if_changed() -> None:
        if _version(tensor) != before:
            restore()

    return restore_if_changed


def _version(tensor: Tensor) -> tuple[object, ...]:
    """Return the numbers that change if a tensor is written to or resized."""
    return tensor._version, _geometry(tensor)


def _geometry(tensor: Tensor) -> tuple[object, ...]:
    """Return the sizes of a tensor, and how its memory is laid out if it has strides."""
    if tensor.is_nested:
        return ()
    if tensor.layout is not torch.strided:
        return tuple(tensor.shape)
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset()


def _do_nothing() -> None:
    pass


def _is_expanded(tensor: Tensor) -> bool:
    """Return whether several elements share memory: torch refuses to write to them."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        return False
    axes = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and stride == 0 for size, stride in axes)


def _remember_script(
    module: nn.Module, attributes: tuple[str, ...] | None, parameters: frozenset[int]
) -> Iterator[Undo]:
    """Yield functions that restore a scripted module.

    `attributes` are its attributes without parameters; None if the archive does not list them.
    `parameters` are as for `_remember_eager`.
    """
    script: Any = module._c
    if attributes is None:
        buffers = [name for name, _ in module.named_buffers(recurse=False)]
        attributes = (*buffers, "training")
    for name in attributes:
        if not script.hasattr(name):
            continue
        value = script.getattr(name)
        if isinstance(value, Tensor):
            yield _restore_tensor(value)
        else:
            yield from _restore_tensors_in(value, parameters)
        yield _restore_attribute(script, name, value)


def _restore_attribute(script: Any, name: str, value: Any) -> Undo:
    """Return a function that sets an attribute again if it changed."""

    def restore() -> None:
        current = script.getattr(name)
        if current is value:
            return
        if isinstance(value, Tensor) or not _are_equal(current, value):
            script.setattr(name, value)

    return restore


def _are_equal(one: Any, other: Any) -> bool:
    """Return whether two values compare as equal; False if they refuse to be compared."""
    try:
        return bool(one == other)
    except Exception:
        return False
