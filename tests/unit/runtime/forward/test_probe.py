"""Probes: the facts of a rejection, and no trace left in the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from composecli.core.blueprint import single_model
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.observations import Accepted, Detail, Rejected, RejectionKind, Remedy
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.protocol import OpenRequest, ProbeRequest, Training
from tests.models import Counter, Deep, Ids, NanCheck, Shelf
from tests.parsing import spec


def opened(
    path: str, *, form: str = "scripted", training: Training = Training.SAVED
) -> InProcessWorker:
    kind = {"pickled": ModelKind.PICKLED, "exported": ModelKind.EXPORTED}.get(
        form, ModelKind.TORCHSCRIPT
    )
    worker = InProcessWorker()
    worker.ask(OpenRequest(FileReference(path), kind, "cpu", training, trusted=True, key=None))
    return worker


def probe(
    worker: InProcessWorker, *texts: str, watch: bool = False, seed: int = 0
) -> Accepted | Rejected:
    call = Call(tuple(Argument(spec(text)) for text in texts))
    return worker.ask(
        ProbeRequest(single_model(0), call, seed, Detail.PARAMETER_OPS if watch else Detail.REASON)
    )


def state(worker: InProcessWorker) -> tuple[object, ...]:
    module = worker._models[0].module
    buffers = [(name, buffer.tolist()) for name, buffer in module.named_buffers()]
    flags = [inner.training for inner in module.modules()]
    return buffers, flags, getattr(module, "calls", None), torch.get_rng_state().tolist()


class Lister(nn.Module):
    """Appends to a list and adds an attribute on each call."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(10)
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.shape[0])
        self.last = x
        self.eval()
        return self.norm(x)


@pytest.mark.parametrize("form", ["scripted", "pickled"])
@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("counter", Counter()),
        ("norm_10", nn.BatchNorm1d(10)),
        ("dropout", nn.Sequential(nn.Dropout(), nn.ReLU())),
    ],
)
@pytest.mark.parametrize("watch", [True, False])
def test_a_probe_leaves_nothing_behind(
    shelf: Shelf, name: str, module: nn.Module, form: str, watch: bool
) -> None:
    worker = opened(shelf.save(name, module, form), form=form)
    before = state(worker)
    assert isinstance(probe(worker, "float32[4, 10]", watch=watch), Accepted)
    probe(worker, "float32[4, 11, 3]", watch=watch)
    probe(worker, "float32[1, 10]", watch=watch)
    assert state(worker) == before


def test_attributes_that_python_code_changes_are_restored(shelf: Shelf) -> None:
    worker = opened(shelf.save("lister", Lister(), "pickled"), form="pickled")
    module = worker._models[0].module
    assert isinstance(probe(worker, "float32[4, 10]"), Accepted)
    assert module.seen == []
    assert not hasattr(module, "last")
    assert module.training
    assert module.norm.num_batches_tracked.item() == 0
    assert not any(inner._forward_hooks or inner._forward_pre_hooks for inner in module.modules())


class Shrinking(nn.Module):
    """A window that shrinks after a smaller input, and then rejects the original one."""

    def __init__(self) -> None:
        super().__init__()
        self.window = 100

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.size(1) <= self.window
        self.window = x.size(1)
        return x


@pytest.mark.parametrize("form", ["scripted", "pickled"])
def test_each_probe_runs_the_model_as_it_was_saved(shelf: Shelf, form: str) -> None:
    worker = opened(shelf.save("shrinking", Shrinking(), form), form=form)
    for size in (50, 20, 50, 100):
        assert isinstance(probe(worker, f"float32[2, {size}]"), Accepted)
    assert isinstance(probe(worker, "float32[2, 101]"), Rejected)


