"""Near misses: what a MODEL argument that names no file may have been meant to name."""

from __future__ import annotations

from pathlib import Path

import pytest

from composecli.commands.near_misses import with_near_misses
from composecli.core.errors import Problem
from composecli.core.model_ref import parse_reference
from composecli.core.rules import Rule


@pytest.fixture
def folder(here: Path) -> Path:
    """A working directory with files whose names can be mistyped."""
    Path("models").mkdir()
    for name in ("encoder.pt", "models/encoder_large.pt", "a.pt", "net.pth"):
        Path(name).touch()
    Path("nets.py").write_text("class Net(nn.Module):\n    pass\n")
    return here


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        ("encodr.pt", ["encoder.pt"]),
        ("encoder.pth", ["encoder.pt"]),
        ("models/encoder_lage.pt", ["models/encoder_large.pt"]),
        ("net.pt", ["net.pth"]),
        ("nets:make@net.pt", ["nets:make@net.pth"]),
        ("./nets:make@net.pth", ["./nets.py:make@net.pth"]),
        ("b.pt", []),
        ("nowhere/encoder.pt", []),
        ("models", []),
    ],
)
def test_a_similar_file_is_suggested(folder: Path, text: str, suggested: list[str]) -> None:
    problem = Problem(Rule.NO_SUCH_FILE, "no such file", text)
    found = with_near_misses(problem, parse_reference(text))
    assert [remedy.model for remedy in found.remedies] == suggested


def test_the_class_in_a_python_file_is_suggested(folder: Path) -> None:
    problem = Problem(Rule.NOT_A_MODEL, "the file is a text file", "nets.py")
    found = with_near_misses(problem, parse_reference("nets.py"))
    assert [remedy.model for remedy in found.remedies] == ["nets.py:Net"]
