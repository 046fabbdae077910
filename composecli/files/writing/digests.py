"""Digests of files, computed beside what else is done."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterable
from types import TracebackType

from composecli.files.archive import PIECE
from composecli.files.fingerprint import stat_key


class Digests:
    """The SHA-256 of each of these files, in hexadecimal, computed in a thread from the start on; where it is left
    before the end, the rest is not computed."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = tuple(dict.fromkeys(paths))
        self._before = {path: stat_key(path) for path in self._paths}
        self._found = dict[str, str | OSError]()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Digests:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        self._thread.join()

    def close(self) -> None:
        """Compute no more: what was not computed by now is an error for those who wait for it."""
        self._stopped = True

    def of(self, path: str) -> str:
        """Wait for the digest of one of the files.

        Raises:
            OSError: it could not be read.
        """
        with self._changed:
            self._changed.wait_for(lambda: path in self._found)
        found = self._found[path]
        if isinstance(found, OSError):
            raise found
        return found

    def changed(self) -> tuple[str, ...]:
        """The files that are others by now than they were at the start."""
        return tuple(path for path in self._paths if stat_key(path) != self._before[path])

    def _run(self) -> None:
        for path in self._paths:
            found = self._digest(path)
            with self._changed:
                self._found[path] = found
                self._changed.notify_all()

    def _digest(self, path: str) -> str | OSError:
        found = hashlib.sha256()
        try:
            with open(path, "rb", buffering=0) as file:
                while not self._stopped and (piece := file.read(PIECE)):
                    found.update(piece)
        except OSError as error:
            return error
        if self._stopped:
            return OSError(errno.ECANCELED, os.strerror(errno.ECANCELED), path)
        return found.hexdigest()
