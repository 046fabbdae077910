"""The identity of a model's file: what tells its content from another's, without reading its tensors."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from composecli.files.zip import Archive, NotAnArchive

_TENSORS = re.compile(r"(data|constants|traced_inputs)/\d+|data/(weights|constants)/(weight|tensor)_\d+")


def stamp(path: str) -> tuple[int, ...]:
    """What is another once anybody writes to the file, or puts another in its place; empty where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def identity(path: str) -> str | None:
    """The SHA-256, in hexadecimal, of an archive's directory, which has the size and the checksum of every record, and
    of all its members but those that are tensors. None for what is no archive, or has no checksums."""
    try:
        # What is no regular file may never end, or wait for somebody to write to it.
        if not Path(path).is_file():
            return None
        with Archive(Path(path)) as archive:
            if not archive.has_checksums:
                return None
            found = hashlib.sha256(archive.directory())
            for name in archive.in_order():
                if not _TENSORS.fullmatch(name):
                    found.update(archive.read(name))
    except (NotAnArchive, OSError, ValueError):
        return None
    return found.hexdigest()
