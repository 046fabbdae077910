"""Private copies: the bytes that were checked are loaded, even if the file changes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

COPY_CHUNK_BYTES = 2**20


@contextmanager
def copy_privately(path: str) -> Iterator[Path]:
    """Copy the file to an anonymous one, which is removed at the end of the context.

    Raises:
        OSError: if the file cannot be read, or is larger than the memory limit of this process.
    """
    with anonymous_file() as copy:
        with open(path, "rb") as file:
            _check_memory_limit(os.fstat(file.fileno()).st_size)
            shutil.copyfileobj(file, copy, COPY_CHUNK_BYTES)
        copy.flush()
        yield Path(f"/dev/fd/{copy.fileno()}")


def _check_memory_limit(size: int) -> None:
    """Refuse a copy larger than RLIMIT_DATA: an anonymous file is memory that no limit counts."""
    if sys.platform == "linux":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
        if limit != resource.RLIM_INFINITY and size > limit:
            message = f"it has {size:,} bytes, and memory is limited to {limit:,}"
            raise OSError(errno.ENOMEM, message)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def anonymous_file() -> IO[bytes]:
    """Open a file without a name, in memory if the system supports that."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("composecli"), "w+b")
    return tempfile.TemporaryFile()
