"""Shell completion, as a shell asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.running import Installed, environment
from tests.models import DictOutput, Shelf, TwoInputs

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("composecli")
# The line of the README for each shell, without its redirection.
INSTALLATION = {
    "bash": 'eval "$(_COMPOSECLI_COMPLETE=bash_source composecli)"',
    "zsh": 'eval "$(_COMPOSECLI_COMPLETE=zsh_source composecli)"',
    "fish": "_COMPOSECLI_COMPLETE=fish_source composecli",
}


def complete(*words: str, **variables: str) -> list[str]:
    """Return what is offered for the last word, each as `type,value`."""
    ran = subprocess.run(
        [SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env={
            **environment(),
            **variables,
            "_COMPOSECLI_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("composecli", *words)),
            "COMP_CWORD": str(len(words)),
        },
    )
    assert ran.stderr == ""
    return ran.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ex"], ["plain,explain"]),
        (["explain", "CC20"], [f"plain,CC20{number}" for number in range(1, 10)]),
        (["explain", "cc301"], ["plain,CC301"]),
        (["explain", "feature"], []),
        (["explain", "rank"], ["plain,rank-differs"]),
        (["check", "a.p"], ["file,a.p"]),
        (["inspect", "a.p"], ["file,a.p"]),
        (["su"], ["plain,suite"]),
        (["suite", "ci"], ["file,ci"]),
        (["suite", "ci.toml", "--trust", "c"], ["file,c"]),
        (["suite", "ci.toml", "--ch"], ["plain,--changed-since"]),
        (["schema", "s"], ["plain,suite"]),
        (["join", "a.pt", "b.pt", "-o", "bo"], ["file,bo"]),
        (["check", "a.pt", "--trust", "a"], ["file,a"]),
        (["join", "a.pt", "--bridge", ""], ["plain,none", "plain,auto", "plain,linear"]),
        (["check", "a.pt", "--device", "cu"], ["plain,cuda", "plain,cuda:0"]),
        (["check", "missing.pt", "--select", ""], []),
        (["check", "--select", ""], []),
        (["cache", ""], ["plain,clear"]),
    ],
)
def test_words_are_completed(words: list[str], offered: list[str]) -> None:
    assert complete(*words) == offered


def test_samples_are_completed_behind_an_at_sign(here: Path) -> None:
    Path("sample.pt").touch()
    Path("samples").mkdir()
    assert complete("check", "a.pt", "--input", "@sam") == ["plain,@sample.pt", "plain,@samples/"]


def test_ports_are_completed_once_a_command_has_found_them(
    installed: Installed, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    a, b = shelf.save("dict", DictOutput()), shelf.save("two_inputs", TwoInputs())
    assert complete("check", a, "--select", "") == []
    for path in (a, b):
        assert installed("inspect", path).code == 0
    assert complete("check", a, "--select", "") == ["plain,logits", "plain,features"]
    assert complete("check", a, b, "--select", "f") == ["plain,features"]
    assert complete("inspect", a, "--select", "lo") == ["plain,logits"]
    assert complete("check", b, a, "--select", "2:f") == ["plain,2:features"]
    assert complete("check", b, a, "--input", "") == ["plain,x=", "plain,y="]


def test_ports_of_an_exported_program_need_no_command(shelf: Shelf) -> None:
    path = shelf.save("dict", DictOutput(), "exported", (torch.rand(2, 10),))
    assert complete("check", path, "--select", "") == ["plain,logits", "plain,features"]


def test_completion_never_imports_torch_and_takes_no_second(shelf: Shelf) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: sys.stderr.write(str('torch' in sys.modules)))\n"
        "from composecli.__main__ import run\n"
        "run()"
    )
    variables = {
        "_COMPOSECLI_COMPLETE": "bash_complete",
        "COMP_WORDS": f"composecli check {path} --select ",
        "COMP_CWORD": "4",
    }
    start = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**environment(), **variables},
        check=False,
    )
    assert ran.stderr == "False"
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("shell", INSTALLATION)
def test_one_line_installs_the_completion(shell: str) -> None:
    line = INSTALLATION[shell]
    assert line in (ROOT / "README.md").read_text()
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    checks = {
        "bash": "COMP_WORDS=(composecli explain CC203); COMP_CWORD=2; "
        "_composecli_completion composecli; echo ${COMPREPLY[@]}; complete -p composecli",
        "zsh": "whence -w _composecli_completion",
        "fish": "complete --command composecli",
    }
    start = line
    if shell == "zsh":
        start = f"autoload -Uz compinit; compinit -D; {line}"
    elif shell == "fish":
        start = f"{line} | source"
    path = os.pathsep.join((str(SCRIPT.parent), os.environ["PATH"]))
    ran = subprocess.run(
        [shell, "-c", f"{start}\n{checks[shell]}"],
        capture_output=True,
        text=True,
        env={**environment(), "PATH": path},
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "composecli" in ran.stdout
    if shell == "bash":
        assert ran.stdout.startswith("CC203\n")
