"""The formats for CI: they say the same, follow their schemas, and go where they are asked to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import torch
import xmlschema
from junitparser import JUnitXml
from torch import nn

from tests.commands.running import Composecli, Installed
from tests.models import Shelf

SCHEMAS = Path(__file__).parents[1] / "cases" / "schemas"
GOLDEN = Path(__file__).parents[1] / "golden" / "formats"
FORMATS = ("table", "json", "junit", "sarif", "github", "gitlab", "markdown")
SUITE = """
[models]
a = "a.pt"
narrow = "narrow.pt"
garbage = "garbage.pt"
[[pair]]
producer = "a"
consumer = "narrow"
[[contract]]
model = "a"
text = "float32[N, 10] -> float32[N, 7]"
[[pair]]
producer = "a"
consumer = "garbage"
"""


@pytest.fixture
def here(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with models, of which one has a name that every format has to escape."""
    monkeypatch.chdir(tmp_path)
    modules = {
        "a.pt": nn.Linear(10, 5),
        "b.pt": nn.Linear(5, 2),
        "narrow.pt": nn.Linear(3, 2),
        "odd,|:%<é\x07\n`.pt": nn.Linear(3, 2),
    }
    for number, (name, module) in enumerate(modules.items()):
        os.symlink(shelf.save(f"formats_{number}", module), name)
    os.remove("a.pt")
    torch.jit.save(torch.jit.script(nn.Linear(10, 5)), "a.pt")
    Path("suite.toml").write_text(SUITE)
    Path("mistake.toml").write_text(SUITE.replace("producer", "produser"))
    Path("garbage.pt").write_bytes(b"garbage")
    return tmp_path


ODD = "odd,|:%<é\x07\n`.pt"
COMMANDS = {
    "compatible": ("check", "a.pt", "b.pt"),
    "bridgeable": ("check", "a.pt", "narrow.pt"),
    "parallel": ("check", "--mode", "parallel", "a.pt", "a.pt"),
    "odd name": ("check", "a.pt", ODD),
    "mistake": ("suite", "mistake.toml"),
    "unreadable": ("check", "a.pt", "garbage.pt"),
    "inspect": ("inspect", "a.pt"),
    "suite": ("suite", "suite.toml"),
    "join": ("join", "a.pt", "b.pt", "-o", "both.pt", "--force"),
}
CODES = {
    "compatible": 0, "bridgeable": 1, "parallel": 0, "odd name": 1, "mistake": 2, "unreadable": 3,
    "inspect": 0, "suite": 1, "join": 0,
}  # fmt: skip


