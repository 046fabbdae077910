"""The cache of results: JSON values in a folder of the user, a file for each.

The cache only saves time: every file is still scanned in each run, and every model that has to run
is loaded. Entries are written atomically. An unreadable entry, or one with another key, is ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import secrets
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from composecli.workers.codec import encode

MAX_ENTRIES = 4096
_SUFFIX = ".json"
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}")


# Where a platform has caches below the home of a user, and the variable that says otherwise.
_CACHES = {"win32": ("AppData", "Local"), "darwin": ("Library", "Caches")}
_VARIABLES = {"win32": "LOCALAPPDATA", "darwin": ""}


def default_folder() -> Path:
    """Return the folder for composecli in the platform's cache directory of the user.

    A user may have no home. Nothing can be stored then, and the folder is one that cannot exist.
    """
    stated = os.environ.get(_VARIABLES.get(sys.platform, "XDG_CACHE_HOME"), "")
    if os.path.isabs(stated):
        return Path(stated) / "composecli"
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    # In the current folder, somebody else could have stored answers.
    if not home.is_absolute():
        home = Path(os.devnull).absolute()
    return home.joinpath(*_CACHES.get(sys.platform, (".cache",)), "composecli")


def _versions() -> str:
    """Return a hash of everything that invalidates the cache: code, torch, Python and machine."""
    versions = [
        _code_version(),
        _torch_version(),
        platform.python_version(),
        sys.platform,
        platform.machine(),
    ]
    return hashlib.sha256(json.dumps(versions).encode()).hexdigest()


def _code_version() -> list[list[object]]:
    """Return the stamp of each file of this package.

    The package version alone does not change during development.
    """
    package = Path(__file__).parent.parent
    stamps = list[list[object]]()
    for pattern in ("*.py", "*.txt"):
        for path in package.rglob(pattern):
            stamps.append(_stamp(path, str(path.relative_to(package))))
    return sorted(stamps)


def _torch_version() -> list[object]:
    """Return the stamp of torch's version file, without importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return []
    path = Path(spec.origin).with_name("version.py")
    return _stamp(path, str(path))


def _stamp(path: Path, name: str) -> list[object]:
    """Return a name, size in bytes and modification time, which change if the file does."""
    status = path.stat()
    return [name, status.st_size, status.st_mtime_ns]


@dataclass(frozen=True)
class Cache:
    """A folder of JSON values by key.

    A folder that belongs to another user, or that others may write to, is not used.
    """

    folder: Path
    versions: str = field(default_factory=_versions)

    def get(self, key: object) -> Any:
        """Return the value for this key; None if there is none."""
        try:
            if not self._is_private():
                return None
            entry = json.loads(self._path(key).read_bytes())
            if entry["key"] == encode(key):
                return entry["value"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        return None

    def put(self, key: object, value: object) -> None:
        """Store a value of plain JSON data. Failures to write are ignored."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._is_private():
                self._write(self._path(key), json.dumps({"key": encode(key), "value": value}))

    def make_room(self) -> None:
        """Remove the older half of the entries if there are more than `MAX_ENTRIES`."""
        if not self._is_private():
            return
        with contextlib.suppress(OSError):
            entries = [entry for entry in os.scandir(self.folder) if _is_entry(entry)]
            if len(entries) <= MAX_ENTRIES:
                return
            entries.sort(key=lambda entry: entry.stat().st_mtime)
            for entry in entries[: len(entries) // 2]:
                Path(entry.path).unlink(missing_ok=True)

    def clear(self) -> int:
        """Remove all entries and temporary files; return the number of entries removed."""
        if not self._is_private():
            return 0
        count = 0
        for file in os.scandir(self.folder):
            if not _is_entry(file) and not _TEMPORARY.fullmatch(file.name):
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)
                count += _is_entry(file)
        return count

    def _write(self, path: Path, text: str) -> None:
        """Write a file under a temporary name and rename it, so that no reader sees half of it."""
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            with open(temporary, "x", opener=_open_private) as file:
                file.write(text)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _path(self, key: object) -> Path:
        """Return the path of an entry, named by the hash of its key and of all versions."""
        text = json.dumps([self.versions, encode(key)], sort_keys=True)
        return self.folder / (hashlib.sha256(text.encode()).hexdigest() + _SUFFIX)

    def _is_private(self) -> bool:
        """Whether the folder is a directory that only this user can write to."""
        try:
            status = self.folder.lstat()
        except OSError:
            return False
        if not stat.S_ISDIR(status.st_mode):
            return False
        if not hasattr(os, "getuid"):
            return True
        return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _is_entry(file: os.DirEntry[str]) -> bool:
    """Return whether a file of the folder is a cache entry."""
    return file.name.endswith(_SUFFIX)


def _open_private(path: str, flags: int) -> int:
    """Open a file that only its owner can read."""
    return os.open(path, flags, 0o600)
