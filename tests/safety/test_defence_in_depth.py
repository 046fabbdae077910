"""Each layer of defence holds on its own, without the layers before it."""

from __future__ import annotations

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
from composecli.core.observations import Accepted, Observation, Rejected
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.files.checkpoint_archive import checkpoint_skeleton
from composecli.runtime.loading import load
from composecli.runtime.loading.admission import admit, admit_copy, no_scan
from composecli.workers.child import SubprocessWorker
from composecli.workers.protocol import (
    Measure,
    MeasureKind,
    OpenRequest,
    ProbeRequest,
    Sandbox,
    SandboxRequest,
    Training,
)
from tests.commands.running import environment
from tests.safety.fixtures import saved, scripted, touching
from tests.safety.test_threats import FORWARD, STATE

WRITE = "torch.save(torch.ones(1), MARK)"
CALL = Call((Argument(TensorSpec("float32", (2, 3))),))
linux = pytest.mark.skipif(sys.platform != "linux", reason="these measures exist only on Linux")


def request(path: Path, kind: ModelKind, *, trusted: bool = False) -> OpenRequest:
    return OpenRequest(
        FileReference(str(path)), kind, "cpu", Training.SAVED, trusted=trusted, key=None
    )


@pytest.fixture(scope="module")
def _landlock() -> None:
    """Skip the test if the kernel has no Landlock."""
    worker = SubprocessWorker(60)
    try:
        sandbox = confine(worker)
    finally:
        worker.close()
    if not sandbox.restricts_files:
        pytest.skip("the kernel has no Landlock")


@pytest.fixture
def worker() -> Iterator[SubprocessWorker]:
    child = SubprocessWorker(60)
    yield child
    child.close()


def confine(worker: SubprocessWorker, *read: Path, memory: int | None = None) -> Sandbox:
    return worker.ask(SandboxRequest(tuple(map(str, read)), (), memory, 60, files=True))


def run_once(worker: SubprocessWorker, request: OpenRequest) -> Observation:
    """Open the model, and probe it once."""
    handle = worker.ask(request).handle
    return worker.ask(ProbeRequest(single_model(handle), CALL))


@pytest.mark.parametrize(
    "body", [STATE.format(set=WRITE, get="pass"), FORWARD.format("torch.save(x, MARK)")]
)
def test_worker_scans_files_that_the_command_did_not(tmp_path: Path, body: str) -> None:
    """The command compiles no code; the worker scans again, in this process as in a child."""
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    path.write_bytes(scripted(body, marker))
    marker.unlink(missing_ok=True)
    with pytest.raises(CouldNotAttempt) as caught:
        load(request(path, ModelKind.TORCHSCRIPT))
    assert caught.value.problem.code == "CC926"
    assert not marker.exists()


