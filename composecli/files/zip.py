"""A saved model's archive: the members of the zip that PyTorch writes, by their names below its one folder."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

LARGEST_TEXT = 64 * 2**20


# What the standard library raises on damaged members, beside its own BadZipFile.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, NotImplementedError, RuntimeError,
    ValueError, IndexError,
)  # fmt: skip


class NotAnArchive(Exception):
    """The bytes are no zip archive that can be read to its end."""


class Archive:
    """The members of one archive. Only names are read until a member is asked for."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except _DAMAGE as error:
            raise NotAnArchive(str(error)) from None
        self._full = _without_folder(self._zip.namelist())

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._full)

    def size(self, name: str) -> int:
        """The size of a member in bytes, unpacked, as the directory states it."""
        return self._zip.getinfo(self._full[name]).file_size

    def read(self, name: str) -> bytes:
        """The bytes of a member that is text, code or a pickle.

        Raises:
            NotAnArchive: it is not there, damaged, or larger than any such member has reason to be.
        """
        try:
            if self.size(name) > LARGEST_TEXT:
                raise NotAnArchive(f"{name} has {self.size(name):,} bytes")
            return self._zip.read(self._full[name])
        except KeyError:
            raise NotAnArchive(f"{name} is missing") from None
        except _DAMAGE as error:
            raise NotAnArchive(f"{name}: {error}") from None


def _without_folder(names: list[str]) -> dict[str, str]:
    folders = {name.split("/", 1)[0] for name in names}
    if len(folders) == 1 and all("/" in name for name in names):
        return {name.split("/", 1)[1]: name for name in names}
    return {name: name for name in names}
