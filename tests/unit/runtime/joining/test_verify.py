"""Verifying a joined file: faults are found, also in large parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.commands.join import join
from composecli.commands.requests import CheckRequest, JoinRequest
from composecli.core.blueprint import Feed, Sequential, Stage
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.runtime.in_process import InProcessWorker
from composecli.runtime.joining import verify
from composecli.workers.protocol import (
    OpenRequest,
    ReferenceRequest,
    Training,
    Verified,
    VerifyRequest,
)
from tests.models import Shelf

WIDTH = 300
CALL = Call((Argument(TensorSpec("float32", (2, WIDTH))),))


class Twice(nn.Module):
    """Its large weight is used twice: the gradients of both uses are added."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.fc(x)))


class Regular(nn.Module):
    """Its large weight is used by more than a product."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH) / WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.weight * 2).t() + self.weight.sum()


def _nothing(_: torch.jit.ScriptModule) -> None:
    return


def _other_weight(module: torch.jit.ScriptModule) -> None:
    with torch.no_grad():
        next(iter(module.parameters()))[0, 0] += 1


def _no_gradient(module: torch.jit.ScriptModule) -> None:
    next(iter(module.parameters())).requires_grad_(False)


def _other_mode(module: torch.jit.ScriptModule) -> None:
    module.eval()


def _other_rounding(module: torch.jit.ScriptModule) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.nextafter(parameter, torch.tensor(torch.inf)))


def verified(
    shelf: Shelf, tmp_path: Path, first: nn.Module, change: Callable[..., None] = _nothing
) -> Verified:
    """Join a model and a head, change the file, and verify it against its parts."""
    one = shelf.save(f"verify_{type(first).__name__}", first)
    other = shelf.save("verify_head", nn.Linear(WIDTH, 5))
    joined = str(tmp_path / "joined.pt")
    worker = InProcessWorker()
    assert join(JoinRequest(CheckRequest((one, other)), joined), worker).written is not None
    module = torch.jit.load(joined)
    change(module)
    module.save(joined)
    fresh = InProcessWorker()
    for path in (one, other):
        asked = OpenRequest(
            FileReference(path),
            ModelKind.TORCHSCRIPT,
            "cpu",
            Training.SAVED,
            trusted=False,
            key=None,
        )
        fresh.ask(asked)
    expected = ReferenceRequest(Sequential((Stage(0), Stage(1, (Feed(),)))), (CALL, CALL), 0)
    return fresh.ask(VerifyRequest(joined, expected))


@pytest.mark.parametrize(
    "first", [nn.Linear(WIDTH, WIDTH), Twice(), Regular()], ids=lambda m: type(m).__name__
)
def test_a_file_that_does_what_its_parts_do_passes(
    shelf: Shelf, tmp_path: Path, first: nn.Module
) -> None:
    found = verified(shelf, tmp_path, first)
    assert found.passed, found.checks
    assert sum(check.name == "gradients" for check in found.checks) == 2


@pytest.mark.parametrize("room", [0, verify.MAX_BYTES_COMPARED_WHOLE])
@pytest.mark.parametrize(
    "first", [nn.Linear(WIDTH, WIDTH), Twice()], ids=lambda m: type(m).__name__
)
def test_gradients_may_differ_by_rounding(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: nn.Module, room: int
) -> None:
    monkeypatch.setattr(verify, "MAX_BYTES_COMPARED_WHOLE", room)
    found = verified(shelf, tmp_path, first, _other_rounding)
    assert found.passed, found.checks


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (_other_weight, {"outputs", "gradients"}),
        (_no_gradient, {"gradients"}),
        (_other_mode, {"training state"}),
    ],
)
@pytest.mark.parametrize(
    "first", [nn.Linear(WIDTH, WIDTH), Twice()], ids=lambda m: type(m).__name__
)
def test_a_file_that_does_something_else_fails(
    shelf: Shelf, tmp_path: Path, first: nn.Module, change: Callable[..., None], failed: set[str]
) -> None:
    found = verified(shelf, tmp_path, first, change)
    assert failed <= {check.name for check in found.checks if not check.passed}
