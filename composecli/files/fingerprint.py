"""The identity of a model's file: what tells its content from another's, without reading its tensors."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from composecli.files.archive import Archive, NotAnArchive
from composecli.files.skeleton import is_frozen

_TENSORS = re.compile(r"(data|traced_inputs)/\d+|data/(weights|constants)/(weight|tensor)_\d+")
_CONSTANTS = re.compile(r"constants/\d+")


def stat_key(path: str) -> tuple[int, ...]:
    """What is another once anybody writes to the file, or puts another in its place; empty where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def hash_records(path: str, records: tuple[str, ...]) -> str | None:
    """The SHA-256, in hexadecimal, of the bytes of these records of an archive, of all where none is named. None where
    they cannot be read."""
    found = hashlib.sha256()
    try:
        with Archive(Path(path)) as archive:
            for name in records or archive.in_order():
                found.update(f"{name} {archive.size(name)}\n".encode())
                for piece in archive.pieces(name):
                    found.update(piece)
    except (NotAnArchive, OSError, ValueError, KeyError):
        return None
    return found.hexdigest()


def fingerprint(path: str) -> str | None:
    """The SHA-256, in hexadecimal, of an archive's directory, which has the size and the checksum of every record, and
    of all its members but those that are read when an answer needs them: tensors, and the constants of code that are
    many. None for what is no archive, or has no checksums."""
    try:
        # What is no regular file may never end, or wait for somebody to write to it.
        if not Path(path).is_file():
            return None
        with Archive(Path(path)) as archive:
            if not archive.has_checksums:
                return None
            found, frozen = hashlib.sha256(archive.directory()), is_frozen(archive)
            for name in archive.in_order():
                if not (_TENSORS.fullmatch(name) or (frozen and _CONSTANTS.fullmatch(name))):
                    found.update(archive.read(name))
    except (NotAnArchive, OSError, ValueError):
        return None
    return found.hexdigest()
