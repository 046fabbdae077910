"""Fingerprints: whether a file has the same content as before, without reading its tensors."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from composecli.files.archive import CHUNK_BYTES, Archive, NotAnArchive
from composecli.files.members import Members, open_members
from composecli.files.pt2_layout import is_tensor_record
from composecli.files.skeleton import is_frozen

_TENSORS = re.compile(r"(data|traced_inputs)/\d+")
# All of a file in the old format has to be hashed.
MAX_OLD_BYTES = 2**30
_CONSTANTS = re.compile(r"constants/\d+")


def stat_key(path: str) -> tuple[int, ...]:
    """Return numbers that change if the file is written to or replaced; () if it does not exist."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ()
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return status.st_dev, status.st_ino, status.st_size, *times


def hash_records(path: str, records: tuple[str, ...]) -> str | None:
    """Return the SHA-256, in hexadecimal, of these records of an archive, or of all if empty.

    None if they cannot be read.
    """
    sha256 = hashlib.sha256()
    try:
        with open_members(Path(path)) as members:
            for name in records or _records_in_order(members):
                line = f"{name} {members.size(name)}\n"
                sha256.update(line.encode())
                for piece in members.pieces(name):
                    sha256.update(piece)
    except (NotAnArchive, OSError, ValueError, KeyError):
        return None
    return sha256.hexdigest()


def _records_in_order(members: Members) -> Sequence[str]:
    """Return the names of all members of an archive, or of all storages of an old file."""
    if isinstance(members, Archive):
        return members.names_in_order()
    return sorted(name for name in members.names if name != "data.pkl")


def fingerprint(path: str) -> str | None:
    """Return the SHA-256, in hexadecimal, of an archive's directory and of its small members.

    The directory has the size and the checksum of every record, so tensors are not read, and
    neither are the constants of code if they are large. A file in the old format has no checksums:
    all of it is hashed, unless it is large. None if it is neither, or has no checksums.
    """
    try:
        # Reading a pipe or a device may never end.
        if not Path(path).is_file():
            return None
        with open_members(Path(path)) as members:
            if not isinstance(members, Archive):
                return _hash_old_format(members)
            if not members.has_checksums:
                return None
            return _hash_small_members(members)
    except (NotAnArchive, OSError, ValueError):
        return None


def _hash_old_format(members: Members) -> str | None:
    """Hash all bytes of a file in the old format; None if it is large."""
    size = os.stat(members.fileno()).st_size
    if size > MAX_OLD_BYTES:
        return None
    sha256 = hashlib.sha256()
    place = 0
    while piece := os.pread(members.fileno(), CHUNK_BYTES, place):
        sha256.update(piece)
        place += len(piece)
    return sha256.hexdigest()


def _hash_small_members(archive: Archive) -> str:
    """Hash the directory, and the content of all members but the weights."""
    sha256 = hashlib.sha256(archive.directory_bytes())
    constants_are_weights = is_frozen(archive)
    for name in archive.names_in_order():
        is_constant = constants_are_weights and _CONSTANTS.fullmatch(name)
        if not (_TENSORS.fullmatch(name) or is_tensor_record(name) or is_constant):
            sha256.update(archive.read(name))
    return sha256.hexdigest()
