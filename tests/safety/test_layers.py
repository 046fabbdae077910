"""Each layer of defence alone: with the one before it taken away, the next one holds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.core.blueprint import single_model
from composecli.core.errors import CouldNotAttempt
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.observations import Accepted, Rejected
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.files.skeleton import checkpoint_skeleton
from composecli.runtime.loading import load
from composecli.runtime.loading.admission import admitted, admitted_whole
from composecli.workers.child import SubprocessWorker
from composecli.workers.protocol import OpenRequest, ProbeRequest, Sandbox, SandboxRequest, Training
from tests.safety.fixtures import saved, scripted, touching
from tests.safety.test_threats import FORWARD, STATE

WRITE = "torch.save(torch.ones(1), MARK)"
CALL = Call((Argument(TensorSpec("float32", (2, 3))),))
linux = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and its like are Linux's")


def request(path: Path, kind: ModelKind, *, trusted: bool = False) -> OpenRequest:
    return OpenRequest(
        FileReference(str(path)), kind, "cpu", Training.SAVED, trusted=trusted, key=None
    )


def landlock() -> bool:
    worker = SubprocessWorker(60)
    try:
        found = worker.sandbox(SandboxRequest((), (), None, 60, files=True))
    finally:
        worker.close()
    return any(measure.startswith("Landlock") for measure in found.applied)


@pytest.fixture
def worker() -> Iterator[SubprocessWorker]:
    child = SubprocessWorker(60)
    yield child
    child.close()


def confined(worker: SubprocessWorker, *read: Path, memory: int | None = None) -> Sandbox:
    return worker.sandbox(SandboxRequest(tuple(map(str, read)), (), memory, 60, files=True))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (STATE.format(set="torch.save(torch.ones(1), MARK)", get="pass"), ModelKind.TORCHSCRIPT),
        (FORWARD.format("torch.save(x, MARK)"), ModelKind.TORCHSCRIPT),
    ],
)
def test_the_worker_judges_what_the_command_let_pass(
    tmp_path: Path, body: str, kind: ModelKind
) -> None:
    """The command compiles nothing; the worker scans, in this process as in a child."""
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    path.write_bytes(scripted(body, marker))
    marker.unlink(missing_ok=True)
    with pytest.raises(CouldNotAttempt) as caught:
        load(request(path, kind))
    assert caught.value.problem.code == "CC926"
    assert not marker.exists()


def test_a_pickle_that_no_walk_saw_is_not_unpickled_with_anything(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    path.write_bytes(touching(marker))
    with pytest.raises(CouldNotAttempt):
        load(request(path, ModelKind.PICKLED))
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        torch.load(path, weights_only=True)
    assert not marker.exists()


@pytest.mark.parametrize("body", [STATE.format(set=WRITE, get="pass"), FORWARD.format(WRITE)])
def test_where_nothing_stands_in_its_way_the_fixture_writes(tmp_path: Path, body: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    path.write_bytes(scripted(body, marker))
    marker.unlink(missing_ok=True)
    torch.jit.load(str(path))(torch.rand(2, 3))
    assert marker.exists()


@linux
@pytest.mark.parametrize("when", ["at load", "in a forward"])
def test_without_the_scan_a_file_cannot_be_written(
    tmp_path: Path, worker: SubprocessWorker, when: str
) -> None:
    if not landlock():
        pytest.skip("the kernel has no Landlock")
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    body = STATE.format(set=WRITE, get="pass") if when == "at load" else FORWARD.format(WRITE)
    path.write_bytes(scripted(body, marker))
    marker.unlink(missing_ok=True)
    confined(worker, path)
    opened = worker.open(request(path, ModelKind.TORCHSCRIPT, trusted=True))
    worker.probe(ProbeRequest(single_model(opened.handle), CALL))
    assert not marker.exists()


@linux
def test_without_the_scan_an_existing_file_is_not_truncated(
    tmp_path: Path, worker: SubprocessWorker
) -> None:
    if not landlock():
        pytest.skip("the kernel has no Landlock")
    precious, path = tmp_path / "precious", tmp_path / "model.pt"
    path.write_bytes(scripted(FORWARD.format("torch.save(x, MARK)"), precious))
    precious.write_text("precious")
    confined(worker, path)
    opened = worker.open(request(path, ModelKind.TORCHSCRIPT, trusted=True))
    worker.probe(ProbeRequest(single_model(opened.handle), CALL))
    assert precious.read_text() == "precious"


@linux
def test_without_the_scan_no_other_file_can_be_read(
    tmp_path: Path, worker: SubprocessWorker
) -> None:
    if not landlock():
        pytest.skip("the kernel has no Landlock")
    secret, path = tmp_path / "secret", tmp_path / "model.pt"
    path.write_bytes(scripted(FORWARD.format("x = x + torch.from_file(MARK, False, 3)"), secret))
    secret.write_bytes(b"\0" * 12)
    confined(worker, path)
    opened = worker.open(request(path, ModelKind.TORCHSCRIPT, trusted=True))
    assert isinstance(worker.probe(ProbeRequest(single_model(opened.handle), CALL)), Rejected)


@linux
def test_without_landlock_a_probe_opens_no_file(tmp_path: Path) -> None:
    """The same with descriptors alone, in a process where Landlock was not asked for."""
    secret, path = tmp_path / "secret", tmp_path / "model.pt"
    path.write_bytes(scripted(FORWARD.format("torch.save(x, MARK)"), secret))
    secret.unlink(missing_ok=True)
    code = (
        "import sys, torch\nfrom composecli.runtime.sandbox import nothing_opened\n"
        f"model = torch.jit.load({str(path)!r})\nwith nothing_opened():\n"
        "    model(torch.rand(2, 3))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not secret.exists()


@linux
def test_memory_ends_where_it_was_said_to(tmp_path: Path, worker: SubprocessWorker) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(
        scripted(FORWARD.format("x = x + torch.zeros(700000000).sum()"), tmp_path / "marker")
    )
    found = confined(worker, path, memory=2_000_000_000)
    assert "memory 2.0 GB" in found.applied
    opened = worker.open(request(path, ModelKind.TORCHSCRIPT))
    seen = worker.probe(ProbeRequest(single_model(opened.handle), CALL))
    assert isinstance(seen, Rejected)
    assert seen.out_of_memory


def test_what_is_confined_still_runs_a_model(tmp_path: Path, worker: SubprocessWorker) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(saved(nn.Linear(3, 2)))
    found = confined(worker, path)
    assert "no core file" in found.applied or sys.platform == "win32"
    opened = worker.open(request(path, ModelKind.PICKLED))
    assert isinstance(worker.probe(ProbeRequest(single_model(opened.handle), CALL)), Accepted)


def _emptied_after_a_change(path: Path, content: bytes) -> bytes:
    with admitted(request(path, ModelKind.PICKLED)) as archive:
        path.write_bytes(content)
        return checkpoint_skeleton(archive)


@linux
def test_a_file_that_changes_while_it_is_read_is_loaded_as_it_was_judged(tmp_path: Path) -> None:
    """A copy is judged and loaded, or what was read to be judged; the file may be anything by then."""
    path = tmp_path / "model.pt"
    path.write_bytes(saved(nn.Linear(3, 2)))
    with (
        admitted_whole(request(path, ModelKind.PICKLED)) as copy,
        admitted(request(path, ModelKind.PICKLED)) as archive,
    ):
        judged = archive.read("data.pkl")
        path.write_bytes(touching(tmp_path / "marker"))
        assert isinstance(torch.load(copy, weights_only=False), nn.Linear)
        assert archive.read("data.pkl") == judged
    path.write_bytes(saved(nn.Linear(3, 2)))
    with pytest.raises(CouldNotAttempt, match="damaged"):
        _emptied_after_a_change(path, touching(tmp_path / "marker"))
    assert not (tmp_path / "marker").exists()
