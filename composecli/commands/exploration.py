"""Exploration: the device on which inference runs its probes."""

from __future__ import annotations

from collections.abc import Callable

from composecli.commands.opened_model import OpenedModel
from composecli.core.blueprint import single_model
from composecli.core.observations import Accepted, Detail, Observation, Rejected
from composecli.core.pytree import Call
from composecli.workers.protocol import ProbeRequest

RunProbe = Callable[[ProbeRequest], Observation]


class Explorer:
    """Runs the probes of inference, on the meta device if the user asks for that.

    Meta kernels allocate nothing and compute nothing, so that large models are explored fast. But
    they accept calls that real kernels reject. A call therefore counts as accepted only if it
    also runs on the real device. A model that has its device baked in fails on meta with any
    call; once that is seen, it is explored on the real device alone.
    """

    def __init__(self, probe: RunProbe) -> None:
        self._probe = probe
        self._not_on_meta = set[int]()

    def explore(self, part: OpenedModel, call: Call, detail: Detail) -> Observation:
        """Run one forward of a model, and return the observation that decides about the call."""
        has_meta = part.explore_handle != part.handle
        if not has_meta or part.handle in self._not_on_meta:
            return self._run(part.handle, call, detail)
        on_meta = self._run(part.explore_handle, call, detail)
        if detail is Detail.OUTCOME and isinstance(on_meta, Rejected):
            return on_meta
        real = self._run(part.handle, call, detail)
        if not isinstance(real, Accepted):
            return real
        if isinstance(on_meta, Rejected):
            self._not_on_meta.add(part.handle)
            return real
        return on_meta

    def _run(self, handle: int, call: Call, detail: Detail) -> Observation:
        """Run one forward of the model that has this handle."""
        request = ProbeRequest(single_model(handle), call, detail=detail)
        return self._probe(request)