def test_unscanned_pickle_is_refused_by_the_loader_and_by_torch(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    path.write_bytes(touching(marker))
    with pytest.raises(CouldNotAttempt):
        load(request(path, ModelKind.PICKLED))
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        torch.load(path, weights_only=True)
    assert not marker.exists()


@pytest.mark.parametrize("body", [STATE.format(set=WRITE, get="pass"), FORWARD.format(WRITE)])
def test_fixture_writes_a_file_if_nothing_prevents_it(tmp_path: Path, body: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    path.write_bytes(scripted(body, marker))
    marker.unlink(missing_ok=True)
    torch.jit.load(str(path))(torch.rand(2, 3))
    assert marker.exists()


@linux
@pytest.mark.usefixtures("_landlock")
@pytest.mark.parametrize("when", ["at load", "in a forward"])
def test_landlock_prevents_writing_a_file(
    tmp_path: Path, worker: SubprocessWorker, when: str
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    body = STATE.format(set=WRITE, get="pass") if when == "at load" else FORWARD.format(WRITE)
    path.write_bytes(scripted(body, marker))
    marker.unlink(missing_ok=True)
    confine(worker, path)
    run_once(worker, request(path, ModelKind.TORCHSCRIPT, trusted=True))
    assert not marker.exists()


@linux
@pytest.mark.usefixtures("_landlock")
def test_landlock_prevents_truncating_a_file(tmp_path: Path, worker: SubprocessWorker) -> None:
    precious, path = tmp_path / "precious", tmp_path / "model.pt"
    path.write_bytes(scripted(FORWARD.format("torch.save(x, MARK)"), precious))
    precious.write_text("precious")
    confine(worker, path)
    run_once(worker, request(path, ModelKind.TORCHSCRIPT, trusted=True))
    assert precious.read_text() == "precious"


@linux
@pytest.mark.usefixtures("_landlock")
def test_landlock_prevents_reading_other_files(tmp_path: Path, worker: SubprocessWorker) -> None:
    secret, path = tmp_path / "secret", tmp_path / "model.pt"
    path.write_bytes(scripted(FORWARD.format("x = x + torch.from_file(MARK, False, 3)"), secret))
    secret.write_bytes(b"\0" * 12)
    confine(worker, path)
    observation = run_once(worker, request(path, ModelKind.TORCHSCRIPT, trusted=True))
    assert isinstance(observation, Rejected)


@linux
def test_probe_opens_no_file_without_landlock(tmp_path: Path) -> None:
    """Only the limit of open files applies, in a process without Landlock."""
    secret, path = tmp_path / "secret", tmp_path / "model.pt"
    path.write_bytes(scripted(FORWARD.format("torch.save(x, MARK)"), secret))
    secret.unlink(missing_ok=True)
    code = (
        "import sys, torch\nfrom composecli.runtime.sandbox import forbid_opening_files\n"
        f"model = torch.jit.load({str(path)!r})\nwith forbid_opening_files():\n"
        "    model(torch.rand(2, 3))\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
    assert not secret.exists()


@linux
def test_memory_is_limited(tmp_path: Path, worker: SubprocessWorker) -> None:
    path = tmp_path / "model.pt"
    body = FORWARD.format("x = x + torch.zeros(700000000).sum()")
    path.write_bytes(scripted(body, tmp_path / "marker"))
    sandbox = confine(worker, path, memory=2_000_000_000)
    assert Measure(MeasureKind.MEMORY_LIMIT, "2.0 GB") in sandbox.applied
    observation = run_once(worker, request(path, ModelKind.TORCHSCRIPT))
    assert isinstance(observation, Rejected)
    assert observation.out_of_memory


def test_confined_worker_still_runs_a_model(tmp_path: Path, worker: SubprocessWorker) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(saved(nn.Linear(3, 2)))
    sandbox = confine(worker, path)
    assert Measure(MeasureKind.NO_CORE_FILE) in sandbox.applied or sys.platform == "win32"
    assert isinstance(run_once(worker, request(path, ModelKind.PICKLED)), Accepted)


def _skeleton_after_a_change(path: Path, content: bytes) -> bytes:
    """Return what is loaded of a file that is replaced after it was scanned."""
    with admit(request(path, ModelKind.PICKLED), no_scan) as archive:
        path.write_bytes(content)
        return checkpoint_skeleton(archive, archive.pickle("data.pkl").value)


@linux
def test_file_that_changes_after_the_scan_is_loaded_as_it_was_scanned(tmp_path: Path) -> None:
    """The loader reads a copy, or the bytes that were scanned, and never the file again."""
    path = tmp_path / "model.pt"
    path.write_bytes(saved(nn.Linear(3, 2)))
    with (
        admit_copy(request(path, ModelKind.PICKLED), no_scan) as copy,
        admit(request(path, ModelKind.PICKLED), no_scan) as archive,
    ):
        scanned = archive.read("data.pkl")
        path.write_bytes(touching(tmp_path / "marker"))
        assert isinstance(torch.load(copy, weights_only=False), nn.Linear)
        assert archive.read("data.pkl") == scanned
    path.write_bytes(saved(nn.Linear(3, 2)))
    with pytest.raises(CouldNotAttempt, match="damaged"):
        _skeleton_after_a_change(path, touching(tmp_path / "marker"))
    assert not (tmp_path / "marker").exists()