def is_json(schema: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        jsonschema.validate(json.loads(text), json.loads((SCHEMAS / schema).read_text()))

    return check


def is_junit(text: str) -> None:
    xmlschema.XMLSchema(SCHEMAS / "junit.xsd").validate(text)


def is_github(text: str) -> None:
    *annotations, last = text.splitlines()
    for line in annotations:
        assert re.fullmatch(r"::(error|warning|notice) (\w+=[^,:]*)(,\w+=[^,:]*)*::.*", line)
    assert re.fullmatch(r"composecli( \w+)?: \d+ of \d+ passed", last)


def is_markdown(text: str) -> None:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert text.count("```") % 2 == 0


VALID = {
    "sarif": is_json("sarif-2.1.0.json"),
    "gitlab": is_json("gitlab-code-quality.json"),
    "junit": is_junit,
    "github": is_github,
    "markdown": is_markdown,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_format_has_the_same_exit_code_and_follows_its_schema(
    composecli: Composecli, here: Path, command: str
) -> None:
    for form in FORMATS:
        ran = composecli(*COMMANDS[command], "--format", form)
        assert ran.code == CODES[command], (form, ran.err)
        if form in VALID:
            VALID[form](ran.out)


@pytest.mark.parametrize("form", VALID)
def test_the_same_results_in_each_format(installed: Installed, here: Path, form: str) -> None:
    ran = installed("suite", "suite.toml", "--format", form)
    assert ran.code == 1
    path = GOLDEN / f"suite.{form}"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(ran.out)
    assert ran.out == path.read_text()


def test_reports_go_to_files_and_the_table_to_stdout(installed: Installed, here: Path) -> None:
    words = ("--format", "junit=report.xml", "--format", "sarif=report.sarif")
    ran = installed(*COMMANDS["bridgeable"], *words)
    assert ran.code == 1
    assert ran.out == installed(*COMMANDS["bridgeable"]).out
    (suite,) = JUnitXml.fromfile("report.xml")
    assert (suite.tests, suite.failures) == (1, 1)
    VALID["sarif"](Path("report.sarif").read_text())
    assert sorted(path.name for path in here.glob(".composecli*")) == []


def test_another_format_takes_the_place_of_the_table(installed: Installed, here: Path) -> None:
    ran = installed("check", "a.pt", "b.pt", "--format", "json", "--format", "markdown=s.md")
    assert ran.json["exit_code"] == 0
    assert "✅" in Path("s.md").read_text()


def test_a_problem_is_in_the_report_file_too(installed: Installed, here: Path) -> None:
    ran = installed(*COMMANDS["unreadable"], "--format", "junit=report.xml")
    assert ran.code == 3
    (suite,) = JUnitXml.fromfile("report.xml")
    assert (suite.tests, suite.errors) == (1, 1)


WRONG = {
    "nope": "is not one of table, json, junit",
    "junit=": "names no file",
    "json=a.pt": "it is a file of this command",
    "json=missing/report.json": "there is no folder missing",
    "json=.": "it is a folder",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_place_that_no_report_can_go_to_is_a_usage_error(
    installed: Installed, here: Path, text: str
) -> None:
    before = Path("a.pt").read_bytes()
    ran = installed("check", "a.pt", "b.pt", "--format", text)
    assert ran.code == 2
    assert WRONG[text] in ran.err
    assert Path("a.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("suite", "suite.toml"), "suite.toml"),
        (("suite", "suite.toml"), "a.pt"),
        (("check", "net.py:Net@w.pt"), "net.py"),
        (("check", "net.py:Net@w.pt"), "w.pt"),
        (("inspect", "a.pt", "--input", "@sample.pt"), "sample.pt"),
        (("inspect", "a.pt", "--write-contract", "a.json"), "a.json"),
        (("join", "a.pt", "b.pt", "-o", "both.pt"), "both.pt"),
    ],
)
def test_no_report_replaces_a_file_of_its_command(
    composecli: Composecli, here: Path, words: tuple[str, ...], name: str
) -> None:
    for path in ("net.py", "w.pt", "sample.pt"):
        Path(path).write_text("kept")
    before = Path(name).read_bytes() if Path(name).exists() else None
    ran = composecli(*words, "--format", f"json={name}")
    assert ran.code == 2
    assert "it is a file of this command" in ran.err
    after = Path(name).read_bytes() if Path(name).exists() else None
    assert before == after


@pytest.mark.parametrize(
    "words",
    [
        ("--format", "junit", "--format", "sarif"),
        ("--format", "junit=x", "--format", "sarif=x"),
    ],
)
def test_two_reports_need_two_places(
    composecli: Composecli, here: Path, words: tuple[str, ...]
) -> None:
    ran = composecli("check", "a.pt", "b.pt", *words)
    assert ran.code == 2
    assert "two reports cannot both be written to" in ran.err


def test_a_full_disk_leaves_the_old_report(installed: Installed, here: Path) -> None:
    ran = installed("check", "a.pt", "b.pt", "--format", "json=/dev/full")
    assert (ran.code, "CC941" in ran.err or "could not be written" in ran.err) == (3, True)


def test_a_pipe_is_written_to_and_not_replaced(installed: Installed, here: Path) -> None:
    ran = installed("check", "a.pt", "b.pt", "--format", "github=/dev/stderr")
    assert ran.code == 0
    assert "composecli check: 1 of 1 passed" in ran.err


def test_fingerprints_stay_when_numbers_change(composecli: Composecli, here: Path) -> None:
    prints = list[list[str]]()
    for width in (3, 4):
        torch.jit.save(torch.jit.script(nn.Linear(width, 2)), "changing.pt")
        ran = composecli("check", "a.pt", "changing.pt", "--format", "gitlab", "--no-cache")
        prints.append([issue["fingerprint"] for issue in json.loads(ran.out)])
    assert prints[0] == prints[1] != []


def test_the_command_line_wins_over_the_project(composecli: Composecli, here: Path) -> None:
    project = Path("pyproject.toml")
    project.write_text('[tool.composecli]\nformat = "json"\nstrict = true\n')
    words = ("check", "a.pt", "b.pt")
    assert composecli(*words).json["strict"] is True
    assert composecli(*words, "--no-strict").json["strict"] is False
    assert "(every size required)" in composecli(*words, "--format", "table").out
    project.write_text("[tool.composecli]\nstrickt = true\n")
    ran = composecli(*words)
    assert (ran.code, "nearest key is 'strict'" in ran.err) == (2, True)
