"""Report files: each appears whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import IO

Render = Callable[[IO[str]], None]


def write_report(path: str, render: Render) -> None:
    """Write a report to a file, which is replaced if it exists. Devices and pipes are written to.

    Raises:
        OSError: if it cannot be written: the old file is then as it was.
    """
    if _is_special(path):
        with open(path, "w", encoding="utf-8", errors="replace") as file:
            render(file)
        return
    # Help should come at once, and needs none.
    import tempfile

    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    descriptor, temporary = tempfile.mkstemp(prefix=".composecli-", dir=folder)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            render(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def why_not_writable(path: str) -> str | None:
    """Return why no report can be written to a path, as far as can be told beforehand."""
    if os.path.isdir(path):
        return "it is a folder"
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        return f"there is no folder {os.path.dirname(path) or folder}"
    if not _is_special(path) and not os.access(folder, os.W_OK):
        return "its folder cannot be written to"
    return None


def _is_special(path: str) -> bool:
    """Return whether a path is a descriptor, a device or a pipe, which must not be replaced."""
    if path.startswith(("/dev/", "/proc/")):
        return True
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _mode(path: str) -> int:
    """Return the permissions of the file that is replaced, or those that a new file gets."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
