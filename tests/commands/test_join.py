"""What join writes: whole, verified, differentiable, sharing what was shared, and only where it may."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.protocol import Check, ReferenceRequest, Verified, VerifyRequest
from tests.commands.running import Composecli, environment
from tests.models import Argmax, Counter, DictOutput, Shelf, Tied
from tests.schema import validator


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


def test_inputs_are_never_changed(composecli: Composecli, shelf: Shelf, here: Path) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2), "pickled")
    before = [Path(path).read_bytes() for path in (a, b)]
    composecli("join", a, b, "-o", "both.pt")
    assert [Path(path).read_bytes() for path in (a, b)] == before
    for name in (a, f"{os.path.dirname(a)}/../{Path(a).parent.name}/{Path(a).name}"):
        refused = composecli("join", a, b, "-o", name, "--force")
        assert refused.code == 3
        assert "CC920" in refused.err
    os.link(a, here / "hard.pt")
    os.symlink(b, here / "soft.pt")
    for name in ("hard.pt", "soft.pt"):
        assert composecli("join", a, b, "-o", name, "--force").code == 3
    assert [Path(path).read_bytes() for path in (a, b)] == before


def test_an_existing_output_is_kept_unless_forced(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    Path("both.pt").write_text("mine")
    kept = composecli("join", a, b, "-o", "both.pt")
    assert kept.code == 3
    assert "CC919" in kept.err
    assert Path("both.pt").read_text() == "mine"
    os.chmod("both.pt", 0o640)
    os.symlink("both.pt", "link.pt")
    assert composecli("join", a, b, "-o", "link.pt", "--force").code == 0
    assert Path("link.pt").is_symlink()
    assert Path("both.pt").stat().st_mode & 0o777 == 0o640
    assert load("both.pt")(torch.rand(2, 10)).shape == (2, 2)


@pytest.mark.parametrize("name", ["no/such/both.pt", ".", "pipe", "x" * 300 + ".pt", "nul\0l.pt"])
def test_an_output_that_cannot_be_is_refused_first(
    composecli: Composecli, shelf: Shelf, here: Path, name: str
) -> None:
    os.mkfifo("pipe")
    refused = composecli(
        "join",
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("five", nn.Linear(5, 2)),
        "-o",
        name,
        "--force",
    )
    assert refused.code == 3
    assert "CC921" in refused.err
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


@pytest.mark.parametrize("stage", ["build", "expect", "verify"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, RuntimeError, OSError])
def test_nothing_half_written_is_left(
    composecli: Composecli,
    shelf: Shelf,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    failure: type[BaseException],
) -> None:
    Path("both.pt").write_text("old")

    def fail(self: object, request: object) -> None:
        raise failure

    monkeypatch.setattr(InProcessWorker, stage, fail)
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    ended = composecli("join", a, b, "-o", "both.pt", "--force")
    assert ended.code != 0 or failure is SystemExit
    assert [path.name for path in here.iterdir()] == ["both.pt"]
    assert Path("both.pt").read_text() == "old"


def test_an_input_that_changes_meanwhile_is_what_is_told(
    composecli: Composecli, shelf: Shelf, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not that the worker, which had its pages, ended for it."""
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    Path("a.pt").write_bytes(Path(a).read_bytes())

    def shorten(self: object, request: object) -> None:
        os.truncate("a.pt", 100)
        raise CouldNotAttempt(Problem(Rule.WORKER_CRASHED, "the worker was killed by SIGBUS"))

    monkeypatch.setattr(InProcessWorker, "expect", shorten)
    refused = composecli("join", "a.pt", b, "-o", "both.pt")
    assert refused.code == 3
    assert "error[CC928]: the file became another while it was read\n  a.pt" in refused.err
    assert [path.name for path in here.iterdir()] == ["a.pt"]


