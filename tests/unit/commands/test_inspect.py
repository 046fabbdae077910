"""Inspecting one model: its contract, the selected output, and why there may be none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.commands.inspect import inspect
from composecli.commands.requests import InspectRequest, Options, Selection
from composecli.core.errors import CouldNotAttempt
from composecli.core.input_spec import parse_input
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.protocol import ProbeRequest, R, Request
from tests.models import DictOutput, Shelf


def test_a_model_has_a_contract_layers_and_a_size(shelf: Shelf) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    report = inspect(InspectRequest(path), InProcessWorker())
    assert str(report.model.contract) == "float32[N, 10] -> float32[N, 5]"
    assert [row.class_name for row in report.layers] == ["Linear"]
    assert report.file_size == Path(path).stat().st_size
    assert report.finding is None
    assert report.exit_code == 0


def test_a_selection_narrows_the_outputs(shelf: Shelf) -> None:
    path = shelf.save("dict", DictOutput())
    options = Options(selections=(Selection(None, "logits"),))
    whole = inspect(InspectRequest(path), InProcessWorker()).model.contract
    selected = inspect(InspectRequest(path, options), InProcessWorker()).model.contract
    assert whole is not None
    assert selected is not None
    assert len(whole.outputs) == 2
    assert [port.path for port in selected.outputs] == [("logits",)]
    assert selected.inputs == whole.inputs


def test_a_selection_of_nothing_is_a_problem(shelf: Shelf) -> None:
    path = shelf.save("dict", DictOutput())
    options = Options(selections=(Selection(None, "nothing"),))
    with pytest.raises(CouldNotAttempt, match="no output nothing") as caught:
        inspect(InspectRequest(path, options), InProcessWorker())
    assert caught.value.problem.code == "CC103"


def test_a_refused_input_is_the_finding(shelf: Shelf) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    options = Options(inputs=(parse_input("2,11"),))
    report = inspect(InspectRequest(path, options), InProcessWorker())
    assert report.model.contract is None
    assert report.finding is not None
    assert report.finding.code == "CC310"
    assert report.exit_code == 3


class _Interrupted(InProcessWorker):
    """A worker whose user presses Ctrl-C during the third probe."""

    def __init__(self) -> None:
        super().__init__()
        self.probes = 0

    def ask(self, request: Request[R]) -> R:
        if isinstance(request, ProbeRequest):
            self.probes += 1
            if self.probes == 3:
                raise KeyboardInterrupt
        return super().ask(request)


def test_an_interrupted_inspection_shows_what_is_known(shelf: Shelf) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    report = inspect(InspectRequest(path), _Interrupted())
    assert report.interrupted
    assert report.exit_code == 130
    assert report.model.name == path
    assert report.facts.parameters == 55


def test_the_contract_is_the_same_on_meta(shelf: Shelf) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    report = inspect(InspectRequest(path, Options(device="meta")), InProcessWorker())
    assert str(report.model.contract) == "float32[N, 10] -> float32[N, 5]"


def test_the_contract_of_an_exported_file_takes_few_probes(shelf: Shelf) -> None:
    path = shelf.save("linear", nn.Linear(10, 5), "exported", (torch.rand(2, 10),))
    report = inspect(InspectRequest(path), InProcessWorker())
    assert str(report.model.contract) == "float32[N, 10] -> float32[N, 5]"
    assert report.model.probes <= 10
