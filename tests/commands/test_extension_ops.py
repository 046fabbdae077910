"""Archives that call ops of an extension library, which `--import` loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.following_help import code_of, commands_in, follow
from tests.commands.running import Installed, environment

OPS = """
import torch

@torch.library.custom_op("ccdoubling::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2

double.register_fake(torch.empty_like)
library = torch.library.Library("ccshifting", "DEF")
library.define("shift(Tensor x, float by) -> Tensor")
library.impl("shift", lambda x, by: x + by, "CompositeExplicitAutograd")
"""
SAVE = """
import torch
import some_ops
from torch import nn

class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.ccshifting.shift(torch.ops.ccdoubling.double(self.fc(x)), 1.0)

example = (torch.rand(2, 4),)
sizes = ({0: torch.export.Dim("n")},)
torch.jit.script(Calls()).save("scripted.pt")
torch.jit.trace(Calls(), example).save("traced.pt")
torch.export.save(torch.export.export(Calls(), example, dynamic_shapes=sizes), "exported.pt2")
torch.jit.script(nn.Linear(3, 2)).save("next.pt")
"""
ALLOWED = ("--allow-op", "ccdoubling::double", "--allow-op", "ccshifting::shift")
FILES = ("scripted.pt", "traced.pt", "exported.pt2")
CONTRACT = "contract: float32[N, 4] -> float32[N, 3]"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file that registers ops, and archives that call them."""
    folder = tmp_path_factory.mktemp("extension")
    (folder / "some_ops.py").write_text(OPS)
    (folder / "save.py").write_text(SAVE)
    subprocess.run([sys.executable, "save.py"], cwd=folder, env=environment(), check=True)
    return folder


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, which is the working directory."""
    monkeypatch.chdir(project)
    return project


@pytest.mark.parametrize("file", FILES)
def test_an_op_that_is_not_loaded_is_named_with_what_loads_it(
    installed: Installed, here: Path, file: str
) -> None:
    refused = installed("inspect", file)
    assert code_of(refused) == "CC924"
    assert "an op of an extension library that is not loaded" in " ".join(refused.err.split())
    assert "ccdoubling::double" in refused.err
    assert "--import some_ops.py" in refused.err
    for ran in follow(installed, refused):
        assert ran.code == 0
        assert CONTRACT in ran.out


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("consent", [("--trust",), ALLOWED])
def test_consent_without_the_library_says_what_to_import(
    installed: Installed, here: Path, file: str, consent: tuple[str, ...]
) -> None:
    if consent == ("--trust",):
        consent = ("--trust", file)
    refused = installed("inspect", file, *consent)
    assert code_of(refused) == "CC924"
    assert commands_in(refused) == [["inspect", file, *consent, "--import", "some_ops.py"]]
    assert CONTRACT in follow(installed, refused)[0].out


def test_an_imported_library_does_not_allow_its_ops(installed: Installed, here: Path) -> None:
    for file in FILES:
        refused = installed("inspect", file, "--import", "some_ops")
        assert code_of(refused) == "CC926"
        assert CONTRACT in follow(installed, refused)[0].out


def test_a_joined_file_calls_the_ops_of_the_library(installed: Installed, here: Path) -> None:
    words = ("scripted.pt", "next.pt", "--import", "some_ops.py", *ALLOWED)
    joined = installed("join", *words, "-o", "both.pt")
    assert joined.code == 0, joined.err
    code = "import torch, some_ops; print(torch.jit.load('both.pt')(torch.rand(2, 4)).shape)"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(
        command, cwd=here, env=environment(), capture_output=True, text=True, check=True
    )
    assert "[2, 2]" in ran.stdout


def test_a_library_that_cannot_be_imported_is_a_problem(installed: Installed, here: Path) -> None:
    (here / "broken.py").write_text("raise RuntimeError('no driver')\n")
    for name, words in (
        ("not_there_at_all", "No module named 'not_there_at_all'"),
        ("not_there.py", "no such file"),
        ("broken.py", "RuntimeError: no driver"),
    ):
        refused = installed("inspect", "next.pt", "--import", name)
        assert code_of(refused) == "CC914"
        assert words in refused.err
    unknown = installed("inspect", "next.pt", "--import", "no/module")
    assert unknown.code == 2


def test_imported_code_is_not_confined_and_the_model_is(installed: Installed, here: Path) -> None:
    (here / "reads.py").write_text("text = open('secret.txt').read()\nprint(text)\n")
    (here / "secret.txt").write_text("secret")
    ran = installed.json("inspect", "next.pt", "--import", "reads.py")
    assert ran.code == 0
    without = installed.json("inspect", "next.pt")
    assert ran.json["isolation"] == without.json["isolation"]


def test_answers_about_a_model_with_imports_are_not_cached(
    installed: Installed, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        words = ("inspect", "scripted.pt", "--import", "some_ops", *ALLOWED)
        assert installed(*words).code == 0
    assert not list(tmp_path.iterdir())
    assert installed("inspect", "next.pt").code == 0
    assert list(tmp_path.iterdir())
