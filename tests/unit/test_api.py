"""The Python API: the same requests as the command line, and problems as exceptions."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import composecli
from composecli.commands.requests import Selection
from composecli.commands.trust import Trust
from composecli.core.errors import CouldNotAttempt
from composecli.core.input_spec import parse_input
from composecli.core.version import VERSION
from composecli.workers.child import SubprocessWorker
from tests.models import Shelf


def test_problems_are_raised_as_exceptions(shelf: Shelf, here: Path) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    report = composecli.join(a, Path(b), output="both.pt")
    assert report.exit_code == 0
    checked = composecli.check(a, b)
    assert checked.verdict is composecli.Verdict.COMPATIBLE
    assert checked
    assert checked.ok
    assert not composecli.check(b, a)
    assert str(composecli.inspect(a).model.contract) == "float32[N, 10] -> float32[N, 5]"
    with pytest.raises(CouldNotAttempt, match="output already exists"):
        composecli.join(a, b, output="both.pt")
    with pytest.raises(ValueError, match="two models"):
        composecli.check(a)


def test_the_text_of_an_exception_is_the_whole_message(here: Path) -> None:
    Path("both.pt").touch()
    with pytest.raises(CouldNotAttempt) as caught:
        composecli.join("a.pt", "b.pt", output="both.pt")
    assert str(caught.value) == (
        "error[CC919]: the output already exists\n"
        "  both.pt\n"
        "  help: -o both-2.pt is free\n"
        "  help: --force replaces the file"
    )
    copied = pickle.loads(pickle.dumps(caught.value))
    assert copied.problem == caught.value.problem


def test_options_are_parsed_as_on_the_command_line() -> None:
    parsed = composecli.options(
        device="meta",
        inputs=["float32[N,10]", "rate:=2"],
        select=["2:logits"],
        training="eval",
        trust=[Path("a.pt")],
        allow_ops=["aten::from_file"],
        max_probes=7,
    )
    assert parsed.inputs == (parse_input("float32[N,10]"), parse_input("rate:=2"))
    assert parsed.selections == (Selection(2, "logits"),)
    assert parsed.trust == (Trust("a.pt"),)
    assert (parsed.device, parsed.real_device) == ("meta", "cpu")
    assert parsed.allowed_ops == ("aten::from_file",)
    assert parsed.budget.probes == 7


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": "tpu"},
        {"inputs": ["x y"]},
        {"training": "sometimes"},
        {"allow_ops": ["from_file"]},
        {"trust": ["a.pt@sha256:12"]},
        {"max_probes": 0},
        {"max_probes": -1},
        {"max_seconds": 0},
        {"max_seconds": -2.5},
        {"max_seconds": float("nan")},
        {"max_seconds": float("inf")},
    ],
)
def test_an_option_without_meaning_is_a_value_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        composecli.options(**wrong)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_torch_cannot_take_is_a_value_error(seed: int) -> None:
    with pytest.raises(ValueError, match="seed="):
        composecli.join("a.pt", "b.pt", output="both.pt", seed=seed)


@pytest.mark.parametrize("wrong", [{"mode": "sideways"}, {"merge": "divide"}])
def test_a_mode_without_meaning_is_a_value_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        composecli.check("a.pt", "b.pt", **wrong)


def test_models_in_parallel_merge_along_a_dim(shelf: Shelf) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("wider", nn.Linear(10, 7))
    assert composecli.check(a, b, mode="parallel").exit_code == 0
    assert composecli.check(a, b, mode="parallel", dim=0).exit_code == 1


def test_a_report_with_warnings_may_be_made_to_fail(shelf: Shelf) -> None:
    a, b = (
        shelf.save("ids_of_batch", nn.Embedding(9, 4)),
        shelf.save("softmax_of_batch", nn.Softmax(dim=0)),
    )
    assert composecli.check(a, b).warnings == 1
    assert composecli.check(a, b).ok
    assert not composecli.check(a, b, fail_on="warning").ok
    with pytest.raises(ValueError, match="error or warning"):
        composecli.check(a, b, fail_on="note")


def test_the_version_has_one_source() -> None:
    assert composecli.__version__ == VERSION


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = composecli.nothing


SLOW = """
import time
from torch import nn

class Slow(nn.Linear):
    def forward(self, x):
        time.sleep(120)
        return super().forward(x)
"""


def test_in_a_child_process_max_seconds_stops_a_forward(here: Path) -> None:
    Path("slow.py").write_text(SLOW)
    torch.save(torch.nn.Linear(8, 4).state_dict(), "w.pth")
    worker = SubprocessWorker(timeout=300)
    start = time.monotonic()
    try:
        options = composecli.options(max_seconds=2)
        report = composecli.inspect("slow.py:Slow(8, 4)@w.pth", options=options, worker=worker)
    finally:
        worker.close()
    assert report.exit_code == 3
    assert time.monotonic() - start < 100
