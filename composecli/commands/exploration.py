"""Exploration: the device on which inference runs its probes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from composecli.commands.opened_model import OpenedModel
from composecli.core.blueprint import single_model
from composecli.core.observations import Accepted, Detail, Observation, Rejected
from composecli.core.pytree import Call
from composecli.workers.protocol import ProbeRequest

MIN_SECONDS = 0.01

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

    def explore(
        self, part: OpenedModel, call: Call, detail: Detail, deadline: float = math.inf
    ) -> Observation:
        """Run one forward of a model, and return the observation that decides about the call.

        A forward that goes on until the deadline, on the monotonic clock, is stopped.
        """
        has_meta = part.explore_handle != part.handle
        if not has_meta or part.handle in self._not_on_meta:
            return self._run(part.handle, call, detail, deadline)
        on_meta = self._run(part.explore_handle, call, detail, deadline)
        if detail is Detail.OUTCOME and isinstance(on_meta, Rejected):
            return on_meta
        real = self._run(part.handle, call, detail, deadline)
        if not isinstance(real, Accepted):
            return real
        if isinstance(on_meta, Rejected):
            self._not_on_meta.add(part.handle)
            return real
        return on_meta

    def _run(self, handle: int, call: Call, detail: Detail, deadline: float) -> Observation:
        """Run one forward of the model that has this handle."""
        request = ProbeRequest(single_model(handle), call, detail=detail)
        if deadline < math.inf:
            seconds = max(deadline - time.monotonic(), MIN_SECONDS)
            request = replace(request, seconds=seconds)
        return self._probe(request)
