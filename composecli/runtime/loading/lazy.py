"""Loading late: a model without its tensors where it can be had so, else with all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from composecli.files.archive import Archive
from composecli.runtime.loading.admission import admitted
from composecli.runtime.model import Model
from composecli.workers.protocol import OpenRequest

# The model, or why it cannot be had so; empty where it cannot be had at all.
Attempt = Callable[[OpenRequest, Archive], Model | str]


def load_lazily(
    request: OpenRequest, attempt: Attempt, load_whole: Callable[[OpenRequest], Model]
) -> Model:
    """What `attempt` makes of the archive, or `load_whole` of the file, with a note that says why.

    On CUDA every tensor is moved, and a file that is trusted by its hash is read to its end: these are loaded whole.
    """
    if request.device not in ("cpu", "meta") or request.sha256 is not None:
        return load_whole(request)
    with admitted(request) as archive:
        found = attempt(request, archive)
    if isinstance(found, Model):
        return found
    model = load_whole(request)
    return (
        replace(model, notes=(*model.notes, f"all its tensors were read: {found}"))
        if found
        else model
    )
