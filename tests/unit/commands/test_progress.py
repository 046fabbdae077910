"""Progress: how often a waiting person is told."""

from __future__ import annotations

from composecli.commands.progress import ProbeCounter, silent


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_fast_search_reports_nothing() -> None:
    reports, clock = list[str](), Clock()
    counter = ProbeCounter(reports.append, "a.pt", clock)
    for _ in range(9):
        clock.seconds += 0.1
        counter.step()
    assert reports == []


def test_a_slow_search_reports_twice_a_second() -> None:
    reports, clock = list[str](), Clock()
    counter = ProbeCounter(reports.append, "a.pt", clock)
    for _ in range(300):
        clock.seconds += 0.01
        counter.step()
    assert 3 <= len(reports) <= 5
    assert reports[0].startswith("inferring the contract of a.pt: 10")
    assert reports[0].endswith(" probes")


def test_silence_is_silent() -> None:
    counter = ProbeCounter(silent, "a.pt", iter([0.0, 5.0]).__next__)
    counter.step()