def test_a_disk_that_does_not_take_the_file_is_an_error_and_the_old_file_stays(
    composecli: Composecli, shelf: Shelf, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux tells of a failed write once, to whoever flushes first."""
    Path("both.pt").write_text("old")
    told = list[int]()

    def fail_once(descriptor: int) -> None:
        told.append(descriptor)
        if len(told) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail_once)
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    refused = composecli("join", a, b, "-o", "both.pt", "--force")
    assert (refused.code, len(told)) == (3, 1)
    assert "CC921" in refused.err
    assert "Input/output error" in refused.err
    assert [path.name for path in here.iterdir()] == ["both.pt"]
    assert Path("both.pt").read_text() == "old"


def test_a_file_that_fails_its_verification_is_not_kept(
    composecli: Composecli, shelf: Shelf, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, request: VerifyRequest) -> Verified:
        return Verified((Check("outputs", passed=False, detail="other values"),), ())

    monkeypatch.setattr(InProcessWorker, "verify", fail)
    refused = composecli(
        "join",
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("five", nn.Linear(5, 2)),
        "-o",
        "both.pt",
    )
    assert refused.code == 3
    assert "CC923" in refused.err
    assert list(here.iterdir()) == []


def test_where_it_comes_from_is_in_the_file_and_shown(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("narrow", nn.Linear(3, 2))
    composecli("join", a, b, "--bridge", "linear", "--seed", "7", "-o", "both.pt")
    with zipfile.ZipFile("both.pt") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/extra/composecli.json"))
        facts = json.loads(archive.read(name))
    validator("provenance").validate(facts)
    assert facts["seed"] == 7
    assert facts["bridges"] == [
        [{"type": "Linear", "axis": 1, "before": 5, "after": 3, "dtype": "float32"}]
    ]
    assert [len(entry["sha256"]) for entry in facts["inputs"]] == [64, 64]
    assert facts["torch"] == torch.__version__.split("+")[0] or facts["torch"] == torch.__version__
    shown = composecli("inspect", "both.pt")
    assert "provenance: joined sequential by composecli, seed 7" in shown.out


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


def test_parallel_with_a_layer_for_the_narrower(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("wider", nn.Linear(10, 7))
    words = ("join", "--mode", "parallel", "--merge", "mean", a, b, "-o", "both.pt")
    assert composecli(*words).code == 1
    assert composecli(*words, "--bridge", "auto").code == 1
    assert composecli(*words, "--bridge", "linear").code == 0
    assert load("both.pt")(torch.rand(2, 10)).shape == (2, 7)


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        (["--dim", "0"], [6, 5]),
        (["--dim", "-1"], [2, 15]),
        (["--merge", "stack", "--dim", "0"], [3, 2, 5]),
        (["--merge", "stack", "--dim", "2"], [2, 5, 3]),
        (["--merge", "add"], [2, 5]),
        (["--merge", "mean"], [2, 5]),
    ],
)
def test_three_in_parallel(
    composecli: Composecli, shelf: Shelf, here: Path, words: list[str], shape: list[int]
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("linear_too", nn.Linear(10, 5))
    joined = composecli("join", "--mode", "parallel", a, b, a, *words, "-o", "both.pt")
    assert joined.code == 0, joined.out
    assert list(load("both.pt")(torch.rand(2, 10)).shape) == shape


def test_the_same_parts_join_again_in_one_process(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    """TorchScript shares the types of modules that look alike, and with them their forward."""
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("linear_too", nn.Linear(10, 5))
    for merge, shape in (("cat", (2, 10)), ("add", (2, 5)), ("cat", (2, 10))):
        joined = composecli(
            "join", "--mode", "parallel", "--merge", merge, a, b, "-o", "both.pt", "--force"
        )
        assert joined.code == 0, joined.err
        assert load("both.pt")(torch.rand(2, 10)).shape == shape


def test_a_tuple_of_two(composecli: Composecli, shelf: Shelf, here: Path) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("dict", DictOutput())
    joined = composecli("join", "--mode", "parallel", "--merge", "tuple", a, b, "-o", "both.pt")
    assert joined.code == 0, joined.out
    one, other = load("both.pt")(torch.rand(2, 10))
    assert one.shape == (2, 5)
    assert other["features"].shape == (2, 16)


def test_a_model_with_state_joins_as_it_is(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    counter = shelf.save("counter", Counter())
    assert (
        composecli("join", counter, shelf.save("five", nn.Linear(5, 2)), "-o", "both.pt").code == 0
    )
    assert load("both.pt").part_0.seen.item() == 0


def test_a_chain_of_three(composecli: Composecli, shelf: Shelf, here: Path) -> None:
    parts = [
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("relu", nn.ReLU()),
        shelf.save("five", nn.Linear(5, 2)),
    ]
    assert composecli("join", *parts, "-o", "all.pt").code == 0
    assert load("all.pt")(torch.rand(2, 10)).shape == (2, 2)


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


def test_a_written_file_that_differs_is_caught(shelf: Shelf, here: Path) -> None:
    """The verification itself: a file with other weights, and one whose gradients are cut, do not pass."""
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
    opened = worker.open(
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
        verified = worker.verify(
            VerifyRequest(name, ReferenceRequest(single_model(opened.handle), (call,), 0))
        )
        failed[name] = [check.name for check in verified.checks if not check.passed]
    assert failed["right.pt"] == []
    assert failed["other.pt"][:1] == ["outputs"]
    assert failed["cut.pt"] == ["gradients"]
    Path("broken.pt").write_bytes(b"PK nothing")
    broken = worker.verify(
        VerifyRequest(
            "broken.pt", ReferenceRequest(Sequential((Stage(opened.handle),)), (call,), 0)
        )
    )
    assert not broken.passed


def test_a_problem_is_raised_by_the_api(shelf: Shelf, here: Path) -> None:
    import composecli

    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    report = composecli.join(a, Path(b), output="both.pt")
    assert report.exit_code == 0
    assert composecli.check(a, b).verdict is composecli.Verdict.COMPATIBLE
    assert str(composecli.inspect(a).model.contract) == "float32[N, 10] -> float32[N, 5]"
    with pytest.raises(CouldNotAttempt, match="output exists"):
        composecli.join(a, b, output="both.pt")
    with pytest.raises(ValueError, match="two models"):
        composecli.check(a)


def test_a_full_disk_is_an_error_and_the_old_file_stays(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    """torch aborts the process that finds no space, so this one is run as a user would."""
    small = here / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=False
    ).returncode:
        pytest.skip("a small disk takes a mount, which is not allowed here")
    try:
        (small / "both.pt").write_text("old")
        wide = [
            shelf.save("wide", nn.Linear(10, 20000)),
            shelf.save("wide_too", nn.Linear(20000, 2)),
        ]
        words = [
            sys.executable,
            "-m",
            "composecli",
            "join",
            *wide,
            "-o",
            str(small / "both.pt"),
            "--force",
        ]
        ran = subprocess.run(words, capture_output=True, text=True, check=False, env=environment())
        assert ran.returncode == 3
        assert "no space is left" in ran.stderr
        assert [path.name for path in small.iterdir()] == ["both.pt"]
        assert (small / "both.pt").read_text() == "old"
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_file_size_limit_is_an_error_too(shelf: Shelf, here: Path) -> None:
    wide = [shelf.save("wide", nn.Linear(10, 20000)), shelf.save("wide_too", nn.Linear(20000, 2))]
    words = " ".join([sys.executable, "-m", "composecli", "join", *wide, "-o", "both.pt"])
    script = f"ulimit -f 100; {words}"
    ran = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env=environment()
    )
    assert ran.returncode == 3
    assert "Traceback" not in ran.stderr
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_join_that_is_stopped_leaves_the_old_file_or_the_new_one(
    shelf: Shelf, here: Path, number: signal.Signals
) -> None:
    Path("both.pt").write_text("old")
    wide = [shelf.save("wide", nn.Linear(10, 20000)), shelf.save("wide_too", nn.Linear(20000, 2))]
    words = [sys.executable, "-m", "composecli", "join", *wide, "-o", "both.pt", "--force"]
    for delay in (1.0, 1.5, 1.9, 2.2):
        command = subprocess.Popen(
            words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
        )
        time.sleep(delay)
        command.send_signal(number)
        _, err = command.communicate(timeout=30)
        assert b"Traceback" not in err
        assert [path.name for path in here.iterdir()] == ["both.pt"]
        # -number: it came when Python was already leaving.
        assert command.returncode in (0, -number, 130 if number is signal.SIGINT else 143)
        if Path("both.pt").read_bytes() != b"old":
            assert load("both.pt")(torch.rand(2, 10)).shape == (2, 2)
        Path("both.pt").write_text("old")
