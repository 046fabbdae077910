"""Conversion between specs and values: tensors to call a model with, and results as trees."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeGuard, assert_never

import torch
from torch import Tensor

from composecli.core.pytree import (
    Call,
    Fill,
    Literal,
    Opaque,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
)

# Ids of a vocabulary of at most this many words start from 0.
MAX_SMALL_VOCABULARY = 8
MAX_TREE_DEPTH = 32
# Tuples, because making a union costs more than the test of a value against one.
_PLAIN = (bool, int, float, str, type(None))
_SEQUENCES = (tuple, list)

Identity: TypeAlias = tuple[Hashable, ...]


class Values(NamedTuple):
    """The arguments of one forward."""

    positional: tuple[Any, ...]
    named: dict[str, Any]

    def flat(self) -> list[Any]:
        """Return all arguments, the positional ones first."""
        return [*self.positional, *self.named.values()]


class Maker:
    """Makes values for specs; the same seed makes the same values.

    A sample tensor is used as it is if its sizes are those of its spec.
    """

    def __init__(self, device: str, seed: int, samples: list[Tensor]) -> None:
        self.device = device
        self.samples = samples
        self.generator = torch.Generator().manual_seed(seed)

    def call(self, call: Call) -> Values:
        """Return values for the arguments of a call, the positional ones made first."""
        positional = list[Any]()
        for argument in call.arguments:
            if argument.name is None:
                positional.append(self._value(argument.value))
        named = dict[str, Any]()
        for argument in call.arguments:
            if argument.name is not None:
                named[argument.name] = self._value(argument.value)
        return Values(tuple(positional), named)

    def _value(self, tree: Tree) -> Any:
        """Return the value that a tree describes, with its tensors made in order."""
        match tree:
            case TensorSpec():
                return self._tensor(tree)
            case Literal(value):
                return value
            case TreeSequence("list", items):
                return [self._value(item) for item in items]
            case TreeSequence(_, items):
                return tuple(self._value(item) for item in items)
            case TreeMapping(entries):
                return {key: self._value(item) for key, item in entries}
            case Opaque(type_name):
                raise TypeError(f"cannot create a value for a {type_name}")
            case _:
                assert_never(tree)

    def _tensor(self, spec: TensorSpec) -> Tensor:
        """Return a tensor on the device: without memory, a sample, or random, in this order."""
        dtype = dtype_of(spec.dtype)
        if self.device == "meta":
            return torch.empty(spec.sizes, dtype=dtype, device="meta")
        if spec.sample is not None:
            sample = self.samples[spec.sample]
            if tuple(sample.shape) == spec.sizes:
                return sample.to(self.device)
        return self._filled_tensor(spec, dtype).to(dtype).to(self.device)

    def _filled_tensor(self, spec: TensorSpec, dtype: torch.dtype) -> Tensor:
        """Return a tensor with the values of the spec, for the caller to convert."""
        values = self._random_tensor(spec, dtype)
        is_number = dtype.is_complex or dtype.is_floating_point
        match spec.fill:
            case Fill.ZEROS:
                return torch.zeros_like(values)
            case Fill.POSITIVE if is_number:
                return values.abs()
            case Fill.POSITIVE:
                return torch.full_like(values, max(0, spec.below - 1))
            case Fill.NEGATIVE if is_number:
                return -values.abs()
        return values

    def _random_tensor(self, spec: TensorSpec, dtype: torch.dtype) -> Tensor:
        """Return random values of a dtype that every torch can draw, for the caller to convert."""
        if dtype.is_complex:
            return torch.randn(spec.sizes, generator=self.generator, dtype=torch.complex64)
        if dtype.is_floating_point:
            return torch.randn(spec.sizes, generator=self.generator, dtype=torch.float32)
        first = _first_id(spec.below)
        below = max(1, spec.below)
        return torch.randint(first, below, spec.sizes, generator=self.generator)


def _first_id(below: int) -> int:
    """Return the smallest id to draw from a vocabulary.

    Ids are drawn from its upper half: the first ones mean padding and the like. Models that skip
    padding when they count positions accept longer inputs of it than of words.
    """
    if below > MAX_SMALL_VOCABULARY:
        return below // 2
    return 0


def dtype_of(name: str) -> torch.dtype:
    """Return the dtype that torch has by this name.

    Raises:
        TypeError: if this torch has no such dtype.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"torch has no dtype {name}")
    return dtype


