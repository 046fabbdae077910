"""The forms of a factory on the command line, and the messages if it cannot be called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.following_help import code_of, commands_in, follow
from tests.commands.running import Composecli, Installed

NETS = """
import random
import sys
import torch
from torch import nn
from helper_of_nets import WIDTH

class Net(nn.Module):
    def __init__(self, classes=3, *, width=WIDTH):
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(x)

    @classmethod
    def tiny(cls):
        return cls(1, width=2)

def make() -> nn.Module:
    return Net()

def needs(width):
    return nn.Linear(width, 3)

def broken():
    raise RuntimeError("no such checkpoint")

def number():
    return 3

class Wide(nn.Linear):
    pass

def noise():
    return nn.Sequential(nn.Linear(4, random.choice([1, 2, 3, 4, 5])))

ready = Net(2)
"""


@pytest.fixture
def folder(here: Path) -> Path:
    """A working directory with factories and weights."""
    Path("nets.py").write_text(NETS)
    Path("helper_of_nets.py").write_text("WIDTH = 4\n")
    Path("code").mkdir()
    Path("code/deep.py").write_text("from near import make\n")
    Path("code/near.py").write_text("from torch import nn\ndef make(): return nn.Linear(4, 3)\n")
    torch.save({"fc.weight": torch.ones(3, 4), "fc.bias": torch.ones(3)}, "net_w.pth")
    torch.save(nn.Linear(4, 3).state_dict(), "linear.pth")
    save = "import nets, torch; torch.save(nets.Net(), 'whole.pth')"
    subprocess.run([sys.executable, "-c", save], check=True)
    return here


@pytest.mark.parametrize(
    ("model", "contract"),
    [
        ("nets.py:Net@net_w.pth", "float32[N, 4] -> float32[N, 3]"),
        ("nets:Net@net_w.pth", "float32[N, 4] -> float32[N, 3]"),
        ("nets.py:make@net_w.pth", "float32[N, 4] -> float32[N, 3]"),
        ("nets.py:Net()@net_w.pth", "float32[N, 4] -> float32[N, 3]"),
        ("nets.py:Net(3)@net_w.pth", "float32[N, 4] -> float32[N, 3]"),
        ("nets.py:Net(classes=3, width=4)@net_w.pth", "float32[N, 4] -> float32[N, 3]"),
        ("nets.py:needs(4)@linear.pth", "float32[N, 4] -> float32[N, 3]"),
        ("nets.py:Net", "float32[N, 4] -> float32[N, 3]"),
        ("nets:Net(5, width=6)", "float32[N, 6] -> float32[N, 5]"),
        ("nets.py:Net.tiny", "float32[N, 2] -> float32[N, 1]"),
        ("nets.py:ready", "float32[N, 4] -> float32[N, 2]"),
        ("nets.py:Wide(in_features=4, out_features=2)", "float32[N, 4] -> float32[N, 2]"),
        ("code/deep.py:make@linear.pth", "float32[N, 4] -> float32[N, 3]"),
        ("torch.nn:Linear(4, 3)@linear.pth", "float32[N, 4] -> float32[N, 3]"),
    ],
)
def test_a_factory_has_many_forms(
    composecli: Composecli, folder: Path, model: str, contract: str
) -> None:
    ran = composecli("inspect", model)
    assert ran.code == 0, ran.err
    assert contract.replace("float32", "").replace(" ", "") in ran.out.replace(
        "float32", ""
    ).replace(" ", "")
    as_made = "no weights file was named: its weights are as the factory made them"
    assert (as_made in ran.out) == ("@" not in model)


def test_the_installed_command_builds_a_class_with_arguments(
    installed: Installed, folder: Path
) -> None:
    alone = installed.json("inspect", "nets.py:Net(classes=7)")
    assert alone.code == 0
    assert alone.json["file_size"] is None
    assert alone.json["model"]["kind"] == "factory without weights"
    joined = installed("join", "nets.py:Net(classes=7)", "nets.py:Wide(7, 2)", "-o", "both.pt")
    assert joined.code == 0, joined.err
    assert "no weights file was named" in joined.out
    assert torch.jit.load("both.pt")(torch.rand(2, 4)).shape == (2, 2)


def test_a_factory_without_weights_gives_the_same_module_each_time(
    composecli: Composecli, folder: Path
) -> None:
    outputs = list[torch.Tensor]()
    for name in ("one.pt", "two.pt"):
        words = ("nets.py:noise", "torch.nn:ReLU", "-o", name)
        assert composecli("join", *words).code == 0
        outputs.append(torch.jit.load(name)(torch.ones(1, 4)))
        torch.manual_seed(len(name))
    torch.testing.assert_close(outputs[0], outputs[1])


@pytest.mark.parametrize(
    ("model", "words", "suggested"),
    [
        ("nets.py:Nett@net_w.pth", "nets.py has no Nett", "nets.py:Net@net_w.pth"),
        ("nets:mak@net_w.pth", "nets has no mak", "nets:make@net_w.pth"),
        ("net.py:Net@net_w.pth", "there is no file net.py", "nets.py:Net@net_w.pth"),
        ("net.py:Net@whole.pth", "there is no file net.py", "nets.py:Net@whole.pth"),
        ("net.py:make@net_w.pth", "there is no file net.py", "nets.py:make@net_w.pth"),
        ("net.py:ready@net_w.pth", "there is no file net.py", "nets.py:ready@net_w.pth"),
        ("mets:Net@whole.pth", "there is no module mets", "nets.py:Net@whole.pth"),
        ("mets:Net@net_w.pth", "there is no module mets", "nets.py:Net@net_w.pth"),
        ("nets.py:number@net_w.pth", "returned a int, not a module", "nets.py:Net@net_w.pth"),
        ("nets.py:broken@net_w.pth", "RuntimeError: no such checkpoint", "nets.py:Net@net_w.pth"),
        ("nets.py:needs@net_w.pth", "missing 1 required positional", "nets.py:Net@net_w.pth"),
        ("nets.py:needs(1, 2)@net_w.pth", "it takes (width)", "nets.py:Net@net_w.pth"),
        ("nets.py:Net@net_v.pth", "No such file", "nets.py:Net@net_w.pth"),
        ("nets:Net@net_v.pth", "No such file", "nets:Net@net_w.pth"),
        ("net_v.pth", "No such file", "net_w.pth"),
        ("nets.py", "the file is a text file", "nets.py:Net"),
    ],
)
def test_a_mistake_gets_a_command_that_gets_further(
    composecli: Composecli, folder: Path, model: str, words: str, suggested: str
) -> None:
    refused = composecli("inspect", model)
    assert words in refused.err
    assert commands_in(refused)[0][1] == suggested
    assert "--trust" not in refused.err
    follow(composecli, refused)


BROKEN = {
    "syntax": "def make(:\n",
    "missing": "import a_package_that_is_not_there\n",
    "relative": "from .near import make\n",
    "script": "open('data.csv')\n",
    "leaves": "import argparse\nargparse.ArgumentParser().add_argument('x')\nraise SystemExit(2)\n",
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("syntax", "SyntaxError"),
        ("missing", "No module named 'a_package_that_is_not_there'"),
        ("relative", "ImportError: attempted relative import"),
        ("script", "FileNotFoundError: [Errno 2] No such file or directory: 'data.csv'"),
        ("leaves", "SystemExit: 2"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_problem(
    composecli: Composecli, folder: Path, name: str, words: str
) -> None:
    Path(f"{name}.py").write_text(BROKEN[name])
    refused = composecli("inspect", f"{name}.py:make@net_w.pth")
    assert code_of(refused) == "CC914"
    assert f"{name}.py cannot be imported" in refused.err
    assert words in " ".join(refused.err.split())


@pytest.mark.parametrize(
    "method", ["get_extra_state(self)", "_apply(self, *args, **kwargs)", "train(self, mode=True)"]
)
def test_a_module_whose_own_code_fails_is_a_problem(
    composecli: Composecli, folder: Path, method: str
) -> None:
    lines = ("from torch import nn", "class Net(nn.Linear):", f"    def {method}:", "        1 / 0")
    Path("fails.py").write_text("\n".join(lines))
    torch.save(nn.Linear(4, 2).state_dict(), "fails.pth")
    refused = composecli("inspect", "fails.py:Net(4, 2)@fails.pth", "--training", "eval")
    assert code_of(refused) == "CC914"
    assert refused.code == 3
    words = " ".join(refused.err.split())
    assert "fails: ZeroDivisionError: division by zero" in words
    assert "at line 4 of fails.py" in words


def test_a_file_of_a_package_is_named_by_its_module(composecli: Composecli, folder: Path) -> None:
    Path("code/__init__.py").touch()
    Path("code/inner.py").write_text("from .near import make\n")
    refused = composecli("inspect", "code/inner.py:make@linear.pth")
    assert "attempted relative import" in " ".join(refused.err.split())
    assert commands_in(refused)[0][1] == "code.inner:make@linear.pth"


@pytest.mark.parametrize("arguments", ["(torch.float32)", "(open('x'))", "(1", "(**{})"])
def test_arguments_that_are_not_literals_are_refused_before_anything_runs(
    composecli: Composecli, folder: Path, arguments: str
) -> None:
    refused = composecli("inspect", f"nets.py:Net{arguments}@net_w.pth")
    assert code_of(refused) == "CC914"
    assert "the arguments of the factory are not literals" in refused.err


def test_an_entry_that_is_not_there_is_suggested_by_its_likeness(
    composecli: Composecli, folder: Path
) -> None:
    state = {"fc.weight": torch.ones(3, 4), "fc.bias": torch.ones(3)}
    torch.save({"epoch": 1, "ema_model": {"shadow": state}}, "ck.pth")
    refused = composecli("inspect", "nets.py:Net@ck.pth", "--key", "ema_modl.shadow")
    assert commands_in(refused)[0][-1] == "ema_model.shadow"
    assert follow(composecli, refused)[0].code == 0


def test_the_entries_that_hold_weights_are_suggested(composecli: Composecli, folder: Path) -> None:
    state = {"fc.weight": torch.ones(3, 4), "fc.bias": torch.ones(3)}
    other = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"epoch": 1, "teacher": {"now": state, "ema": other}}, "ck.pth")
    refused = composecli("inspect", "nets.py:Net@ck.pth")
    suggested = [command[-2:] for command in commands_in(refused)]
    assert suggested == [["--key", "teacher.now"], ["--key", "teacher.ema"]]
    assert [ran.code for ran in follow(composecli, refused)] == [0, 0]


def test_a_module_in_another_folder_is_found(installed: Installed, folder: Path) -> None:
    refused = installed("inspect", "near:make@linear.pth")
    assert "there is no module near" in refused.err
    assert [ran.code for ran in follow(installed, refused)].count(0) > 0


SEVERAL = """
import pathlib
from torch import nn

class NetA(nn.Linear):
    def __init__(self): super().__init__(4, 2)

class NetB(nn.Linear):
    def __init__(self): super().__init__(4, 3)

class NetC(nn.Linear):
    def __init__(self): raise RuntimeError("no data here")

pathlib.Path("ran").touch()
"""


@pytest.mark.parametrize("factory", ["Net", "NetA", "NetC"])
def test_the_class_that_the_weights_fit_is_suggested_first(
    installed: Installed, folder: Path, factory: str
) -> None:
    Path("several.py").write_text(SEVERAL)
    refused = installed("inspect", f"several.py:{factory}@linear.pth")
    assert refused.code == 3
    first, *_ = commands_in(refused)
    assert first == ["inspect", "several.py:NetB@linear.pth"]
    assert installed(*first).code == 0


def test_a_file_that_the_user_did_not_name_is_not_run_to_see_if_it_fits(
    installed: Installed, folder: Path
) -> None:
    Path("several.py").write_text(SEVERAL)
    for model in ("linear.pth", "severa.py:NetB@linear.pth", "nets.py:Net(9)@linear.pth"):
        assert installed("inspect", model).code == 3
    assert not Path("ran").exists()
