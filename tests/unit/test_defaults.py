"""Defaults from the environment and from pyproject.toml, and what is never taken from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from composecli.defaults import read_defaults


def test_the_environment_wins_over_the_project(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[tool.composecli]\nstrict = true\nmax-probes = 9\nformat = ["table"]\n')
    assert read_defaults({"COMPOSECLI_TIMEOUT": "7", "COMPOSECLI_FORMAT": "json"}, path) == {
        "strict": True,
        "max_probes": "9",
        "timeout": "7",
        "outputs": ["json"],
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "strickt = true",
            "toml:3: 'strickt' is no default: the nearest key is 'strict'",
        ),
        ('trust = "a.pt"', "'trust' is no default"),
        ('import = "os"', "'import' is no default"),
        ('allow-op = "a::b"', "'allow-op' is no default"),
        ('isolation = "none"', "only the command line weakens the sandbox"),
        ("timeout = 9", "timeout limits the sandbox: use --timeout, or COMPOSECLI_TIMEOUT"),
        ('max-memory = "1T"', "max-memory limits the sandbox"),
        ('format = ["table", "json=x"]', "only the command line names a file to write"),
        ("device = {}", "device is not a text"),
        ("device =", "cannot be read"),
    ],
)
def test_mistakes_name_their_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(f"# x\n[tool.composecli]\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_defaults({}, path)


def test_without_a_table_there_are_no_defaults(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    assert read_defaults({}, path) == {}
    path.write_text("this is no TOML")
    assert read_defaults({}, path) == {}
