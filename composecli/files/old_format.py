"""The old format of `torch.save`: pickles in a row, then the bytes of the storages.

It was the format before PyTorch 1.6, and still is with `_use_new_zipfile_serialization=False`:

    a number | the version | facts about the machine | the object | the keys of the storages
    and for each key: the number of items in 8 bytes | the items

All numbers behind the pickles are little-endian, whatever machine has written them. A storage that
is a view names the part of another one that it shows. A class of a module is stored as a reference,
together with its source.

The file is shown as an archive with the members `data.pkl` and `data/KEY`. Their contents stay
where they are in the file.

Source of the format: `_legacy_save` and `_legacy_load` in `torch/serialization.py` of PyTorch 2.13.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from composecli.core.dtypes import by_storage
from composecli.files.archive import CHUNK_BYTES, MAX_TEXT_BYTES
from composecli.files.archive_checks import NotAnArchive
from composecli.files.open_file import OpenFile
from composecli.files.pickle import (
    Global,
    NotAPickle,
    ParsedPickle,
    Persistent,
    interpret,
    read_operations,
)

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
BYTE_ORDER = b"little"

# PROTO, from protocol 4 on a FRAME, and LONG1 with the number.
_START = re.compile(rb"\x80[\x02-\x05](\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL)
_COUNT = struct.Struct("<q")
# Keys are addresses in decimal. They become names of members.
_KEY = re.compile(r"[\w.-]{1,64}")


class _Extent(NamedTuple):
    """Where the bytes of a storage are in the file."""

    start: int
    size: int


class _Storage(NamedTuple):
    """A reference to a storage: `view` is its own key, offset and length if it is a view."""

    storage_class: Global
    root: str
    items: int
    view: tuple[str, int, int] | None

    @property
    def item_size(self) -> int:
        """The size of an item in bytes."""
        dtype = by_storage(self.storage_class.name)
        if dtype is None:
            return 1
        return dtype.size


def is_old_format(head: bytes, _size: int = 0) -> bool:
    """Return whether a file starts as the old format does."""
    return _START.match(head) is not None


class OldFormat(OpenFile):
    """A file in the old format, with the interface of an archive. Tensors are not read."""

    has_checksums = False

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            NotAnArchive: if it is truncated, or has bytes that belong to no storage.
            NotAPickle: if a pickle is not one that PyTorch could have written.
            OSError: if it cannot be opened.
        """
        super().__init__(path.open("rb"))
        try:
            self._parsed = _read_pickles(self._file)
            storages = [_storage(reference) for reference in self._parsed.references]
            keys = _read_keys(self._file)
            self._extents = _locate(self._file, keys, storages)
        except BaseException:
            self._file.close()
            raise

    @property
    def names(self) -> frozenset[str]:
        """The names of all members."""
        return frozenset(("data.pkl", *self._extents))

    def size(self, name: str) -> int:
        """Return the size of a storage in bytes."""
        return self._extents[name].size

    def start(self, name: str) -> int:
        """Return the offset of a storage in the file, which may be odd."""
        return self._extents[name].start

    def pickle(self, _name: str) -> ParsedPickle:
        """Return the pickle of the object, whose references are those of a new file."""
        return self._parsed

    def byte_order(self) -> bytes:
        """Return the byte order of the storages."""
        return BYTE_ORDER

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a storage in chunks.

        Raises:
            NotAnArchive: if the file became shorter.
        """
        start, remaining = self._extents[name]
        while remaining:
            piece = os.pread(self.fileno(), min(CHUNK_BYTES, remaining), start)
            if not piece:
                raise NotAnArchive(f"{name} ends early")
            start += len(piece)
            remaining -= len(piece)
            yield piece

    def checksum(self, name: str) -> int:
        """Compute the CRC-32 of a storage: none is recorded."""
        crc = 0
        for piece in self.pieces(name):
            crc = zlib.crc32(piece, crc)
        return crc


class _Head:
    """The start of a file, up to the size that pickles may have together."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._remaining = MAX_TEXT_BYTES

    def tell(self) -> int:
        """Return the place in the file."""
        return self._file.tell()

    def read(self, count: int) -> bytes:
        """Return up to this many bytes.

        Raises:
            NotAPickle: if the pickles have more bytes than the limit.
        """
        if count > self._remaining:
            raise NotAPickle(f"more than {MAX_TEXT_BYTES:,} bytes of pickles")
        self._remaining -= count
        return self._file.read(count)

    def readline(self) -> bytes:
        """Return the bytes up to the next end of a line."""
        line = self._file.readline(self._remaining)
        self._remaining -= len(line)
        return line


