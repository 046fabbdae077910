"""Digests of files, computed in a thread."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterable

from composecli.files.archive import CHUNK_BYTES
from composecli.files.fingerprint import stat_key


class Digests:
    """The SHA-256 of each of these files, in hexadecimal.

    The thread starts with the context, and stops at its end even if files remain.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = tuple(dict.fromkeys(paths))
        self._stat_keys = {path: stat_key(path) for path in self._paths}
        self._results = dict[str, str | OSError]()
        self._has_result = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Digests:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._thread.join()

    def close(self) -> None:
        """Stop computing: waiting for a digest that is not computed yet fails from now on."""
        self._is_closed = True

    def of(self, path: str) -> str:
        """Wait for the digest of one of the files.

        Raises:
            OSError: if the file could not be read, or the digests were closed.
        """
        with self._has_result:
            self._has_result.wait_for(lambda: path in self._results)
        result = self._results[path]
        if isinstance(result, OSError):
            raise result
        return result

    def changed(self) -> tuple[str, ...]:
        """Return the files that were modified or replaced since the start."""
        return tuple(path for path in self._paths if stat_key(path) != self._stat_keys[path])

    def _run(self) -> None:
        """Digest the files in turn, and wake up callers after each one."""
        for path in self._paths:
            result = self._digest(path)
            with self._has_result:
                self._results[path] = result
                self._has_result.notify_all()

    def _digest(self, path: str) -> str | OSError:
        """Return the SHA-256 of a file in hexadecimal, or the error that ended it."""
        sha256 = hashlib.sha256()
        try:
            with open(path, "rb", buffering=0) as file:
                while not self._is_closed:
                    piece = file.read(CHUNK_BYTES)
                    if not piece:
                        return sha256.hexdigest()
                    sha256.update(piece)
        except OSError as error:
            return error
        return OSError(errno.ECANCELED, os.strerror(errno.ECANCELED), path)
