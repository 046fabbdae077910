"""Storages: whether every record of an archive is as long as the tensors that lie in it, which PyTorch does not ask.

A record that is too short is memory of somebody else's: a crash where it is large, and where it is small a
quiet wrong value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from composecli.files.archive import Archive
from composecli.files.pickle import Constructed, Global, ParsedPickle, Persistent

ITEM_SIZES = {
    "FloatStorage": 4, "DoubleStorage": 8, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1, "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16, "ComplexHalfStorage": 4, "QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4,
    "Float8_e4m3fnStorage": 1, "Float8_e5m2Storage": 1, "Float8_e4m3fnuzStorage": 1, "Float8_e5m2fnuzStorage": 1,
    "Float8_e8m0fnuStorage": 1, "UInt16Storage": 2, "UInt32Storage": 4, "UInt64Storage": 8, "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1, "UntypedStorage": 1,
}  # fmt: skip
DTYPE_SIZES = {
    "float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1,
    "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1, "complex64": 8, "complex128": 16, "complex32": 4,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
}  # fmt: skip
# Some in, storage, offset, sizes and strides first.
_IN_A_STORAGE = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor")


def record_sizes(archive: Archive, folder: str) -> Callable[[str], int | None]:
    """The bytes of the record with a key below a folder of the archive; None where there is none."""
    return lambda key: archive.size(folder + key) if folder + key in archive.names else None


def find_out_of_bounds(walked: ParsedPickle, size_of: Callable[[str], int | None]) -> Iterator[str]:
    """Every tensor and storage that does not fit its record. `size_of` gives the bytes of the record with a key."""
    lengths = dict[str, int]()
    for persistent in walked.persistent:
        found = _storage(persistent)
        if found is None:
            yield "a reference to something that is no storage"
            continue
        key, kind, count = found
        size = size_of(key)
        if size is None:
            yield f"the record of storage {key} is missing"
        elif count < 0 or size != count * ITEM_SIZES[kind]:
            yield f"the record of storage {key} has {size:,} bytes, and its tensors need {count * ITEM_SIZES[kind]:,}"
        lengths[key] = size or 0
    for made in walked.made:
        if isinstance(made.maker, Global) and made.maker.name in _IN_A_STORAGE:
            yield from _outside(made)


def _storage(persistent: Persistent) -> tuple[str, str, int] | None:
    match persistent.key:
        case ("storage", Global(_, kind), str(key), _, int(count), *_) if kind in ITEM_SIZES:
            return key, kind, count
    return None


def _outside(made: Constructed) -> Iterator[str]:
    """Whether the last element of a tensor lies in its storage."""
    match made.arguments:
        case (Persistent() as persistent, int(offset), tuple(sizes), tuple(strides), *rest):
            found = _storage(persistent)
        case _:
            yield "a tensor that is made of something else than a storage"
            return
    if found is None:
        return
    key, kind, count = found
    if kind == "UntypedStorage":
        dtype = next(
            (item.name for item in rest if isinstance(item, Global) and item.module == "torch"), ""
        )
        count //= DTYPE_SIZES.get(dtype, 1)
    whole = all(type(number) is int and number >= 0 for number in (offset, *sizes, *strides))
    if not whole or len(sizes) != len(strides):
        yield f"a tensor in storage {key} has no sizes that make sense"
    elif 0 not in sizes:
        last = offset + sum(
            (int(str(n)) - 1) * int(str(stride)) for n, stride in zip(sizes, strides, strict=True)
        )
        if last >= count:
            yield f"a tensor in storage {key} reaches to element {last:,} of {count:,}"
