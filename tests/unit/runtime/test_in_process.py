"""The worker in this process: one handler for each request, models by number, samples by value."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from composecli.core.blueprint import single_model
from composecli.core.errors import CouldNotAttempt
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.observations import Accepted, Rejected, RejectionKind
from composecli.core.pytree import Argument, Call, TensorSpec, TreeMapping, TreeSequence
from composecli.core.rules import Rule
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.protocol import (
    AnyRequest,
    DescribeRequest,
    OpenRequest,
    ProbeRequest,
    SampleRequest,
    SandboxRequest,
    Training,
)


def open_request(path: Path, device: str = "cpu") -> OpenRequest:
    return OpenRequest(
        FileReference(str(path)), ModelKind.TORCHSCRIPT, device, Training.SAVED, False, None
    )


def save_linear(folder: Path, width: int) -> Path:
    path = folder / f"linear_{width}.pt"
    torch.jit.script(nn.Linear(width, 2)).save(str(path))
    return path


def call_of(*sizes: int) -> Call:
    return Call((Argument(TensorSpec("float32", sizes)),))


def test_every_request_has_a_handler() -> None:
    assert set(InProcessWorker()._handlers) == set(get_args(AnyRequest))


def test_models_are_numbered_in_order(tmp_path: Path) -> None:
    worker = InProcessWorker()
    handles = [worker.ask(open_request(save_linear(tmp_path, width))).handle for width in (3, 4)]
    assert handles == [0, 1]
    for handle, width in zip(handles, (3, 4), strict=True):
        observation = worker.ask(ProbeRequest(single_model(handle), call_of(2, width)))
        assert isinstance(observation, Accepted)
        assert observation.result == TensorSpec("float32", (2, 2))
        assert worker.ask(DescribeRequest(handle, None)).rows


def test_no_measure_is_applied_to_this_process() -> None:
    sandbox = InProcessWorker().ask(SandboxRequest((), (), 1000, 30.0, files=True))
    assert sandbox.applied == ()
    assert sandbox.unavailable == ("models run in this process",)


IDS = torch.tensor([[0, 6]])
X = torch.rand(1, 3)


@pytest.mark.parametrize(
    ("value", "names"),
    [(X, [None]), ((X, IDS), [None, None]), ({"x": X, "ids": IDS}, ["x", "ids"])],
    ids=["tensor", "tuple", "dict"],
)
def test_samples_become_the_arguments_of_a_call(
    tmp_path: Path, value: Any, names: list[str | None]
) -> None:
    torch.save(value, tmp_path / "sample.pt")
    call = InProcessWorker().ask(SampleRequest(str(tmp_path / "sample.pt"))).call
    assert [argument.name for argument in call.arguments] == names
    specs = [TensorSpec("float32", (1, 3), sample=0), TensorSpec("int64", (1, 2), 7, sample=1)]
    assert [argument.value for argument in call.arguments] == specs[: len(names)]


def test_nested_samples_keep_their_structure(tmp_path: Path) -> None:
    torch.save(([X, IDS], {"mask": X > 0}), tmp_path / "sample.pt")
    call = InProcessWorker().ask(SampleRequest(str(tmp_path / "sample.pt"))).call
    sequence, mapping = (argument.value for argument in call.arguments)
    assert isinstance(sequence, TreeSequence)
    assert isinstance(mapping, TreeMapping)
    assert [key for key, _ in mapping.entries] == ["mask"]
    assert mapping.entries[0][1] == TensorSpec("bool", (1, 3), 2, sample=2)


def test_sample_values_are_used_as_they_are(tmp_path: Path) -> None:
    class Positive(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if bool((x != 5).any()):
                raise ValueError("only fives")
            return x

    torch.jit.script(Positive()).save(str(tmp_path / "positive.pt"))
    torch.save(torch.full((2,), 5.0), tmp_path / "sample.pt")
    worker = InProcessWorker()
    handle = worker.ask(open_request(tmp_path / "positive.pt")).handle
    call = worker.ask(SampleRequest(str(tmp_path / "sample.pt"))).call
    assert isinstance(worker.ask(ProbeRequest(single_model(handle), call)), Accepted)
    assert isinstance(worker.ask(ProbeRequest(single_model(handle), call_of(2))), Rejected)


def test_unreadable_sample_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "sample.pt").write_bytes(b"not a tensor")
    with pytest.raises(CouldNotAttempt) as caught:
        InProcessWorker().ask(SampleRequest(str(tmp_path / "sample.pt")))
    assert caught.value.problem.rule is Rule.INPUT_DOES_NOT_APPLY


def test_missing_device_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(CouldNotAttempt) as caught:
        InProcessWorker().ask(open_request(save_linear(tmp_path, 3), "cuda:99"))
    assert caught.value.problem.rule is Rule.NO_SUCH_DEVICE


def test_input_that_cannot_be_made_is_rejected(tmp_path: Path) -> None:
    worker = InProcessWorker()
    handle = worker.ask(open_request(save_linear(tmp_path, 3))).handle
    observation = worker.ask(ProbeRequest(single_model(handle), call_of(1 << 50, 3)))
    assert isinstance(observation, Rejected)
    assert observation.kind is RejectionKind.OUT_OF_MEMORY
    assert observation.where == "creating the input"