def dtype_name(tensor: Tensor) -> str:
    """Return the dtype of a tensor without the prefix `torch.`: `float32`."""
    return str(tensor.dtype).removeprefix("torch.")


def spec_of(tensor: Tensor) -> TensorSpec:
    """Return the dtype and the sizes of a tensor."""
    dtype = dtype_name(tensor)
    sizes = tuple(map(int, tensor.shape))
    return TensorSpec(dtype, sizes)


def has_sizes(tensor: Tensor) -> bool:
    """Return whether a tensor has one size on each axis: a nested tensor does not."""
    return not tensor.is_nested


def is_integer(value: object) -> TypeGuard[int]:
    """Return whether a value is an integer, which Python's booleans are too, but not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def storage_of(tensor: Tensor) -> int:
    """Return a number that identifies the storage of a tensor; views of it have the same.

    It works on the meta device, too, where all data pointers are 0. A tensor without a storage, a
    sparse one for example, is identified by itself.
    """
    try:
        storage = tensor.untyped_storage()
        return int(storage._cdata)
    except (RuntimeError, NotImplementedError):
        return id(tensor)


def identity_of(tensor: Tensor) -> Identity:
    """Return a key that is equal for two views if they are the same elements of one storage."""
    storage = storage_of(tensor)
    if tensor.layout is not torch.strided:
        return (storage,)
    offset = tensor.storage_offset()
    sizes = tuple(tensor.shape)
    return (storage, offset, sizes, tensor.stride())


def tree_of(value: Any, depth: int = 0) -> Tree:
    """Return the result of a model as a tree of specs."""
    if isinstance(value, Tensor):
        if not has_sizes(value):
            return Opaque("nested tensor")
        return spec_of(value)
    if value is None or isinstance(value, bool | int | float | str):
        return Literal(value)
    if depth >= MAX_TREE_DEPTH:
        return Opaque(type(value).__name__)
    if isinstance(value, tuple | list):
        return _sequence_of(value, depth)
    items = mapping_of(value)
    if items is None:
        return Opaque(type(value).__name__)
    entries = list[tuple[str, Tree]]()
    for key, item in items.items():
        entries.append((str(key), tree_of(item, depth + 1)))
    return TreeMapping(tuple(entries), type(value).__name__)


def mapping_of(value: Any) -> Mapping[Any, Any] | None:
    """Return a mapping, or the fields of a dataclass as one; None for any other value."""
    if isinstance(value, Mapping):
        return value
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name, None) for name in names}


def _sequence_of(value: tuple[Any, ...] | list[Any], depth: int) -> TreeSequence:
    """Return a sequence as a tree; a named tuple keeps the names of its fields."""
    items = tuple(tree_of(item, depth + 1) for item in value)
    if isinstance(value, list):
        return TreeSequence("list", items)
    return TreeSequence("tuple", items, _field_names(value))


def _field_names(value: tuple[Any, ...]) -> tuple[str, ...]:
    """Return the names of a named tuple's fields; none if it is another tuple."""
    names = getattr(value, "_fields", ())
    if not isinstance(names, tuple) or len(names) != len(value):
        return ()
    if not all(isinstance(name, str) for name in names):
        return ()
    return names


def zeros_like(value: Any) -> Any:
    """Return the same structure with zeros in every tensor."""
    if isinstance(value, Tensor):
        return torch.zeros_like(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(zeros_like, value))
    if isinstance(value, tuple | list):
        return type(value)(map(zeros_like, value))
    if isinstance(value, dict):
        return {key: zeros_like(item) for key, item in value.items()}
    return value


def tensors_in(value: Any, depth: int = 0) -> list[Tensor]:
    """Return every tensor inside nested sequences, mappings and dataclasses, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, _PLAIN) or depth >= MAX_TREE_DEPTH:
        return []
    items: Any = value
    if not isinstance(value, _SEQUENCES):
        items = (mapping_of(value) or {}).values()
    tensors = list[Tensor]()
    for item in items:
        tensors += tensors_in(item, depth + 1)
    return tensors
