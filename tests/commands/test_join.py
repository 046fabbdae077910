"""The files that join writes: verified, differentiable, and with their parameters shared."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.runtime.in_process import InProcessWorker
from composecli.workers.protocol import (
    ReferenceRequest,
    VerifyRequest,
)
from tests.commands.running import Composecli, Installed
from tests.models import Argmax, Counter, Shelf, Tied


def load(name: str) -> torch.jit.ScriptModule:
    return torch.jit.load(name)


def test_the_join_does_what_its_parts_do(composecli: Composecli, shelf: Shelf, here: Path) -> None:
    parts = [
        shelf.save("mlp", nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 5))),
        shelf.save("five", nn.Linear(5, 2), "pickled"),
    ]
    assert composecli("join", *parts, "-o", "both.pt").code == 0
    x = torch.rand(6, 10)
    by_hand = torch.load(parts[1], weights_only=False)(load(parts[0])(x))
    torch.testing.assert_close(load("both.pt")(x), by_hand)


def test_the_join_is_differentiable(composecli: Composecli, shelf: Shelf, here: Path) -> None:
    composecli(
        "join",
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("five", nn.Linear(5, 2)),
        "-o",
        "both.pt",
    )
    joined = load("both.pt")
    joined(torch.rand(4, 10)).sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in joined.parameters()
    )


def test_a_seam_that_cuts_gradients_is_noted(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    first = shelf.save("linear", nn.Linear(10, 5))
    joined = composecli("join", first, shelf.save("argmax", Argmax()), "-o", "both.pt")
    assert joined.code == 0
    assert "CC501" in joined.out
    assert "part_0.weight" in joined.out


def test_the_same_file_twice_is_one_copy(composecli: Composecli, shelf: Shelf, here: Path) -> None:
    square = shelf.save("square", nn.Linear(5, 5))
    assert composecli("join", square, square, "-o", "both.pt").code == 0
    joined = load("both.pt")
    assert len(list(joined.parameters())) == 2
    first = load(square)
    x = torch.rand(2, 5)
    torch.testing.assert_close(joined(x), first(first(x)))


@pytest.mark.parametrize("form", ["scripted", "traced", "pickled", "exported"])
def test_shared_parameters_stay_shared(
    composecli: Composecli, shelf: Shelf, here: Path, form: str
) -> None:
    tied = shelf.save("tied", Tied(), form, (torch.rand(2, 5),))
    trust = ["--trust", tied] if form == "pickled" else []
    joined = composecli("join", tied, shelf.save("relu", nn.ReLU()), "-o", "both.pt", *trust)
    assert joined.code == 0, joined.out + joined.err
    module = load("both.pt")
    assert sum(parameter.numel() for parameter in set(module.parameters())) == 5 * 5 + 5 + 5


@pytest.mark.parametrize("form", ["scripted", "traced", "pickled"])
@pytest.mark.parametrize("training", ["eval", "train", "saved"])
def test_a_join_says_in_which_mode_the_file_is(
    installed: Installed, shelf: Shelf, here: Path, form: str, training: str
) -> None:
    dropout = nn.Sequential(nn.Linear(10, 5), nn.Dropout(0.0))
    a = shelf.save("dropout", dropout, form, (torch.rand(2, 10),))
    words = ("join", a, shelf.save("five", nn.Linear(5, 2)), "-o", "both.pt", "--force")
    joined = installed.json(*words, "--training", training)
    assert joined.code == 0
    written = [note["title"] for note in joined.json["written"]["notes"] if note["code"] == "CC506"]
    if training == "saved":
        assert written == []
        return
    title = f"the written file is in {training} mode, because of --training {training}"
    assert written == [title]
    assert f"note[CC506]: {title}" in installed(*words, "--training", training).out
    modes = {module.training for module in load("both.pt").modules()}
    assert modes == {training == "train"}


def test_inputs_are_never_changed(composecli: Composecli, shelf: Shelf, here: Path) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2), "pickled")
    before = [Path(path).read_bytes() for path in (a, b)]
    composecli("join", a, b, "-o", "both.pt")
    assert [Path(path).read_bytes() for path in (a, b)] == before
    for name in (a, f"{os.path.dirname(a)}/../{Path(a).parent.name}/{Path(a).name}"):
        refused = composecli("join", a, b, "-o", name, "--force")
        assert refused.code == 2
        assert "CC920" in refused.err
    os.link(a, here / "hard.pt")
    os.symlink(b, here / "soft.pt")
    for name in ("hard.pt", "soft.pt"):
        assert composecli("join", a, b, "-o", name, "--force").code == 2
    assert [Path(path).read_bytes() for path in (a, b)] == before


def test_an_existing_output_is_kept_unless_forced(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    Path("both.pt").write_text("mine")
    kept = composecli("join", a, b, "-o", "both.pt")
    assert kept.code == 2
    assert "CC919" in kept.err
    assert "help: -o both-2.pt is free\n  help: --force replaces the file" in kept.err
    assert Path("both.pt").read_text() == "mine"
    os.chmod("both.pt", 0o640)
    os.symlink("both.pt", "link.pt")
    assert composecli("join", a, b, "-o", "link.pt", "--force").code == 0
    assert Path("link.pt").is_symlink()
    assert Path("both.pt").stat().st_mode & 0o777 == 0o640
    assert load("both.pt")(torch.rand(2, 10)).shape == (2, 2)


IMPOSSIBLE = [
    ("no/such/both.pt", 3, "CC921"),
    ("x" * 300 + ".pt", 3, "CC921"),
    ("nul\0l.pt", 3, "CC921"),
    (".", 2, "CC951"),
    ("folder/", 2, "CC951"),
    ("no/such/folder/", 2, "CC951"),
    ("pipe", 2, "CC951"),
    ("both.pt2", 2, "CC952"),
    ("no/such/both.PT2", 2, "CC952"),
    ("both.onnx", 2, "CC952"),
]


@pytest.mark.parametrize(("name", "exit_code", "code"), IMPOSSIBLE)
def test_an_impossible_output_is_refused_first(
    composecli: Composecli, here: Path, name: str, exit_code: int, code: str
) -> None:
    os.mkfifo("pipe")
    os.mkdir("folder")
    refused = composecli("join", "a.pt", "b.pt", "-o", name, "--force")
    assert refused.code == exit_code
    assert code in refused.err
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_the_same_seed_gives_the_same_parameters(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("narrow", nn.Linear(3, 2))
    for name, seed in (("one.pt", 3), ("two.pt", 3), ("other.pt", 4)):
        torch.rand(3)
        composecli("join", a, b, "--bridge", "linear", "--seed", seed, "-o", name)
    one, two, other = (
        dict(load(name).named_parameters()) for name in ("one.pt", "two.pt", "other.pt")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["bridge_0.weight"], other["bridge_0.weight"])


@pytest.mark.parametrize("training", ["saved", "eval", "train"])
def test_the_training_state_is_kept_or_set(
    composecli: Composecli, shelf: Shelf, here: Path, training: str
) -> None:
    dropout = shelf.save("dropout_eval", nn.Sequential(nn.Linear(10, 5), nn.Dropout(0.5)).eval())
    norm = shelf.save("norm", nn.BatchNorm1d(5))
    assert composecli("join", dropout, norm, "-o", "both.pt", "--training", training).code == 0
    joined = load("both.pt")
    flags = {"saved": (False, True), "eval": (False, False), "train": (True, True)}[training]
    assert (joined.part_0.training, joined.part_1.training) == flags


def test_a_model_with_state_joins_as_it_is(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    counter = shelf.save("counter", Counter())
    assert (
        composecli("join", counter, shelf.save("five", nn.Linear(5, 2)), "-o", "both.pt").code == 0
    )
    assert load("both.pt").part_0.seen.item() == 0


def test_a_joined_file_joins_again(composecli: Composecli, shelf: Shelf, here: Path) -> None:
    composecli(
        "join",
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("five", nn.Linear(5, 2)),
        "-o",
        "one.pt",
    )
    assert (
        composecli("join", "one.pt", shelf.save("two", nn.Linear(2, 1)), "-o", "all.pt").code == 0
    )
    assert load("all.pt")(torch.rand(2, 10)).shape == (2, 1)


def test_verification_catches_a_file_that_differs(shelf: Shelf, here: Path) -> None:
    """Neither a file with other weights nor one with cut gradients passes."""
    from composecli.core.blueprint import Sequential, Stage, single_model
    from composecli.core.model_ref import FileReference, ModelKind
    from composecli.core.pytree import Argument, Call, TensorSpec
    from composecli.workers.protocol import OpenRequest, Training

    class Held(nn.Module):
        def __init__(self, part: nn.Module) -> None:
            super().__init__()
            self.part_0 = part

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.part_0(x)

    class Cut(Held):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.part_0(x).detach()

    worker = InProcessWorker()
    original = shelf.save("linear", nn.Linear(10, 5))
    opened = worker.ask(
        OpenRequest(
            FileReference(original),
            ModelKind.TORCHSCRIPT,
            "cpu",
            Training.SAVED,
            trusted=False,
            key=None,
        )
    )
    call = Call((Argument(TensorSpec("float32", (2, 10))),))
    right = torch.jit.load(original)
    cases = {"right.pt": Held(right), "other.pt": Held(nn.Linear(10, 5)), "cut.pt": Cut(right)}
    failed = {}
    for name, module in cases.items():
        torch.jit.script(module).save(name)
        verified = worker.ask(
            VerifyRequest(name, ReferenceRequest(single_model(opened.handle), (call,), 0))
        )
        failed[name] = [check.name for check in verified.checks if not check.passed]
    assert failed["right.pt"] == []
    assert failed["other.pt"][:1] == ["outputs"]
    assert failed["cut.pt"] == ["gradients"]
    Path("broken.pt").write_bytes(b"PK nothing")
    broken = worker.ask(
        VerifyRequest(
            "broken.pt", ReferenceRequest(Sequential((Stage(opened.handle),)), (call,), 0)
        )
    )
    assert not broken.passed