class Writing(nn.Module):
    """Its forward writes to a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.fc.weight.add_(1)
        return self.fc(x)


def test_a_forward_that_writes_to_parameters_is_reported(shelf: Shelf) -> None:
    from composecli.core.errors import CouldNotAttempt

    worker = opened(shelf.save("writing", Writing()))
    before = torch.jit.load(str(shelf.path("writing", "scripted"))).fc.weight
    with pytest.raises(CouldNotAttempt, match="modifies the model's own parameters"):
        probe(worker, "float32[2, 3]")
    assert torch.equal(worker._models[0].module.fc.weight, before)


@pytest.mark.parametrize("form", ["scripted", "pickled", "traced"])
def test_a_rejection_has_the_submodule_the_op_and_its_tensors(shelf: Shelf, form: str) -> None:
    worker = opened(shelf.save("deep_8", Deep(8), form, (torch.rand(2, 5),)), form=form)
    rejected = probe(worker, "float32[2, 7]")
    assert isinstance(rejected, Rejected)
    assert rejected.module == "fc1"
    assert rejected.op == "aten::addmm"
    assert TensorSpec("float32", (2, 10)) in rejected.tensors
    assert rejected.remedies == ()


def test_a_rejection_without_parameters_has_the_line_of_code(shelf: Shelf) -> None:
    class Views(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(-1, 7)

    rejected = probe(opened(shelf.save("views", Views())), "float32[2, 5]")
    assert isinstance(rejected, Rejected)
    assert "view" in (rejected.code or "")
    assert rejected.op == "aten::view"


@pytest.mark.parametrize(
    ("name", "make", "form", "text", "zeros", "in_eval"),
    [
        ("nan_check", NanCheck, "pickled", "float32[2, 5]", True, False),
        ("norm_10", lambda: nn.BatchNorm1d(10), "scripted", "float32[1, 10]", False, True),
        ("ids", Ids, "scripted", "float32[2, 2]", None, None),
        ("five", lambda: nn.Linear(5, 2), "scripted", "float32[2, 4]", False, False),
    ],
)
def test_remedies_distinguish_values_and_modes_from_shapes(
    shelf: Shelf,
    name: str,
    make: Callable[[], nn.Module],
    form: str,
    text: str,
    zeros: bool | None,
    in_eval: bool | None,
) -> None:
    observation = probe(opened(shelf.save(name, make(), form), form=form), text)
    if zeros is None:
        assert isinstance(observation, Accepted)
        return
    assert isinstance(observation, Rejected)
    assert (Remedy.ZEROS in observation.remedies, Remedy.EVAL_MODE in observation.remedies) == (
        zeros,
        in_eval,
    )


def test_probes_are_seeded(shelf: Shelf) -> None:
    worker = opened(shelf.save("counter", Counter()))
    torch.manual_seed(1)
    one = probe(worker, "float32[2, 10]")
    torch.manual_seed(2)
    assert probe(worker, "float32[2, 10]") == one


def test_parameter_ops_are_recorded_on_request(shelf: Shelf) -> None:
    worker = opened(
        shelf.save("relu_mlp", nn.Sequential(nn.ReLU(), nn.Linear(10, 8), nn.Linear(8, 5)))
    )
    accepted = probe(worker, "float32[2, 10]", watch=True)
    assert isinstance(accepted, Accepted)
    assert [(recorded.op, recorded.parameter) for recorded in accepted.parameter_ops] == [
        ("addmm", "1.weight"),
        ("addmm", "2.weight"),
    ]
    assert not probe(worker, "float32[2, 10]").parameter_ops


def test_running_out_of_memory_is_not_an_error_of_the_model(shelf: Shelf) -> None:
    class Huge(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.zeros(1 << 24, 1 << 24, dtype=torch.float64).sum()

    rejected = probe(opened(shelf.save("huge", Huge())), "float32[2]")
    assert isinstance(rejected, Rejected)
    assert rejected.kind is RejectionKind.OUT_OF_MEMORY


def test_the_result_of_a_model_is_a_tree(shelf: Shelf) -> None:
    class Nested(nn.Module):
        def forward(
            self, x: torch.Tensor
        ) -> tuple[list[torch.Tensor], dict[str, torch.Tensor], int]:
            return [x, x], {"a": x}, 3

    accepted = probe(opened(shelf.save("nested", Nested())), "float32[2, 5]")
    assert isinstance(accepted, Accepted)
    assert "a" in str(accepted.result)
    assert "Literal(value=3)" in repr(accepted.result)
