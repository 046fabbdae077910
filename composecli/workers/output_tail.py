"""The end of the output of a process. The output goes to no file, which could fill the disk."""

from __future__ import annotations

import os
import threading

MAX_READ_BYTES = 2**16


class Tail:
    """A pipe that is drained continuously and of which the last `length` bytes are kept.

    Pass `writing` to the process before calling `start`.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._reading, self.writing = os.pipe()
        self._kept = b""
        self._thread = threading.Thread(target=self._drain, daemon=True)

    def close(self) -> None:
        """Close both ends of a pipe that is not read."""
        os.close(self._reading)
        os.close(self.writing)

    def start(self) -> None:
        """Close this process's copy of the writing end, and start to read."""
        os.close(self.writing)
        self._thread.start()

    def text(self) -> str | None:
        """Return the end of the output, once the process has ended; None if there is none."""
        self._thread.join(timeout=1)
        return self._kept.decode("utf-8", "replace") or None

    def _drain(self) -> None:
        with os.fdopen(self._reading, "rb", buffering=0) as pipe:
            while piece := pipe.read(MAX_READ_BYTES):
                self._kept = (self._kept + piece)[-self.length :]
