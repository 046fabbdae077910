"""Odd surroundings: whatever a user's environment is, there is an answer or a message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.running import Ran, environment

SCRIPT = Path(sys.executable).with_name("composecli")
ENVIRONMENTS = [
    {"PYTHONWARNINGS": "error"},
    {"PYTHONOPTIMIZE": "2"},
    {"COLUMNS": "\u00b2", "LINES": "-1", "TERM": "nonsense", "FORCE_COLOR": "1"},
    {"COLUMNS": "9" * 30, "NO_COLOR": "1", "TERM": ""},
    {"TMPDIR": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
    {"HOME": "", "XDG_CACHE_HOME": ""},
    {"XDG_CACHE_HOME": "/dev/null"},
    {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model in the current folder."""
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Linear(3, 2), "model.pt")
    return "model.pt"


def run(words: list[str], **variables: str) -> Ran:
    """Run a command with these environment variables."""
    ran = subprocess.run(
        words,
        capture_output=True,
        text=True,
        env={**environment(), **variables},
        timeout=200,
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.mark.parametrize("variables", ENVIRONMENTS)
def test_a_model_is_inspected(variables: dict[str, str], model: str) -> None:
    ran = run([str(SCRIPT), "inspect", model], **variables)
    assert (ran.code, "Traceback" in ran.err) == (0, False), ran.err
    assert sorted(os.listdir()) == [model]


@pytest.mark.parametrize("name", ["z" * 255, "z" * 4000, "zz/" * 1400, "\udcff.pt"])
def test_a_name_that_no_file_can_have_is_a_message(name: str, model: str) -> None:
    for words in (["inspect", name], ["check", model, name]):
        ran = run([str(SCRIPT), *words])
        assert (ran.code, "error[CC9" in ran.err) == (3, True), ran.err
        assert len(ran.err) < 20_000


@pytest.mark.parametrize("start", [["-m", "composecli"], []])
@pytest.mark.parametrize("shadowed", ["torch", "click", "rich", "numpy", "json"])
def test_no_module_of_the_current_folder_is_imported(
    shadowed: str, start: list[str], model: str
) -> None:
    Path(f"{shadowed}.py").write_text("open('marker', 'w')\nraise SystemExit(0)\n")
    command = [sys.executable, *start] if start else [str(SCRIPT)]
    root = str(Path(__file__).parent.parent.parent)
    ran = run([*command, "inspect", model, "--no-cache"], PYTHONPATH=f"{root}:")
    assert (ran.code, Path("marker").exists()) == (0, False), ran.err


@pytest.mark.parametrize("name", ["torch", "typing", "click", "composecli"])
def test_the_file_of_a_factory_may_have_the_name_of_a_library(name: str, model: str) -> None:
    Path(f"{name}.py").write_text("from torch import nn\ndef make(): return nn.Linear(3, 2)\n")
    ran = run([str(SCRIPT), "inspect", f"{name}.py:make@{model}"])
    assert ran.code in (0, 3), ran.err
    assert "CC970" not in ran.err
