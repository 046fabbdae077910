"""Between specs and values: tensors made for a probe, and what a model returned as a tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import torch

from composecli.core.pytree import (
    Call,
    Literal,
    Opaque,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
)

SMALLEST_VOCABULARY = 8

Values = tuple[tuple[Any, ...], dict[str, Any]]


class Maker:
    """Makes values for specs, always the same for the same seed. Sample tensors are used where their sizes agree."""

    def __init__(self, device: str, seed: int, samples: list[torch.Tensor]) -> None:
        self.device = device
        self.samples = samples
        self.generator = torch.Generator().manual_seed(seed)

    def call(self, call: Call) -> Values:
        """The positional and the named arguments of a call."""
        positional = tuple(
            self.value(argument.value) for argument in call.arguments if argument.name is None
        )
        named = {
            argument.name: self.value(argument.value)
            for argument in call.arguments
            if argument.name is not None
        }
        return positional, named

    def value(self, tree: Tree) -> Any:
        match tree:
            case TensorSpec():
                return self.tensor(tree)
            case Literal(value):
                return value
            case TreeSequence(kind, items):
                values = [self.value(item) for item in items]
                return values if kind == "list" else tuple(values)
            case TreeMapping(entries):
                return {key: self.value(item) for key, item in entries}
            case Opaque(type_name):
                raise TypeError(f"no value can be made for a {type_name}")
            case _:
                assert_never(tree)

    def tensor(self, spec: TensorSpec) -> torch.Tensor:
        dtype = dtype_of(spec.dtype)
        if self.device == "meta":
            return torch.empty(spec.sizes, dtype=dtype, device="meta")
        if spec.sample is not None and tuple(self.samples[spec.sample].shape) == spec.sizes:
            return self.samples[spec.sample].to(self.device)
        if dtype.is_floating_point or dtype.is_complex:
            plain = torch.complex64 if dtype.is_complex else torch.float32
            return (
                torch.randn(spec.sizes, generator=self.generator, dtype=plain)
                .to(dtype)
                .to(self.device)
            )
        return (
            torch.randint(
                _first_id(spec.below), max(1, spec.below), spec.sizes, generator=self.generator
            )
            .to(dtype)
            .to(self.device)
        )


def _first_id(below: int) -> int:
    """Ids of a vocabulary are taken from its upper half: the first ones mean padding and the like, which some models
    leave out when they count positions, and so take more of them than of words."""
    return below // 2 if below > SMALLEST_VOCABULARY else 0


def dtype_of(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise TypeError(f"torch has no dtype {name}")
    return found


def spec_of(tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(str(tensor.dtype).removeprefix("torch."), tuple(map(int, tensor.shape)))


def has_sizes(tensor: torch.Tensor) -> bool:
    """Whether it has one size along each axis: a nested tensor has not."""
    return not tensor.is_nested


def storage_of(tensor: torch.Tensor) -> int:
    """What tells storages apart, views of one being the same; on meta too, where addresses are all 0.

    A tensor without a storage of its own, a sparse one say, is told by itself.
    """
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):
        return id(tensor)


def identity_of(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Equal for two names of one and the same tensor, however they are held."""
    if tensor.layout is not torch.strided:
        return (storage_of(tensor),)
    return (storage_of(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())


def tree_of(value: Any, depth: int = 0) -> Tree:
    """What a model returned, as a tree of specs."""
    if isinstance(value, torch.Tensor):
        return spec_of(value) if has_sizes(value) else Opaque("nested tensor")
    if value is None or isinstance(value, bool | int | float | str):
        return Literal(value)
    if depth < 32 and isinstance(value, tuple | list):
        items = tuple(tree_of(item, depth + 1) for item in value)
        return TreeSequence(
            "list" if isinstance(value, list) else "tuple",
            items,
            tuple(getattr(value, "_fields", ())),
        )
    if depth < 32 and isinstance(value, Mapping):
        kind = "dict" if type(value) is dict else type(value).__name__
        return TreeMapping(
            tuple((str(key), tree_of(item, depth + 1)) for key, item in value.items()), kind
        )
    return Opaque(type(value).__name__)


def zeros_like(value: Any) -> Any:
    """The same structure with zeros in every tensor."""
    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(zeros_like, value))
    if isinstance(value, tuple | list):
        return type(value)(map(zeros_like, value))
    if isinstance(value, dict):
        return {key: zeros_like(item) for key, item in value.items()}
    return value


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Every tensor inside a result, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []
