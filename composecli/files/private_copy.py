"""A private copy of a file: what is judged is what is loaded, whatever happens to the file in between."""

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


@contextmanager
def copy_privately(path: str) -> Iterator[Path]:
    """A copy of the file that nobody else can name, in memory where the system has such files; gone at the end."""
    with anonymous_file() as copy:
        with open(path, "rb") as file:
            _refuse_larger_than_memory(os.fstat(file.fileno()).st_size)
            shutil.copyfileobj(file, copy, 2**20)
        copy.flush()
        yield Path(f"/dev/fd/{copy.fileno()}")


def _refuse_larger_than_memory(size: int) -> None:
    """The copy is memory that no limit of the process counts."""
    if sys.platform == "linux":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
        if limit != resource.RLIM_INFINITY and size > limit:
            raise OSError(
                errno.ENOMEM, f"it has {size:,} bytes, and memory is limited to {limit:,}"
            )


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def anonymous_file() -> IO[bytes]:
    """A file that nobody else can open, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("composecli"), "w+b")
    return tempfile.TemporaryFile()