def _read_pickles(file: IO[bytes]) -> ParsedPickle:
    """Return the object of a file, which is read up to the keys of the storages.

    Raises:
        NotAPickle: if it is of another version, or damaged.
    """
    for expected in (MAGIC_NUMBER, PROTOCOL_VERSION):
        if _read_pickle(file).value != expected:
            raise NotAPickle("another version of the old format")
    # The facts about the machine do not matter: it wrote all numbers as every other does.
    _read_pickle(file)
    return _read_pickle(file)


def _read_pickle(file: IO[bytes]) -> ParsedPickle:
    """Return the pickle at the place of the file, which moves behind it."""
    head = _Head(file)
    return interpret(read_operations(head))  # type: ignore[arg-type]


def _read_keys(file: IO[bytes]) -> list[str]:
    """Return the keys of the storages, in their order in the file.

    Raises:
        NotAPickle: if they are not names, or one is repeated.
    """
    keys = _read_pickle(file).value
    if not isinstance(keys, list):
        raise NotAPickle("the keys of the storages are not a list")
    names = [_checked_key(key) for key in keys]
    if len(set(names)) < len(names):
        raise NotAPickle("two storages have the same key")
    return names


def _checked_key(key: object) -> str:
    """Return the key of a storage, which becomes the name of a member."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise NotAPickle("a storage whose key is not a number")
    return key


def _storage(reference: Persistent) -> _Storage:
    """Return the storage of a reference, and change it to the form that new files have.

    Raises:
        NotAPickle: if it is not as PyTorch writes it.
    """
    match reference.key:
        case ("storage", Global() as storage_class, root, location, int(items), *rest):
            view = _view(rest)
            key = root
            if view is not None:
                key, _, items = view
            reference.key = ("storage", storage_class, _checked_key(key), location, items)
            return _Storage(storage_class, _checked_key(root), items, view)
    raise NotAPickle("a reference to something that is not a storage")


def _view(rest: list[object]) -> tuple[str, int, int] | None:
    """Return the key, offset and length of a view, None for a whole storage."""
    match rest:
        case [] | [None]:
            return None
        case [(key, int(offset), int(items))] if offset >= 0 and items >= 0:
            return _checked_key(key), offset, items
    raise NotAPickle("a view of a storage with invalid sizes")


def _locate(file: IO[bytes], keys: list[str], storages: list[_Storage]) -> dict[str, _Extent]:
    """Return where each storage is, by the name of its member.

    Raises:
        NotAnArchive: if they do not fill the file, or a view leaves its storage.
    """
    item_sizes = _item_sizes(storages)
    extents = dict[str, _Extent]()
    place = file.tell()
    end = os.fstat(file.fileno()).st_size
    for key in keys:
        if key not in item_sizes:
            raise NotAnArchive(f"nothing refers to storage {key}")
        header = os.pread(file.fileno(), _COUNT.size, place)
        if len(header) < _COUNT.size:
            raise NotAnArchive("it ends early")
        (count,) = _COUNT.unpack(header)
        extent = _Extent(place + _COUNT.size, count * item_sizes[key])
        place = extent.start + extent.size
        if count < 0 or place > end:
            raise NotAnArchive(f"storage {key} reaches behind its end")
        extents[f"data/{key}"] = extent
    if place < end:
        raise NotAnArchive(f"there are {end - place:,} bytes after its storages")
    _add_views(extents, storages)
    return extents


def _item_sizes(storages: list[_Storage]) -> dict[str, int]:
    """Return the size of an item of each storage.

    Raises:
        NotAnArchive: if a storage is used with two item sizes.
    """
    sizes = dict[str, int]()
    for storage in storages:
        size = sizes.setdefault(storage.root, storage.item_size)
        if size != storage.item_size:
            raise NotAnArchive(f"storage {storage.root} has two dtypes")
    return sizes


def _add_views(extents: dict[str, _Extent], storages: list[_Storage]) -> None:
    """Add the extents of views, which are parts of those of other storages."""
    for storage in storages:
        root = extents.get(f"data/{storage.root}")
        if storage.view is None or root is None:
            continue
        key, offset, items = storage.view
        start = offset * storage.item_size
        size = items * storage.item_size
        extent = _Extent(root.start + start, size)
        if start + size > root.size or extents.get(f"data/{key}", extent) != extent:
            raise NotAnArchive(f"the view {key} leaves storage {storage.root}")
        extents[f"data/{key}"] = extent
