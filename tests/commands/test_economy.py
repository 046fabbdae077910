"""The mechanisms behind `make bench`, in counts instead of seconds.

Counted are the tensors read, the modules imported, the workers started and the forwards run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.commands.check import check
from composecli.commands.inspect import inspect
from composecli.commands.join import join
from composecli.commands.requests import CheckRequest, InspectRequest, JoinRequest
from composecli.runtime.in_process import InProcessWorker
from composecli.runtime.joining.gradients import GradientRun, RunResult
from composecli.workers.protocol import Built, ProbeRequest, R, Request
from tests.bench.models import FromVector, resnet50, tower
from tests.commands.running import environment
from tests.models import Shelf


class Counting(InProcessWorker):
    """Counts forwards, and keeps the last build."""

    def __init__(self) -> None:
        super().__init__()
        self.probes = 0
        self.built: Built | None = None

    def ask(self, request: Request[R]) -> R:
        if isinstance(request, ProbeRequest):
            self.probes += 1
        reply = super().ask(request)
        if isinstance(reply, Built):
            self.built = reply
        return reply

    @property
    def unread(self) -> list[tuple[int, int]]:
        """For each model, the number of records that were not read, and of all records."""
        found = []
        for model in self._models.values():
            assert model.weights is not None
            found.append(
                (len(model.weights.unread), len({place.record for place in model.weights.slots}))
            )
        return found


# What a command and its worker can do without, each a good part of a second.
HEAVY = (
    "torch._dynamo",
    "sympy",
    "torch.export",
    "torch._inductor",
    "torch._subclasses",
    "torchinfo",
)
IMPORTED = """
import sys
from composecli import api
{call}
print(*sorted(name for name in {heavy} if name in sys.modules))
"""


def imported(call: str) -> str:
    """Return the heavy modules that a call imports in a new process, besides those of torch."""
    own = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys, torch; print(*sorted(n for n in {HEAVY} if n in sys.modules))",
        ],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTED.format(call=call, heavy=HEAVY)],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    return " ".join(sorted(set(ran.stdout.split()) - set(own.stdout.split())))


@pytest.mark.parametrize("form", ["scripted", "exported", "pickled"])
def test_a_check_imports_nothing_heavy_beside_torch(shelf: Shelf, form: str) -> None:
    one = shelf.save(
        "economy_one", nn.Sequential(nn.Linear(10, 5), nn.ReLU()), form, (torch.rand(2, 10),)
    )
    other = shelf.save("economy_other", nn.Linear(5, 2), form, (torch.rand(2, 5),))
    assert not imported(f"api.check({one!r}, {other!r})")


def test_a_join_imports_nothing_heavy_beside_torch(shelf: Shelf, tmp_path: Path) -> None:
    one, other = (
        shelf.save("economy_linear", nn.Linear(10, 5)),
        shelf.save("economy_other", nn.Linear(5, 2)),
    )
    assert not imported(f"api.join({one!r}, {other!r}, output={str(tmp_path / 'both.pt')!r})")


def test_help_imports_neither_torch_nor_rich() -> None:
    code = (
        "import sys; from composecli.cli import main; "
        "main(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    loaded = ran.stdout.split()
    assert not {"torch", "rich", "rich.console", "numpy"} & set(loaded)


def test_the_child_starts_before_readers_of_files_and_inference_are_imported() -> None:
    code = f"""
import sys
from composecli.workers.child_process import ChildProcess
start = ChildProcess.__init__
def report(*words, **named):
    print(*sys.modules)
    start(*words, **named)
ChildProcess.__init__ = report
from composecli.cli import main
main(["check", {__file__!r}, {__file__!r}])
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment()
    )
    loaded = ran.stdout.splitlines()[0].split()
    assert "composecli.cli" in loaded
    late = {"composecli.files.sniff", "composecli.inference.search", "composecli.report.table"}
    assert not late & set(loaded)


@pytest.mark.parametrize("form", ["scripted", "exported", "pickled"])
def test_a_check_of_large_models_reads_no_tensor(shelf: Shelf, form: str) -> None:
    one = shelf.save("economy_tower", tower(300, 300, 3), form, (torch.rand(2, 300),))
    other = shelf.save("economy_end", tower(300, 10, 3), form, (torch.rand(2, 300),))
    worker = Counting()
    report = check(CheckRequest((one, other)), worker)
    assert str(report.verdict) == "compatible"
    assert all(unread == records > 0 for unread, records in worker.unread)


def test_a_join_leaves_every_tensor_to_be_copied(shelf: Shelf, tmp_path: Path) -> None:
    one = shelf.save("economy_tower", tower(300, 300, 3))
    other = shelf.save("economy_end", tower(300, 10, 3))
    worker = Counting()
    report = join(JoinRequest(CheckRequest((one, other)), str(tmp_path / "both.pt")), worker)
    assert report.written is not None
    assert worker.built is not None
    assert len(worker.built.left_out) == sum(records for _, records in worker.unread)


def test_a_join_is_verified_by_one_forward_of_each_side_and_call(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, usual = list[GradientRun](), GradientRun.run

    def run(side: GradientRun) -> RunResult:
        ran.append(side)
        return usual(side)

    monkeypatch.setattr(GradientRun, "run", run)
    one, other = (
        shelf.save("economy_tower", tower(300, 300, 3)),
        shelf.save("economy_end", tower(300, 10, 3)),
    )
    assert join(
        JoinRequest(CheckRequest((one, other)), str(tmp_path / "both.pt")), InProcessWorker()
    ).written
    assert len(ran) == 4
    assert not any(side.kept for side in ran)


def test_a_resnet_50_takes_few_forwards_and_no_tensor(shelf: Shelf) -> None:
    worker = Counting()
    pair = (
        shelf.save("resnet_50", resnet50()),
        shelf.save("resnet_50_from_a_vector", FromVector().eval()),
    )
    report = check(CheckRequest(pair), worker)
    assert str(report.verdict) == "compatible"
    assert worker.probes <= 30
    assert all(unread == records for unread, records in worker.unread)


def test_no_forward_is_made_twice(shelf: Shelf) -> None:
    asked = list[tuple[object, object]]()

    class Noting(InProcessWorker):
        def ask(self, request: Request[R]) -> R:
            if isinstance(request, ProbeRequest):
                asked.append((request.call, request.detail))
            return super().ask(request)

    inspect(InspectRequest(shelf.save("resnet_50", resnet50())), Noting())
    assert len(asked) == len(set(asked))


def test_a_layer_table_copies_no_parameter(shelf: Shelf) -> None:
    path = shelf.save("economy_tower", tower(300, 300, 3), "pickled")
    worker = Counting()
    report = inspect(InspectRequest(path), worker)
    assert [row.output for row in report.layers if row.class_name == "Linear"] == ["[2, 300]"] * 4
    assert all(unread == records for unread, records in worker.unread)
