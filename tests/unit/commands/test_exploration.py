"""Exploration: meta is fast, and the real device decides."""

from __future__ import annotations

import pytest

from composecli.commands.exploration import Explorer
from composecli.commands.opened_model import OpenedModel
from composecli.commands.resolve import Target
from composecli.core.blueprint import models
from composecli.core.facts import ModelFacts
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.observations import Accepted, Detail, Observation, Rejected
from composecli.core.pytree import Argument, Call
from composecli.workers.protocol import ProbeRequest
from tests.parsing import spec

CALL = Call((Argument(spec("float32[2, 10]")),))
TARGET = Target(FileReference("a.pt"), ModelKind.TORCHSCRIPT, None)
FACTS = ModelFacts("Net", (), "eval", (), 0, 0, 0, (), (), ())
REAL, META = 0, 1
YES = {REAL: Accepted((spec("float32[2, 5]"),), "cpu"), META: Accepted((), "meta")}
NO = {REAL: Rejected(0, "", "no", "cpu"), META: Rejected(0, "", "no", "meta")}


class Device:
    """Both copies of a model: which of them accept a call, and which were run."""

    def __init__(self, *, meta: bool, real: bool) -> None:
        self.answers = {META: (YES if meta else NO)[META], REAL: (YES if real else NO)[REAL]}
        self.ran = list[int]()

    def probe(self, request: ProbeRequest) -> Observation:
        """Answer for the copy that the request names."""
        (handle,) = models(request.blueprint)
        self.ran.append(handle)
        return self.answers[handle]


@pytest.mark.parametrize(
    ("meta", "real", "detail", "decides", "ran"),
    [
        (True, True, Detail.OUTCOME, YES[META], [META, REAL]),
        # A kernel on meta may accept what a real one rejects.
        (True, False, Detail.OUTCOME, NO[REAL], [META, REAL]),
        (False, False, Detail.OUTCOME, NO[META], [META]),
        # The reason is that of the real device, which knows the op.
        (False, False, Detail.REASON, NO[REAL], [META, REAL]),
        (False, True, Detail.REASON, YES[REAL], [META, REAL]),
    ],
)
def test_a_call_is_accepted_only_if_it_really_runs(
    meta: bool, real: bool, detail: Detail, decides: Observation, ran: list[int]
) -> None:
    device = Device(meta=meta, real=real)
    part = OpenedModel(TARGET, FACTS, META, REAL)
    assert Explorer(device.probe).explore(part, CALL, detail) == decides
    assert device.ran == ran


def test_a_model_with_its_device_baked_in_leaves_meta() -> None:
    device = Device(meta=False, real=True)
    explorer = Explorer(device.probe)
    part = OpenedModel(TARGET, FACTS, META, REAL)
    for _ in range(3):
        assert explorer.explore(part, CALL, Detail.REASON) == YES[REAL]
    assert device.ran == [META, REAL, REAL, REAL]


def test_without_meta_every_probe_runs_once() -> None:
    device = Device(meta=True, real=True)
    part = OpenedModel(TARGET, FACTS, REAL, REAL)
    assert Explorer(device.probe).explore(part, CALL, Detail.REASON) == YES[REAL]
    assert device.ran == [REAL]
