"""The command line: exit codes, imports, and complete documentation."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from torch import nn

from composecli.cli import RepeatedOption, main
from composecli.core.rules import Rule, Severity
from composecli.core.version import VERSION
from composecli.report.json_v1 import SCHEMA, schema_text
from tests.commands.running import Composecli
from tests.models import Shelf

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["check", "--help"],
        ["check"],
        ["check", "a.pt"],
        ["nonsense"],
        ["explain"],
    ],
)
def test_help_and_errors_import_neither_torch_nor_rich(words: list[str]) -> None:
    ran = python(
        f"import sys; sys.argv = ['composecli', *{words!r}]\n"
        "from composecli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'rich', 'numpy', 'torchinfo'} & set(sys.modules)\n"
        "sys.stderr.write(f'heavy: {sorted(heavy)}')\n"
    )
    assert ran.stderr.endswith("heavy: []")


def test_the_process_of_a_check_never_imports_torch(shelf: Shelf) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    ran = python(
        f"import sys; sys.argv = ['composecli', 'check', {a!r}, {b!r}]\n"
        "from composecli.cli import main\n"
        "try: main()\n"
        "except SystemExit as end:\n"
        "    sys.stderr.write(f'code {end.code}, torch {\"torch\" in sys.modules}')\n"
    )
    assert ran.stderr.endswith("code 0, torch False")


NO_NUMBERS = {
    "--timeout": ["nan", "inf", "-inf", "-1", "0", "1e300", "soon", ""],
    "--max-seconds": ["nan", "inf", "-2.5", "0", "1e10", "soon"],
    "--max-probes": ["0", "-1", "nan", "1.5"],
    "--max-memory": ["0", "-8G", "nan", "inf", "0.0001", "99999999999999999T", "8X"],
    "--seed": ["-1", "99999999999999999999", "nan"],
}


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option in NO_NUMBERS for value in NO_NUMBERS[option]]
)
def test_numbers_without_meaning_are_usage_errors(
    composecli: Composecli, option: str, value: str
) -> None:
    words = ["join", "a.pt", "b.pt", "-o", "c.pt", option, value]
    ran = composecli(*words)
    assert ran.code == 2
    assert f"Invalid value for '{option}'" in ran.err
    assert composecli.json(*words).json["error"]["code"] == "CC950"


@pytest.mark.parametrize(
    "words",
    [
        ["check", "a.pt"],
        ["check"],
        ["join", "a.pt", "b.pt"],
        ["check", "a.pt", "b.pt", "--input", "x y"],
        ["check", "a.pt", "b.pt", "--device", "tpu"],
        ["check", "a.pt", "b.pt", "--mode", "sideways"],
        ["check", "a.pt", "b.pt", "--timeout", "0"],
        ["join", "a.pt", "b.pt", "-o", "c.pt", "--seed", "-1"],
        ["join", "a.pt", "b.pt", "-o", "c.pt", "--merge", "add"],
        ["check", "a.pt", "b.pt", "--dim", "1"],
        ["explain", "CC000"],
        ["nonsense"],
    ],
)
def test_usage_errors_exit_with_2(composecli: Composecli, words: list[str]) -> None:
    ran = composecli(*words)
    assert ran.code == 2
    assert "Usage: " in ran.err


def test_a_bug_exits_with_70(
    composecli: Composecli, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("composecli.commands.check.check", fail)
    ran = composecli("check", "a.pt", "b.pt")
    assert ran.code == 70
    assert "CC970" in ran.err
    assert "Traceback" not in ran.err
    as_json = composecli.json("check", "a.pt", "b.pt")
    assert (as_json.code, as_json.json["exit_code"]) == (70, 70)


@pytest.mark.parametrize(("error", "code"), [("ZeroDivisionError", 70), ("KeyboardInterrupt", 130)])
def test_an_unexpected_error_never_exits_with_1(error: str, code: int) -> None:
    ran = python(
        "import composecli.cli as cli\n"
        f"def fail(**words): raise {error}('ours')\n"
        "cli.main = fail\ncli.run()\n"
    )
    assert ran.returncode == code
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("words", "code"), [("nonsense", 2), ("--help", 0), ("--version", 0), ("check", 2), ("", 2)]
)
def test_the_entry_point_keeps_the_exit_codes_of_click(words: str, code: int) -> None:
    ran = python(
        f"import sys; sys.argv = ['composecli', *{words.split()!r}]\n"
        "from composecli.cli import run\nrun()"
    )
    assert ran.returncode == code


def test_exit_codes_work_with_shell_operators(shelf: Shelf) -> None:
    a, b, c = (
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("five", nn.Linear(5, 2)),
        shelf.save("narrow", nn.Linear(3, 2)),
    )
    command = f"{sys.executable} -m composecli check"
    for second, deploys in ((b, True), (c, False), ("nothing.pt", False)):
        script = f"{command} {a} {second} && echo deploy"
        ran = subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert ran.stdout.endswith("deploy\n") == deploys
        assert "Traceback" not in ran.stderr


def test_broken_pipe_keeps_the_exit_code(shelf: Shelf) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    for words in ("", "--format json"):
        script = (
            f"{sys.executable} -m composecli check {a} {b} {words} | true; echo ${{PIPESTATUS[0]}}"
        )
        ran = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert (ran.stdout, ran.stderr) == ("0\n", "")


def test_only_debug_shows_a_traceback(composecli: Composecli, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"nothing")
    assert "Traceback" not in composecli("check", broken, broken).err
    assert "Traceback" in composecli("check", broken, broken, "--debug").err


def test_json_is_the_whole_of_stdout_and_versioned(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("narrow", nn.Linear(3, 2))
    checked = composecli.json("check", a, b)
    assert checked.json["schema"] == SCHEMA
    assert checked.json["exit_code"] == checked.code == 1
    assert checked.json["models"][0]["contract"]["text"] == "float32[N, 10] -> float32[N, 5]"
    assert checked.json["seams"][0]["ports"][0]["given"] == "float32[N, 5]"
    assert set(checked.json) == {
        "schema", "exit_code", "command", "verdict", "mode", "device", "strict", "example",
        "result",
        "models", "seams",
        "interrupted", "isolation", "left_out", "warnings",
    }  # fmt: skip
    inspected = composecli.json("inspect", a)
    assert inspected.json["facts"]["parameters"] == 55
    assert inspected.json["layers"][0]["class_name"] == "Linear"


def test_the_schema_of_reports_is_printed(composecli: Composecli) -> None:
    printed = composecli("schema")
    assert (printed.code, printed.out) == (0, schema_text())


def commands() -> dict[str, click.Command]:
    assert isinstance(main, click.Group)
    return dict(main.commands)


def options() -> set[str]:
    return {
        option
        for command in commands().values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_is_in_the_readme_with_its_help(name: str) -> None:
    assert f"composecli {name}" in README
    assert commands()[name].help


@pytest.mark.parametrize("option", sorted(options()))
def test_every_option_is_in_the_readme(option: str) -> None:
    assert option in README


@pytest.mark.parametrize("code", ["0", "1", "2", "3", "70"])
def test_every_exit_code_is_in_the_readme(code: str) -> None:
    assert re.search(rf"^\| {code} \|", README, re.MULTILINE)


@pytest.mark.parametrize("rule", list(Rule))
def test_every_rule_has_a_page(composecli: Composecli, rule: Rule) -> None:
    by_code, by_slug = composecli("explain", rule.value), composecli("explain", rule.slug)
    assert by_code.code == 0
    assert by_code.out == by_slug.out
    assert len(rule.help) > 40
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", rule.slug)


def test_every_rule_is_used_and_every_used_rule_is_there() -> None:
    used = set[str]()
    for path in (ROOT / "composecli").rglob("*.py"):
        if path.name != "rules.py":
            used |= set(re.findall(r"\bRule\.([A-Z_]+)", path.read_text()))
    assert used == set(Rule.__members__)
    assert len({rule.slug for rule in Rule}) == len(Rule)
    assert {rule.severity for rule in Rule} == set(Severity)


def test_the_top_level_has_no_stray_files() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout
    names = {line.split("/")[0] for line in listed.splitlines()}
    plain = {name for name in names if not name.startswith(".")}
    assert plain <= {
        "setup.cfg",
        "setup.py",
        "composecli",
        "tests",
        "sample_models",
        "Makefile",
        "README.md",
    }


def test_a_check_does_not_import_the_compiler(shelf: Shelf) -> None:
    """torch._dynamo takes as long to import as torch, and dispatch modes import it by default."""
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("narrow", nn.Linear(3, 2))
    ran = python(
        f"import composecli, sys; composecli.check({a!r}, {b!r})\n"
        "heavy = {'torch._dynamo', 'sympy', 'torchinfo'} & set(sys.modules)\n"
        "sys.stderr.write(f'{sorted(heavy)}')"
    )
    assert ran.stderr.endswith("[]")


def test_a_suggested_command_repeats_the_options_that_affect_the_models(
    composecli: Composecli, shelf: Shelf
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("narrow", nn.Linear(3, 2))
    repeated = ["--device", "meta", "--input", "2,10", "--training", "eval", "--key", "model",
                "--trust", a, "--allow-op", "aten::from_file", "--timeout", "60",
                "--max-probes", "200"]  # fmt: skip
    others = ["--no-cache", "--device", "meta"]
    checked = composecli.json("check", a, b, *repeated, *others)
    command = shlex.split(checked.json["seams"][0]["findings"][0]["fix"]["command"])
    expected = ["composecli", "join", a, b, *repeated, "--bridge", "linear", "-o", "both.pt"]
    assert command == expected


def test_a_default_is_not_repeated(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("narrow", nn.Linear(3, 2))
    checked = composecli.json("check", a, b, "--device", "cpu", "--training", "saved")
    command = shlex.split(checked.json["seams"][0]["findings"][0]["fix"]["command"])
    assert command == ["composecli", "join", a, b, "--bridge", "linear", "-o", "both.pt"]


def test_options_that_change_the_models_are_declared_as_repeated() -> None:
    """Add a new option to one of these lists."""
    repeated, others = set[str](), set[str]()
    for parameter in commands()["inspect"].params:
        if isinstance(parameter, click.Option):
            names = repeated if isinstance(parameter, RepeatedOption) else others
            names.add(parameter.opts[0])
    assert repeated == {
        "--device", "--input", "--select", "--training", "--key", "--trust", "--allow-op",
        "--import", "--trust-classes", "--timeout", "--max-memory", "--isolation", "--max-probes",
        "--max-seconds",
    }  # fmt: skip
    assert others == {
        "--write-contract", "--force", "--no-cache", "--format", "--quiet", "--debug",
    }  # fmt: skip


def test_the_version_is_that_of_the_package(composecli: Composecli) -> None:
    assert composecli("--version").out == f"composecli, version {VERSION}\n"


def test_a_trusted_file_that_is_not_a_model_is_a_mistake(composecli: Composecli) -> None:
    refused = composecli("check", "a.pt", "b.pt", "--trust", "c.pt")
    assert refused.code == 2
    assert "c.pt is not one of the models" in refused.err
