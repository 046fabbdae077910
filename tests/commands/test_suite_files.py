"""Suite files: each mistake is named with its line, and no file of a stranger does more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli, Installed

PAIR = '[models]\na = "a.pt"\nb = "b.pt"\n[[pair]]\nproducer = "a"\nconsumer = "b"\n'
# Each text, the line of its mistake, and what is said about it.
MISTAKES: dict[str, tuple[str, int | None, str]] = {
    "empty": ("", 1, "there is nothing to check"),
    "models alone": ('[models]\na = "a.pt"\n', 1, "there is nothing to check"),
    "unknown table": (PAIR + "[[pairs]]\n", 7, "pairs: there is no key pairs; did you mean pair?"),
    "unknown key": (PAIR + 'expects = "compatible"\n', 7, "did you mean expect?"),
    "unknown expected": (PAIR + 'expect = "compatibel"\n', 7, "did you mean compatible?"),
    "unknown is no expectation": (PAIR + 'expect = "unknown"\n', 7, "unknown is not known here"),
    "unknown model": (PAIR.replace('= "b"\n', '= "bb"\n'), 6, "there is no model bb"),
    "no models": ('[[pair]]\nproducer = "a"\nconsumer = "b"\n', 2, "there are no [models]"),
    "missing key": (PAIR.replace('consumer = "b"\n', ""), 4, "the key consumer is missing"),
    "table for a list": ('[pair]\nproducer = "a"\n', 1, "write [[pair]], with two brackets"),
    "number for a path": ("[models]\na = 1\n", 2, "a path is expected, or {"),
    "date": ("[models]\na = 2020-01-01\n", 2, "a path is expected, or {"),
    "empty path": (PAIR.replace('"a.pt"', '""'), 2, "a path, a glob or a factory"),
    "input": (PAIR.replace('"a.pt"', '{path = "a.pt", inputs = ["float32[N"]}'), 2, "float32[N"),
    "numbered input": (PAIR.replace('"a.pt"', '{path = "a.pt", inputs = ["2:1,3"]}'), 2, "number"),
    "flag": (PAIR + 'strict = "yes"\n', 7, "true or false is expected"),
    "selection": (PAIR + 'select = ["x", ""]\n', 7, "no port is named"),
    "merge": ('[models]\na = "a.pt"\n[[parallel]]\nmodels = ["a", "a"]\nmerge = "sum"\n', 5, "sum"),
    "one model": ('[models]\na = "a.pt"\n[[chain]]\nmodels = ["a"]\n', 4, "2 to 100 models"),
    "device": (PAIR + '[options]\ndevice = "gpu"\n', 8, "there is no device gpu"),
    "training": (PAIR + '[options]\ntraining = "evil"\n', 8, "did you mean eval?"),
    "probes": (PAIR + "[options]\nmax_probes = 0\n", 8, "a number of probes above 0"),
    "seconds": (PAIR + "[options]\nmax_seconds = nan\n", 8, "is not a time in seconds"),
    "trust": (PAIR + '[options]\ntrust = ["a.pt"]\n', 8, "there is no key trust"),
    "isolation": (PAIR + '[options]\nisolation = "none"\n', 8, "there is no key isolation"),
    "imports": (PAIR + '[options]\nimport = ["evil"]\n', 8, "there is no key import"),
    "no contract": ('[models]\na = "a.pt"\n[[contract]]\nmodel = "a"\n', 3, "either text or file"),
    "not closed": (PAIR + 'name = "\n', 7, "illegal character"),
    "twice": (PAIR + 'producer = "a"\n', 7, "cannot overwrite a value"),
    "no end": ("[models", 1, "expected ']'"),
    "digits": (PAIR + f"dim = {'9' * 5000}\n", None, "it has a number that is too long"),
    "dots": (PAIR + ".".join("a" * 100) + " = 1\n", 7, "the line has more than 50 dots"),
    "deep": (PAIR + f"name = {'[' * 5000}{']' * 5000}\n", None, "it is nested too deeply"),
    "long": (PAIR + "#" * 2**18, None, "it has more than 262,144 bytes"),
    "items": (
        '[models]\na = "a.pt"\n' + '[[fit]]\nmodel="a"\n' * 2001, 1, "more than 2,000 items",
    ),
    "null": (PAIR.replace('"a.pt"', '"a\\u0000.pt"'), 2, "a path, a glob or a factory"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_line(composecli: Composecli, here: Path, name: str) -> None:
    text, line, message = MISTAKES[name]
    Path("ci.toml").write_text(text)
    ran = composecli.json("suite", "ci.toml")
    error = ran.json["error"]
    assert (ran.code, error["code"]) == (2, "CC960"), ran.out
    assert error["where"] == ("ci.toml" if line is None else f"ci.toml:{line}"), error
    assert message in error["notes"][0], error
    assert error["help"] == ["composecli schema suite"]


def test_bytes_that_are_not_text_are_named_with_their_line(
    composecli: Composecli, here: Path
) -> None:
    Path("ci.toml").write_bytes(PAIR.encode() + b'name = "\xff"\n')
    error = composecli.json("suite", "ci.toml").json["error"]
    assert (error["where"], error["notes"]) == ("ci.toml:7", ["it is not UTF-8 text"])


def test_lines_may_end_as_on_windows(composecli: Composecli, here: Path) -> None:
    Path("ci.toml").write_bytes((PAIR + "wrong = 1\n").replace("\n", "\r\n").encode())
    assert composecli.json("suite", "ci.toml").json["error"]["where"] == "ci.toml:7"


@pytest.mark.parametrize("path", ["missing.toml", ".", "/dev/null", "pipe"])
def test_what_is_no_file_is_a_problem(installed: Installed, here: Path, path: str) -> None:
    import os

    os.mkfifo("pipe")
    ran = installed.json("suite", path)
    assert ran.code == 3
    assert ran.json["error"]["code"] in ("CC901", "CC902")


def test_control_characters_of_a_suite_are_escaped(installed: Installed, here: Path) -> None:
    text = (
        '[models]\n"a\\u202e[red]" = "a\\u001b[2J.pt"\n'
        '[[pair]]\nname = "x\\u001b[2J\\n::error::"\n'
        'producer = "a\\u202e[red]"\nconsumer = "a\\u202e[red]"\n'
    )
    Path("ci.toml").write_text(text)
    ran = installed("suite", "ci.toml")
    assert ran.code == 3
    assert not re.search("[\x1b\u202e]|\n::error::", ran.out)
    Path("ci.toml").write_text(text + '"wrong\\u001b[2J" = 1\n')
    ran = installed("suite", "ci.toml")
    assert ran.code == 2
    assert "\x1b" not in ran.err


def test_a_glob_matches_no_more_than_a_command_may_check(
    composecli: Composecli, here: Path
) -> None:
    torch.jit.script(nn.Linear(2, 2)).save("a.pt")
    for number in range(1001):
        Path(f"m{number}.pt").touch()
    tables = '[[pair]]\nproducer = "a"\nconsumer = "many"\n'
    for pattern, message in (
        ("m*.pt", "the glob matches more than 1,000 files"),
        ("*/*/*/*.pt", "a glob has patterns in at most 3 parts of the path"),
        ("none*.pt", "no file matches the glob"),
    ):
        Path("ci.toml").write_text(f'[models]\na = "a.pt"\nmany = "{pattern}"\n{tables}')
        ran = composecli.json("suite", "ci.toml")
        (item,) = ran.json["items"]
        assert (ran.code, item["problem"]["title"]) == (3, message)


def test_groups_make_no_more_checks_than_a_limit(composecli: Composecli, here: Path) -> None:
    for number in range(150):
        Path(f"m{number}.pt").touch()
    text = '[models]\nm = "m*.pt"\n[[pair]]\nproducer = "m"\nconsumer = "m"\n'
    Path("ci.toml").write_text(text)
    error = composecli.json("suite", "ci.toml").json["error"]
    assert (error["code"], error["where"]) == ("CC960", "ci.toml:3")
    assert error["title"] == "the groups make more than 10,000 checks"


def test_a_file_whose_name_looks_like_a_glob_is_that_file(
    composecli: Composecli, here: Path
) -> None:
    torch.jit.script(nn.Linear(2, 2)).save("a[1].pt")
    torch.jit.script(nn.Linear(2, 2)).save("a1.pt")
    Path("ci.toml").write_text(
        '[models]\nm = "a[1].pt"\n[[pair]]\nproducer = "m"\nconsumer = "m"\n'
    )
    (item,) = composecli.json("suite", "ci.toml").json["items"]
    assert item["models"] == ["a[1].pt", "a[1].pt"]


def test_an_expected_contract_that_cannot_be_read_is_a_row(
    composecli: Composecli, here: Path
) -> None:
    torch.jit.script(nn.Linear(2, 2)).save("a.pt")
    Path("bad.json").write_text('{"inputs": [\n {"dtype": 1}], "outputs": []}')
    Path("ci.toml").write_text(
        '[models]\na = "a.pt"\n[[contract]]\nmodel = "a"\nfile = "none.json"\n'
        '[[contract]]\nmodel = "a"\nfile = "bad.json"\n[[contract]]\nmodel = "a"\ntext = "x"\n'
    )
    ran = composecli.json("suite", "ci.toml")
    codes = [item["problem"] and item["problem"]["code"] for item in ran.json["items"]]
    assert codes == ["CC901", "CC933", None]
    assert ran.json["items"][1]["problem"]["where"] == "bad.json:2"
    assert ran.json["items"][2]["outcome"] == "different"
