"""What a caching worker asks the real worker, and when it starts it."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from composecli.core.blueprint import single_model
from composecli.core.facts import ModelFacts
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.observations import Accepted, Observation, Read, Rejected, RejectionKind
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.core.slices import Followed
from composecli.workers.cache_store import Cache
from composecli.workers.caching import CachingWorker
from composecli.workers.protocol import (
    FollowRequest,
    Measure,
    MeasureKind,
    Opened,
    OpenRequest,
    ProbeRequest,
    R,
    Request,
    Sandbox,
    SandboxRequest,
    Training,
)

SPEC = TensorSpec("float32", (2, 3))
CALL = Call((Argument(SPEC),))
LARGER = Call((Argument(replace(SPEC, sizes=(4, 3))),))
ACCEPTED = Accepted((SPEC,), "cpu")
FACTS = ModelFacts(
    class_name="Linear",
    arguments=(),
    training="eval",
    layers=(),
    parameters=8,
    trainable=8,
    size=32,
    dtypes=("float32",),
    devices=("cpu",),
    shared=(),
)
SANDBOX = SandboxRequest((), (), 1000, 30.0, files=True)


class Recorder:
    """A worker without torch: it records its requests, and gives the same observation each time."""

    parallelism = 1

    def __init__(self, observation: Observation | Followed = ACCEPTED) -> None:
        self.requests = list[Request[Any]]()
        self.observation = observation
        self.opened = 0

    def ask(self, request: Request[R]) -> R:
        self.requests.append(request)
        reply: R = self._reply(request)
        return reply

    def _reply(self, request: Request[Any]) -> Any:
        if isinstance(request, OpenRequest):
            self.opened += 1
            return Opened(self.opened - 1, FACTS)
        if isinstance(request, SandboxRequest):
            return Sandbox((Measure(MeasureKind.LANDLOCK, "4"),), ())
        return self.observation

    def close(self) -> None:
        pass

    @property
    def kinds(self) -> list[str]:
        return [type(request).__name__ for request in self.requests]


class Run:
    """One command: a caching worker over the folder, and the real workers that it started."""

    def __init__(self, folder: Path, observation: Observation | Followed = ACCEPTED) -> None:
        self.started = list[Recorder]()
        self.observation = observation
        self.worker = CachingWorker(self.start, Cache(folder / "cache", "1"))

    def start(self) -> Recorder:
        self.started.append(Recorder(self.observation))
        return self.started[-1]

    def probe(self, path: Path, call: Call = CALL) -> Observation:
        """Open the file, probe it once, and end the command."""
        self.worker.prepare([str(path)])
        handle = self.worker.ask(open_request(path)).handle
        observation = self.worker.ask(ProbeRequest(single_model(handle), call))
        self.worker.close()
        return observation

    def follow(self, path: Path) -> Followed:
        """Open the file, follow its slices once, and end the command."""
        handle = self.worker.ask(open_request(path)).handle
        followed = self.worker.ask(FollowRequest(single_model(handle), CALL, ()))
        self.worker.close()
        return followed


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "model.pt", b"weights")


def write_archive(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/version", "3\n")
        archive.writestr("model/data.pkl", b"\x80\x02}.")
        archive.writestr("model/data/0", data)
    return path


def open_request(path: Path) -> OpenRequest:
    return OpenRequest(
        FileReference(str(path)),
        ModelKind.TORCHSCRIPT,
        "cpu",
        Training.SAVED,
        trusted=False,
        key=None,
    )


def test_second_run_starts_no_worker(tmp_path: Path, model: Path) -> None:
    first, second = Run(tmp_path), Run(tmp_path)
    assert first.probe(model) == ACCEPTED
    assert first.started[0].kinds == ["OpenRequest", "ProbeRequest"]
    assert second.probe(model) == ACCEPTED
    assert not second.started


def test_worker_of_an_unknown_file_starts_early(tmp_path: Path, model: Path) -> None:
    run = Run(tmp_path)
    run.worker.prepare([str(model)])
    assert len(run.started) == 1


def test_missing_answer_starts_the_worker_with_all_earlier_requests(
    tmp_path: Path, model: Path
) -> None:
    first = Run(tmp_path)
    first.worker.ask(SANDBOX)
    first.probe(model)
    second = Run(tmp_path)
    assert second.worker.ask(SANDBOX) == first.worker.ask(SANDBOX)
    handle = second.worker.ask(open_request(model)).handle
    assert not second.started
    second.worker.ask(ProbeRequest(single_model(handle), LARGER))
    assert second.started[0].kinds == ["SandboxRequest", "OpenRequest", "ProbeRequest"]


@pytest.mark.parametrize("kind", RejectionKind)
def test_rejections_by_the_state_of_the_machine_are_not_cached(
    tmp_path: Path, model: Path, kind: RejectionKind
) -> None:
    rejected = Rejected(0, "RuntimeError", "no", "cpu", kind=kind)
    Run(tmp_path, ACCEPTED).probe(model, LARGER)
    Run(tmp_path, rejected).probe(model)
    again = Run(tmp_path, ACCEPTED)
    is_cached = again.probe(model) == rejected
    depends_on_machine = kind in (RejectionKind.OUT_OF_MEMORY, RejectionKind.WORKER_DIED)
    assert is_cached == (not depends_on_machine)


@pytest.mark.parametrize("kind", [None, *RejectionKind])
def test_slices_are_followed_again_only_if_the_machine_prevented_it(
    tmp_path: Path, model: Path, kind: RejectionKind | None
) -> None:
    Run(tmp_path).probe(model)
    Run(tmp_path, Followed((), 2, failed="no", kind=kind)).follow(model)
    again = Run(tmp_path, Followed((), 2))
    is_cached = again.follow(model).failed == "no"
    depends_on_machine = kind in (RejectionKind.OUT_OF_MEMORY, RejectionKind.WORKER_DIED)
    assert is_cached == (not depends_on_machine)
    assert bool(again.started) == depends_on_machine


def test_model_that_never_ran_is_not_cached(tmp_path: Path, model: Path) -> None:
    Run(tmp_path, Rejected(0, "RuntimeError", "no", "cpu")).probe(model)
    assert Run(tmp_path, ACCEPTED).probe(model) == ACCEPTED


@pytest.mark.parametrize("change", [{"files": False}, {"memory": 3 * 10**9}])
def test_answers_hold_for_one_sandbox(tmp_path: Path, model: Path, change: Any) -> None:
    for request in (SANDBOX, replace(SANDBOX, **change)):
        run = Run(tmp_path)
        run.worker.ask(request)
        run.probe(model)
        assert "ProbeRequest" in run.started[0].kinds
    unconfined = Run(tmp_path)
    unconfined.probe(model)
    assert "ProbeRequest" in unconfined.started[0].kinds


def test_observation_that_read_a_record_is_found_only_with_the_same_record(
    tmp_path: Path, model: Path
) -> None:
    """The archive's directory may be the same: this test keeps the checksum of the old record."""
    accepted = replace(ACCEPTED, read=(Read(0, "read for aten::index", ("data/0",)),))
    Run(tmp_path, accepted).probe(model)
    same = Run(tmp_path)
    assert same.probe(model) == accepted
    assert not same.started
    model.write_bytes(model.read_bytes().replace(b"weights", b"WEIGHTS"))
    other = Run(tmp_path)
    assert other.probe(model) == ACCEPTED
    assert other.started


def test_samples_are_never_answered_from_the_cache(tmp_path: Path, model: Path) -> None:
    sample = Call((Argument(replace(SPEC, sample=0)),))
    for _ in range(2):
        run = Run(tmp_path)
        handle = run.worker.ask(open_request(model)).handle
        run.worker.ask(ProbeRequest(single_model(handle), sample))
        run.worker.close()
        assert run.started


def test_file_that_changed_during_the_run_is_not_cached(tmp_path: Path, model: Path) -> None:
    run = Run(tmp_path)
    handle = run.worker.ask(open_request(model)).handle
    run.worker.ask(ProbeRequest(single_model(handle), CALL))
    write_archive(model, b"other weights")
    run.worker.close()
    write_archive(model, b"weights")
    again = Run(tmp_path)
    again.probe(model)
    assert again.started
