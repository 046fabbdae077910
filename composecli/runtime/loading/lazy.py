"""Lazy loading: open a model without its tensors if its file allows it, otherwise load it whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from composecli.files.archive import Archive
from composecli.runtime.loading.admission import Scan, admit, admit_copy
from composecli.runtime.model import Model
from composecli.workers.protocol import OpenRequest


@dataclass(frozen=True)
class NotLazy:
    """The model has to be loaded whole. `reason` completes "all its tensors were read: ..."."""

    reason: str


@dataclass(frozen=True)
class NotAModel:
    """The file contains no module. Loading it whole fails too, and raises the problem to report."""


Attempt = Model | NotLazy | NotAModel


@dataclass(frozen=True)
class ArchiveLoader:
    """Loads one kind of archive. Both steps get a file that has passed `scan` already.

    Attributes:
        scan: reports unsafe content that `files.sniff` cannot see.
        open_lazily: loads the model without its tensors from an open archive, if it can.
        read_whole: loads the model with all its tensors from a private copy of the file.
    """

    scan: Scan
    open_lazily: Callable[[OpenRequest, Archive], Attempt]
    read_whole: Callable[[OpenRequest, Path], Model]

    def load(self, request: OpenRequest) -> Model:
        """Load the model, without its tensors if possible; otherwise a note states why not.

        Raises:
            CouldNotAttempt: if the file is not admitted or cannot be loaded.
        """
        return load_lazily(request, self._try_lazily, self.load_whole)

    def _try_lazily(self, request: OpenRequest) -> Attempt:
        """Admit the archive, and load its model without the tensors if possible."""
        with admit(request, self.scan) as archive:
            return self.open_lazily(request, archive)

    def load_whole(self, request: OpenRequest) -> Model:
        """Load the model with all its tensors in memory.

        Raises:
            CouldNotAttempt: if the file is not admitted or cannot be loaded.
        """
        with admit_copy(request, self.scan) as copy:
            return self.read_whole(request, copy)


def load_lazily(
    request: OpenRequest,
    open_lazily: Callable[[OpenRequest], Attempt],
    load_whole: Callable[[OpenRequest], Model],
) -> Model:
    """Load a model without its tensors if possible; otherwise whole, with a note why.

    Raises:
        CouldNotAttempt: as the two functions do.
    """
    # On CUDA every tensor is moved, and a file that is trusted by its hash is read to its end.
    if request.device not in ("cpu", "meta") or request.sha256 is not None:
        return load_whole(request)
    attempt = open_lazily(request)
    if isinstance(attempt, Model):
        return attempt
    model = load_whole(request)
    if isinstance(attempt, NotLazy):
        note = f"all its tensors were read: {attempt.reason}"
        model = replace(model, notes=(*model.notes, note))
    return model
