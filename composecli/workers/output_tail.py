"""The end of what a process prints, however much that is: it goes to no file, which it could fill a disk with."""

from __future__ import annotations

import os
import threading

PIECE = 2**16


class Tail:
    """A pipe that is read as fast as it is written to, of which the last bytes are kept.

    `writing` is for the process, which has it from before `start`.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._reading, self.writing = os.pipe()
        self._kept = b""
        self._thread = threading.Thread(target=self._drain, daemon=True)

    def start(self) -> None:
        os.close(self.writing)
        self._thread.start()

    def text(self) -> str | None:
        """What was printed last, once the process has ended."""
        self._thread.join(timeout=1)
        return self._kept.decode("utf-8", "replace") or None

    def _drain(self) -> None:
        with os.fdopen(self._reading, "rb", buffering=0) as pipe:
            while piece := pipe.read(PIECE):
                self._kept = (self._kept + piece)[-self.length :]
