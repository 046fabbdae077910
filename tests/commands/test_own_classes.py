"""Modules of the user's own classes: pickled by a script, and built by a class that is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.commands.following_help import code_of, commands_in, follow
from tests.commands.running import Composecli, Installed, environment

TRAIN = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc = nn.Linear(dim, dim)
        self.norm = nn.BatchNorm1d(dim)
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.norm(self.fc(x))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.blocks(x))

class Sized(nn.Module):
    def __init__(self, dim, classes=4, act="relu"):
        super().__init__()
        self.dim, self.classes, self.act = dim, classes, act
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        return self.head(x)

class Secret(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.head = nn.Linear(6, width)

    def forward(self, x):
        return self.head(x)

class Config:
    pass

if __name__ == "__main__":
    torch.manual_seed(1)
    torch.save(Net().eval(), "net.pth")
    torch.save(nn.DataParallel(Net().eval()), "parallel.pth")
    torch.save(Sized(5, classes=7), "sized.pth")
    torch.save(Secret(2), "secret.pth")
    torch.save(nn.Sequential(Block(8).eval()), "blocks.pth")
    torch.save(Net().eval().half(), "half.pth")
    torch.save({"state_dict": Net().state_dict(), "config": Config()}, "foreign.pth")
    torch.save(Net().state_dict(), "weights.pth")
    torch.jit.script(nn.Linear(3, 2)).save("next.pt")
    # Checkpoints as YOLOv5 writes them.
    best = {"model": Net().eval().half(), "ema": None, "epoch": 3, "opt": Config()}
    torch.save(best, "best.pt")
    torch.save(best, "best_old.pt", _use_new_zipfile_serialization=False)
    torch.save(Net().eval(), "net_old.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": Net().eval().half(), "ema": Net().eval()}, "last.pt")
    torch.save({"best": {"net": Sized(5, classes=7)}}, "nested.pt")
    torch.save({"student": Net().half().eval(), "teacher": Net().eval()}, "pair.pt")
    torch.save({"model": nn.Sequential(nn.Linear(8, 3)).eval()}, "layers.pt")
"""
NET = "float32[N, 8] -> float32[N, 3]"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a script and the files that it pickled."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "train.py").write_text(TRAIN)
    run_script(folder, "train.py")
    return folder


