"""Confinement: what the worker is asked to give up, and what happens if it cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from composecli.commands.confinement import confine
from composecli.commands.requests import Limits, Options
from composecli.commands.resolve import Target
from composecli.commands.trust import Trust
from composecli.core.errors import CouldNotAttempt
from composecli.core.input_spec import parse_input
from composecli.core.model_ref import FactoryReference, FileReference, ModelKind
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.protocol import Isolation, R, Request, Sandbox, SandboxRequest

SCRIPTED = Target(FileReference("a.pt"), ModelKind.TORCHSCRIPT, None)
TRUSTED = Target(FileReference("b.pt"), ModelKind.PICKLED, None, Trust("b.pt"))
FACTORY = Target(FactoryReference("net", "make", "w.pt"), ModelKind.FACTORY, None)


class OnSystem(InProcessWorker):
    """A worker on a system that lacks some measures."""

    def __init__(self, *unavailable: str) -> None:
        super().__init__()
        self.unavailable = unavailable
        self.requests = list[SandboxRequest]()

    def ask(self, request: Request[R]) -> R:
        if not isinstance(request, SandboxRequest):
            return super().ask(request)
        self.requests.append(request)
        return Sandbox((), self.unavailable)  # type: ignore[return-value]


def request(options: Options, *targets: Target) -> SandboxRequest:
    """The request that a worker gets for these models."""
    worker = OnSystem()
    confine(worker, options, targets, ("/out",))
    (asked,) = worker.requests
    return asked


def test_the_worker_keeps_its_files_the_samples_and_the_output(here: Path) -> None:
    Path("link.pt").symlink_to("a.pt")
    options = Options(inputs=(parse_input("@sample.pt"), parse_input("2,3")))
    asked = request(options, Target(FileReference("link.pt"), ModelKind.TORCHSCRIPT, None))
    assert asked.read == (str(here / "a.pt"), str(here / "sample.pt"))
    assert asked.write == ("/out",)


@pytest.mark.parametrize(
    ("targets", "confined"),
    [
        ((SCRIPTED,), True),
        ((SCRIPTED, SCRIPTED), True),
        # Trusted code, and a factory, may open other files.
        ((SCRIPTED, TRUSTED), False),
        ((FACTORY,), False),
    ],
)
def test_files_are_given_up_unless_a_model_may_need_others(
    targets: tuple[Target, ...], confined: bool
) -> None:
    assert request(Options(), *targets).files is confined


def test_memory_is_limited_to_most_of_the_machine() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = request(Options(), SCRIPTED).memory
    assert memory is not None
    assert total * 0.7 < memory < total * 0.9


def test_limits_are_those_of_the_user() -> None:
    limits = Limits(memory=5 * 10**8, seconds=7.0)
    asked = request(Options(limits=limits), SCRIPTED)
    assert (asked.memory, asked.seconds) == (5 * 10**8, 7.0)


def test_memory_is_not_limited_on_a_gpu() -> None:
    """Its driver maps more addresses than there is memory."""
    assert request(Options(device="cuda:1", limits=Limits(memory=10**9)), SCRIPTED).memory is None
    assert request(Options(device="meta", limits=Limits(memory=10**9)), SCRIPTED).memory == 10**9


def test_a_missing_measure_is_reported_or_refused() -> None:
    worker = OnSystem("the kernel has no Landlock")
    sandbox = confine(worker, Options(), (SCRIPTED,))
    assert sandbox is not None
    assert sandbox.unavailable == ("the kernel has no Landlock",)
    required = Options(limits=Limits(isolation=Isolation.REQUIRED))
    with pytest.raises(CouldNotAttempt, match="isolation") as caught:
        confine(worker, required, (SCRIPTED,))
    assert caught.value.problem.notes == ("the kernel has no Landlock",)
    assert confine(OnSystem(), required, (SCRIPTED,)) == Sandbox((), ())


def test_without_isolation_the_worker_is_not_asked() -> None:
    worker = OnSystem()
    assert confine(worker, Options(limits=Limits(isolation=Isolation.NONE)), (SCRIPTED,)) is None
    assert worker.requests == []
