"""Progress: what a waiting person is told."""

from __future__ import annotations

from composecli.commands.progress import ProbeCounter, silent
from composecli.core.pytree import Argument, Call
from tests.parsing import spec

CALL = Call((Argument(spec("float32[2, 10]")),))


def test_each_probe_is_reported_with_its_call() -> None:
    reports = list[str]()
    counter = ProbeCounter(reports.append, "a.pt")
    counter.step(CALL)
    counter.step(CALL)
    assert reports == [
        "inferring a.pt: probe 1 on float32[2, 10]",
        "inferring a.pt: probe 2 on float32[2, 10]",
    ]


def test_a_long_name_leaves_room_for_the_call() -> None:
    reports = list[str]()
    ProbeCounter(reports.append, "/a-folder" * 20 + "/a.pt").step(CALL)
    assert len(reports[0]) < 80
    assert "/a.pt: probe 1 on float32[2, 10]" in reports[0]


def test_silence_is_silent() -> None:
    ProbeCounter(silent, "a.pt").step(CALL)
