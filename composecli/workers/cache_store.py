"""The cache: what was found of files before, by their content, so that it need not be found again.

An answer from here is for speed alone: a file is judged each time, and whatever is loaded is loaded for real. Entries
appear whole or not at all; what cannot be read, or was written for another key, is as if it were not there.
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

MOST_ENTRIES = 4096
_SUFFIX = ".json"
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}")


def default_folder() -> Path:
    """Where the system keeps what a user's programs can do without."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "composecli"


def _versions() -> str:
    """The SHA-256 of what an answer may change with: the code of this package, torch, Python and the machine."""
    found = [_code(), _torch(), platform.python_version(), sys.platform, platform.machine()]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _code() -> list[list[object]]:
    """The size and the time of each file of the package: a version alone stays the same while it is worked on."""
    package = Path(__file__).parent.parent
    files = [path for pattern in ("*.py", "*.txt") for path in package.rglob(pattern)]
    return sorted(
        [str(path.relative_to(package)), path.stat().st_size, path.stat().st_mtime_ns]
        for path in files
    )


def _torch() -> list[object]:
    """The torch that would be imported, by the file that says its version."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return []
    version = Path(spec.origin).with_name("version.py")
    return [str(version), version.stat().st_size, version.stat().st_mtime_ns]


@dataclass(frozen=True)
class Cache:
    """Values by keys, a file for each. A folder of another user, or that others may write to, is not used."""

    folder: Path
    versions: str = field(default_factory=_versions)

    def get(self, key: object) -> Any:
        """The JSON that was put there; None where there is none."""
        try:
            if not self._is_ours():
                return None
            held = json.loads(self._path(key).read_bytes())
            return held["value"] if held["key"] == encode(key) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, key: object, value: object) -> None:
        """Keep a value that is plain JSON; where that cannot be, it is not kept."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._is_ours():
                self._write(self._path(key), json.dumps({"key": encode(key), "value": value}))

    def make_room(self) -> None:
        """Remove the older half where there are too many."""
        if not self._is_ours():
            return
        with contextlib.suppress(OSError):
            found = [entry for entry in os.scandir(self.folder) if entry.name.endswith(_SUFFIX)]
            if len(found) > MOST_ENTRIES:
                found.sort(key=lambda entry: entry.stat().st_mtime)
                for entry in found[: len(found) // 2]:
                    Path(entry.path).unlink(missing_ok=True)

    def clear(self) -> int:
        """Remove every entry, and what a run that was killed left of one; say how many entries there were."""
        if not self._is_ours():
            return 0
        count = 0
        for entry in os.scandir(self.folder):
            if entry.name.endswith(_SUFFIX) or _TEMPORARY.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry)
                    count += entry.name.endswith(_SUFFIX)
        return count

    def _write(self, path: Path, text: str) -> None:
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            with open(temporary, "x", opener=_private) as file:
                file.write(text)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _path(self, key: object) -> Path:
        text = json.dumps([self.versions, encode(key)], sort_keys=True)
        return self.folder / (hashlib.sha256(text.encode()).hexdigest() + _SUFFIX)

    def _is_ours(self) -> bool:
        try:
            status = self.folder.lstat()
        except OSError:
            return False
        mine = not hasattr(os, "getuid") or (
            status.st_uid == os.getuid() and not status.st_mode & 0o022
        )
        return mine and stat.S_ISDIR(status.st_mode)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
