"""State that a forward may change, and putting it back: flags, buffers, attributes, the random state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from composecli.runtime.model import Model

Undo = Callable[[], None]


@contextmanager
def preserving_state(models: list[Model], seed: int) -> Iterator[None]:
    """Runs what is inside with this seed and leaves the models and the random state as they were."""
    undo = [step for model in models for step in _remember(model)]
    versions = [
        (parameter, parameter._version)
        for model in models
        for parameter in model.module.parameters()
    ]
    devices = sorted(
        {model.request.device for model in models if model.request.device.startswith("cuda")}
    )
    try:
        with torch.random.fork_rng(devices=devices), torch.jit.optimized_execution(False):
            torch.manual_seed(seed)
            yield
    finally:
        for step in undo:
            step()
        for model in models:
            if model.weights is not None:
                model.weights.reload()
        if any(parameter._version != version for parameter, version in versions):
            raise ParameterMutated


def _remember(model: Model) -> Iterator[Undo]:
    if isinstance(model.module, torch.jit.ScriptModule):
        for name, submodule in model.module.named_modules():
            yield from _remember_script(submodule, model.attributes.get(name))
    else:
        for submodule in model.module.modules():
            yield from _remember_eager(submodule)


class ParameterMutated(Exception):
    """The forward wrote to a parameter. Parameters are not copied, so the model has to be loaded again."""


def _remember_eager(module: nn.Module) -> Iterator[Undo]:
    held = {
        key: copy.copy(value) if isinstance(value, list | dict | set) else value
        for key, value in module.__dict__.items()
        if key not in ("_parameters", "_modules")
    }
    for buffer in module._buffers.values():
        if buffer is not None:
            yield _restore_tensor(buffer)

    def restore() -> None:
        for key in module.__dict__.keys() - held.keys() - {"_parameters", "_modules"}:
            del module.__dict__[key]
        module.__dict__.update(held)

    yield restore


def _restore_tensor(tensor: torch.Tensor) -> Undo:
    expanded = any(
        size > 1 and not stride
        for size, stride in zip(tensor.shape, _strides(tensor), strict=False)
    )
    if tensor.is_meta or expanded:
        # Nothing can be written to elements that are one and the same.
        return lambda: None
    saved = tensor.detach().clone()

    def restore() -> None:
        # Not only where the version changed: batch norm writes its running statistics without counting that.
        with torch.no_grad():
            tensor.copy_(saved)

    return restore


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.stride()) if tensor.layout is torch.strided and not tensor.is_nested else ()


def _remember_script(module: nn.Module, attributes: tuple[str, ...] | None) -> Iterator[Undo]:
    """`attributes` are those that are no parameters, where they are known."""
    inner: Any = module._c
    if attributes is None:
        attributes = (*dict(module.named_buffers(recurse=False)), "training")
    for name in attributes:
        if inner.hasattr(name):
            value = inner.getattr(name)
            if isinstance(value, torch.Tensor):
                yield _restore_tensor(value)
            yield _restore_attribute(inner, name, value)


def _restore_attribute(inner: Any, name: str, value: Any) -> Undo:
    def restore() -> None:
        now = inner.getattr(name)
        if now is not value and (isinstance(value, torch.Tensor) or not _same(now, value)):
            inner.setattr(name, value)

    return restore


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:
        return False
