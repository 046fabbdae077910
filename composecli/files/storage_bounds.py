"""Storages: whether each record of an archive is as long as the tensors in it need.

PyTorch does not check this. A tensor that reaches behind its record reads foreign memory: a crash
if it reaches far, and silently wrong values if it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from composecli.core.dtypes import DType, by_storage
from composecli.files.members import Members
from composecli.files.pickle import Constructed, Global, ParsedPickle, Persistent
from composecli.files.pickle_tree import dtype_of

_UNTYPED = "UntypedStorage"
# Functions whose first arguments are a storage, an offset, sizes and strides.
_REBUILD_FUNCTIONS = (
    "_rebuild_tensor",
    "_rebuild_tensor_v2",
    "_rebuild_tensor_v3",
    "_rebuild_qtensor",
)
# It calls one of them with its third argument.
_WITH_CLASS = "_rebuild_from_type_v2"


class _Storage(NamedTuple):
    """A storage with this many items of a dtype, or bytes if it is untyped (`dtype` is None)."""

    key: str
    dtype: DType | None
    items: int

    @property
    def size(self) -> int:
        """The size in bytes."""
        if self.dtype is None:
            return self.items
        return self.items * self.dtype.size


def record_sizes(members: Members, folder: str) -> Callable[[str], int | None]:
    """Return a function from a storage's key to the size in bytes of its record in `folder`.

    It returns None if there is no such record.
    """
    names = members.names

    def size_of(key: str) -> int | None:
        """Return the size of one record."""
        name = folder + key
        if name not in names:
            return None
        return members.size(name)

    return size_of


def find_out_of_bounds(parsed: ParsedPickle, size_of: Callable[[str], int | None]) -> Iterator[str]:
    """Yield a message for each storage and each tensor that does not fit.

    `size_of` returns the size in bytes of the record with a key, None if there is none.

    A storage of 6 float32 needs a record of 24 bytes. A tensor in it with offset 1, sizes (2, 2)
    and strides (3, 1) ends at element 1 + 1*3 + 1*1 = 5, and fits.
    """
    for reference in parsed.references:
        storage = _storage_of(reference)
        if storage is None:
            yield "a reference to something that is not a storage"
            continue
        size = size_of(storage.key)
        if size is None:
            yield f"the record of storage {storage.key} is missing"
        elif storage.items < 0 or size != storage.size:
            yield (
                f"the record of storage {storage.key} has {size:,} bytes,"
                f" and its tensors need {storage.size:,}"
            )
    for constructed in parsed.constructed:
        tensor = constructed
        if _is_named(constructed.function, _WITH_CLASS):
            tensor = _without_class(constructed)
        # Anything else that is called is no tensor, and for others to refuse.
        if _is_named(tensor.function, *_REBUILD_FUNCTIONS):
            yield from _check_tensor(tensor)


def _is_named(function: object, *names: str) -> bool:
    """Return whether this is a global with one of these names, of any module."""
    return isinstance(function, Global) and function.name in names


def _storage_of(reference: Persistent) -> _Storage | None:
    """Return the storage that a reference names, None if it names something else."""
    match reference.key:
        case ("storage", Global(_, name), str(key), _, int(count), *_):
            dtype = by_storage(name)
            if dtype is not None or name == _UNTYPED:
                return _Storage(key, dtype, count)
    return None


def _without_class(tensor: Constructed) -> Constructed:
    """Return the call that makes a tensor, of one that gets a class and attributes afterwards."""
    match tensor.arguments:
        case (function, _, arguments, *_):
            return Constructed(function, arguments)
    return tensor


def _check_tensor(tensor: Constructed) -> Iterator[str]:
    """Yield a message if a tensor leaves its storage, or has none.

    A state would move the tensor in its storage, or to another one.
    """
    if tensor.state is not None or tensor.items or tensor.is_new:
        yield "a tensor that is not just built from a storage"
    match tensor.arguments:
        case (Persistent() as reference, int(offset), tuple(sizes), tuple(strides), *rest):
            storage = _storage_of(reference)
            if storage is not None:
                elements = _element_count(storage, tuple(rest))
                yield from _check_extent(storage.key, elements, offset, sizes, strides)
        case _:
            yield "a tensor that is not built from a storage"


def _element_count(storage: _Storage, arguments: tuple[object, ...]) -> int:
    """Return how many elements of the tensor's dtype the storage has room for."""
    if storage.dtype is not None:
        return storage.items * storage.dtype.elements_per_item
    dtype = dtype_of(Global("torch", _UNTYPED), arguments)
    if dtype is None:
        return storage.items
    return storage.items // dtype.size * dtype.elements_per_item


def _check_extent(
    key: str, elements: int, offset: int, sizes: Sequence[object], strides: Sequence[object]
) -> Iterator[str]:
    """Yield a message if the last element lies behind the `elements` of the storage."""
    numbers = (offset, *sizes, *strides)
    # A bool is an int to isinstance, and is not a size.
    are_natural = all(type(number) is int and number >= 0 for number in numbers)
    if not are_natural or len(sizes) != len(strides):
        yield f"a tensor in storage {key} has invalid sizes"
        return
    if 0 in sizes:
        return
    last = offset
    for size, stride in zip(sizes, strides, strict=True):
        steps = int(str(size)) - 1
        last += steps * int(str(stride))
    if last >= elements:
        yield f"a tensor in storage {key} reaches to element {last:,} of {elements:,}"
