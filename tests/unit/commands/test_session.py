"""A session: every file is opened once, and every contract inferred once."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from composecli.commands.requests import Options
from composecli.commands.resolve import identify
from composecli.commands.session import Session
from composecli.core.input_spec import parse_input
from composecli.core.pytree import Argument, Call
from composecli.inference import Found
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.protocol import OpenRequest, ProbeRequest, R, Request
from tests.models import Shelf
from tests.parsing import spec


class Counting(InProcessWorker):
    """A worker that counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = list[str]()
        self.probes = 0

    def ask(self, request: Request[R]) -> R:
        if isinstance(request, OpenRequest):
            self.opened.append(request.device)
        if isinstance(request, ProbeRequest):
            self.probes += 1
        return super().ask(request)


def start(options: Options | None = None) -> tuple[Session, Counting, list[str]]:
    """A session with its worker, and the progress that it reports."""
    worker, reports = Counting(), list[str]()
    return Session(worker, options or Options(), reports.append), worker, reports


def linear(shelf: Shelf) -> str:
    return shelf.save("linear", nn.Linear(10, 5))


def test_a_file_is_opened_once_by_all_its_names(shelf: Shelf, here: Path) -> None:
    session, worker, reports = start()
    os.symlink(linear(shelf), "link.pt")
    first, second = session.open(identify(linear(shelf))), session.open(identify("link.pt"))
    assert first.handle == second.handle
    assert (first.name, second.name) == (linear(shelf), "link.pt")
    assert worker.opened == ["cpu"]
    assert reports == [f"loading {linear(shelf)}"]


def test_a_contract_is_inferred_once(shelf: Shelf) -> None:
    session, worker, _ = start()
    part = session.open(identify(linear(shelf)))
    found = session.infer(part)
    probes = worker.probes
    assert session.infer(part) is found
    given = Call((Argument(spec("float32[7, 10]")),))
    assert session.infer(part, given=given) is found
    assert worker.probes == probes
    assert [report.name for report in session.partial_results] == [linear(shelf)]


def test_a_call_that_the_contract_does_not_allow_is_tried(shelf: Shelf) -> None:
    """A contract from probes of rank 2 may be too narrow; what a producer feeds decides."""
    session, worker, _ = start()
    part = session.open(identify(linear(shelf)))
    found = session.infer(part)
    probes = worker.probes
    refused = Call((Argument(spec("float32[7, 11]")),))
    assert session.infer(part, given=refused) is found
    assert worker.probes == probes + 1
    accepted = session.infer(part, given=Call((Argument(spec("float32[7, 3, 10]")),)))
    assert isinstance(accepted, Found)
    assert str(accepted.contract) == "float32[N, T, 10] -> float32[N, T, 5]"


def test_meta_opens_a_second_copy_to_explore(shelf: Shelf) -> None:
    session, worker, _ = start(Options(device="meta"))
    part = session.open(identify(linear(shelf)))
    assert sorted(worker.opened) == ["cpu", "meta"]
    assert part.explore_handle != part.handle
    assert isinstance(session.infer(part), Found)


def test_a_stated_input_is_the_same_for_all_models(shelf: Shelf) -> None:
    session, _, _ = start(Options(inputs=(parse_input("float32[N,10]"),)))
    first = session.open(identify(linear(shelf)))
    second = session.open(identify(shelf.save("wider", nn.Linear(10, 7))))
    stated = session.stated_input(first)
    assert stated is not None
    assert session.stated_input(second) is stated
    assert start()[0].stated_input(first) is None


def test_a_report_notes_what_had_to_be_read(shelf: Shelf) -> None:
    session, _, _ = start()
    part = session.open(identify(linear(shelf)))
    report = session.report(part, session.infer(part))
    assert str(report.contract) == "float32[N, 10] -> float32[N, 5]"
    assert report.kind == "TorchScript archive"
    assert report.probes > 0


def test_items_are_mapped_in_order() -> None:
    assert start()[0].map(str, [1, 2, 3]) == ["1", "2", "3"]