def run_script(folder: Path, name: str) -> None:
    subprocess.run([sys.executable, name], cwd=folder, env=environment(), check=True)


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, which is the working directory."""
    monkeypatch.chdir(project)
    return project


def test_a_module_that_a_script_pickled_is_read_by_its_class(
    installed: Installed, here: Path
) -> None:
    refused = installed("inspect", "net.pth")
    assert code_of(refused) == "CC909"
    assert commands_in(refused)[0] == ["inspect", "train.py:Net@net.pth"]
    for ran in follow(installed, refused):
        assert ran.code == 0
        assert f"contract: {NET}" in ran.out
    trusted = installed("inspect", "net.pth", "--trust", "net.pth")
    assert code_of(trusted) == "CC924"
    for ran in follow(installed, trusted):
        assert ran.code == 0
        assert f"contract: {NET}" in ran.out


@pytest.mark.parametrize(
    ("file", "suggested"),
    [
        ("net.pth", "train.py:Net@net.pth"),
        ("half.pth", "train.py:Net@half.pth"),
        ("parallel.pth", "train.py:Net@parallel.pth"),
        ("sized.pth", "train.py:Sized(dim=5, classes=7)@sized.pth"),
        # The arguments of these are not stored: only their own pickles can make them.
        ("secret.pth", "secret.pth"),
        ("blocks.pth", "blocks.pth"),
        ("weights.pth", "train.py:Net@weights.pth"),
        ("best.pt", "train.py:Net@best.pt"),
        ("best_old.pt", "train.py:Net@best_old.pt"),
        ("net_old.pth", "train.py:Net@net_old.pth"),
        ("last.pt", "train.py:Net@last.pt"),
        ("nested.pt", "train.py:Sized(dim=5, classes=7)@nested.pt"),
        ("pair.pt", "train.py:Net@pair.pt"),
    ],
)
def test_each_suggestion_gives_the_contract(
    composecli: Composecli, here: Path, file: str, suggested: str
) -> None:
    refused = composecli("inspect", file)
    assert commands_in(refused)[0][1] == suggested
    assert [ran.code for ran in follow(composecli, refused)].count(0) > 0


HALF = "float16[N, 8] -> float16[N, 3]"


@pytest.mark.parametrize(
    ("file", "options", "contract"),
    [
        ("best.pt", (), HALF),
        ("best.pt", ("--key", "model"), HALF),
        ("best.pt", ("--trust", "best.pt"), HALF),
        ("best_old.pt", (), HALF),
        ("best_old.pt", ("--key", "model"), HALF),
        ("net_old.pth", (), NET),
        ("last.pt", (), HALF),
        ("last.pt", ("--key", "ema"), NET),
        ("pair.pt", ("--key", "teacher"), NET),
    ],
)
def test_a_module_in_a_dict_is_read_by_its_class(
    composecli: Composecli, here: Path, file: str, options: tuple[str, ...], contract: str
) -> None:
    ran = composecli("inspect", f"train.py:Net@{file}", *options)
    assert ran.code == 0, ran.err
    assert f"contract: {contract}" in ran.out
    assert "training state: eval" in ran.out


def test_the_installed_command_reads_a_module_in_a_dict(installed: Installed, here: Path) -> None:
    refused = installed("inspect", "best_old.pt")
    assert commands_in(refused)[0] == ["inspect", "train.py:Net@best_old.pt"]
    for ran in follow(installed, refused):
        assert f"contract: {HALF}" in ran.out
    joined = installed("join", "train.py:Net@last.pt", "next.pt", "--key", "ema", "-o", "e.pt")
    assert joined.code == 0, joined.err
    last = torch.load("last.pt", weights_only=False, pickle_module=own_classes(here))
    x = torch.rand(3, 8)
    expected = torch.jit.load("next.pt")(last["ema"](x))
    torch.testing.assert_close(torch.jit.load("e.pt")(x), expected)


def test_a_factory_may_be_given_a_module_of_torch_classes(
    composecli: Composecli, here: Path
) -> None:
    (here / "layers.py").write_text(
        "from torch import nn\n"
        "def make(): return nn.Sequential(nn.Linear(8, 3))\n"
        "def narrow(): return nn.Sequential(nn.Linear(7, 3))\n"
    )
    ran = composecli("inspect", "layers.py:make@layers.pt")
    assert f"contract: {NET}" in ran.out
    assert "training state: eval" in ran.out
    other = composecli("inspect", "layers.py:narrow@layers.pt")
    assert "0 missing, 0 unexpected and 1 resized keys" in other.err


def test_entries_that_fit_equally_well_are_each_suggested(
    composecli: Composecli, here: Path
) -> None:
    refused = composecli("inspect", "train.py:Net@pair.pt")
    keys = [command[-1] for command in commands_in(refused)]
    assert keys == ["student", "teacher"]
    assert [ran.code for ran in follow(composecli, refused)] == [0, 0]


def test_the_stored_arguments_are_suggested_if_the_class_needs_some(
    composecli: Composecli, here: Path
) -> None:
    refused = composecli("inspect", "train.py:Sized@nested.pt")
    assert commands_in(refused)[0][1] == "train.py:Sized(dim=5, classes=7)@nested.pt"
    assert composecli(*commands_in(refused)[0]).code == 0


def test_tensors_that_only_code_can_make_need_trust(composecli: Composecli, here: Path) -> None:
    (here / "sparse.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Sparse(nn.Linear):\n"
        "    def __init__(self):\n        super().__init__(4, 3)\n"
        "        self.register_buffer('mask', torch.eye(3).to_sparse())\n"
        "    def forward(self, x): return super().forward(x) @ self.mask.to_dense()\n"
        "if __name__ == '__main__': torch.save({'model': Sparse(), 'ema': None}, 'sparse.pt')\n"
    )
    run_script(here, "sparse.py")
    refused = composecli("inspect", "sparse.py:Sparse@sparse.pt")
    assert "mask" in refused.err
    assert commands_in(refused)[0][-2:] == ["--trust", "sparse.pt"]
    assert follow(composecli, refused)[0].code == 0


def test_a_command_of_two_models_is_suggested_with_both(composecli: Composecli, here: Path) -> None:
    refused = composecli("check", "net.pth", "next.pt", "--training", "eval")
    assert commands_in(refused)[0] == [
        "check", "train.py:Net@net.pth", "next.pt", "--training", "eval"
    ]  # fmt: skip
    assert follow(composecli, refused)[0].code == 0
    joined = composecli("join", "net.pth", "next.pt", "-o", "both.pt", "--force")
    assert follow(composecli, joined)[0].code == 0
    assert torch.jit.load("both.pt")(torch.rand(2, 8)).shape == (2, 2)


def test_the_values_modes_and_dtypes_are_those_that_were_pickled(
    composecli: Composecli, here: Path
) -> None:
    joined = composecli("join", "train.py:Net@net.pth", "next.pt", "-o", "j.pt", "--force")
    assert joined.code == 0, joined.err
    assert "training state: eval" in composecli("inspect", "train.py:Net@net.pth").out
    half = composecli("inspect", "train.py:Net@half.pth").out
    assert "contract: float16[N, 8] -> float16[N, 3]" in half
    x = torch.rand(3, 8)
    weights = torch.load("net.pth", weights_only=False, pickle_module=own_classes(here))
    expected = torch.jit.load("next.pt")(weights(x))
    torch.testing.assert_close(torch.jit.load("j.pt")(x), expected)


def own_classes(folder: Path) -> object:
    from composecli.runtime.loading.own_code import import_file, unpickler_with

    return unpickler_with((import_file(str(folder / "train.py")),))


def test_a_pickle_is_never_run_without_trust(composecli: Composecli, here: Path) -> None:
    (here / "evil.py").write_text(
        "import torch, os\nfrom torch import nn\n"
        "class Touch:\n    def __reduce__(self): return os.mkdir, ('ran',)\n"
        "class Net(nn.Linear):\n    pass\n"
        "if __name__ == '__main__':\n"
        "    net = Net(4, 2)\n    net.extra = Touch()\n    torch.save(net, 'evil.pth')\n"
    )
    run_script(here, "evil.py")
    ran = composecli("inspect", "evil.py:Net(4, 2)@evil.pth")
    assert ran.code == 0
    assert not (here / "ran").exists()


def test_trust_reaches_the_weights_of_a_factory(installed: Installed, here: Path) -> None:
    refused = installed("inspect", "train.py:Net@foreign.pth")
    if refused.code == 3:
        refused = follow(installed, refused)[0]
    assert NET.replace("[N,", "[N>=2,") in refused.out
    trusted = installed("inspect", "train.py:Net@foreign.pth", "--trust", "foreign.pth")
    assert trusted.code == 0


PACKAGE = {
    "nets/__init__.py": "",
    "nets/parts.py": "from torch import nn\nclass Part(nn.Linear):\n    pass\n",
    "nets/whole.py": (
        "from torch import nn\nfrom nets.parts import Part\nclass Whole(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.part = Part(4, 2)\n"
        "    def forward(self, x):\n        return self.part(x)\n"
    ),
    "save.py": (
        "import torch\nfrom nets.whole import Whole\ntorch.save(Whole(), 'models/whole.pth')\n"
    ),
    "models/.keep": "",
}


@pytest.mark.parametrize(("working", "file"), [(".", "models/whole.pth"), ("models", "whole.pth")])
def test_the_modules_of_a_trusted_pickle_are_found(
    installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, working: str, file: str
) -> None:
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    run_script(tmp_path, "save.py")
    monkeypatch.chdir(tmp_path / working)
    ran = installed("inspect", file, "--trust", file)
    if working != ".":
        ran = follow(installed, ran)[0]
    assert ran.code == 0, ran.err
    assert "contract: float32[N, 4] -> float32[N, 2]" in ran.out
    by_class = installed("inspect", f"nets.whole:Whole@{file}", "--import", str(tmp_path))
    assert by_class.code == 0, by_class.err
