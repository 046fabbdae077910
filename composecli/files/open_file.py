"""An open file that closes at the end of a `with` block."""

from __future__ import annotations

from typing import IO, Any, Self


class OpenFile:
    """The base of classes that read one file."""

    def __init__(self, file: IO[Any]) -> None:
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Contents that were read before stay available."""
        self._file.close()

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        return self._file.fileno()
