"""What a shell can do to a command: streams, limits and folders that are not as usual.

None of it is a bug of composecli (exit code 70), and none may look like an answer about the models.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from tests.commands.running import Ran, environment
from tests.models import Shelf
from tests.schema import parse_report

SCRIPT = Path(sys.executable).with_name("composecli")
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")


def shell(script: str, **variables: str) -> Ran:
    """Run a bash script in which `composecli` is the installed command."""
    folder = str(SCRIPT.parent)
    path = os.pathsep.join((folder, os.environ["PATH"]))
    ran = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env={**environment(), "PATH": path, **variables},
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture
def pair(shelf: Shelf) -> str:
    """Two models that fit together, as the words of a command."""
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    return f"{a} {b}"


@FULL
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["--help", "--version", "explain", "schema"])
def test_full_stdout_is_told(words: str, unbuffered: str) -> None:
    ran = shell(f"composecli {words} >/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert ran.code == 3
    assert "error[CC941]: the report could not be printed: No space left on device" in ran.err


@FULL
@pytest.mark.parametrize("form", ["table", "json"])
def test_full_stdout_of_a_check_is_told(pair: str, form: str) -> None:
    ran = shell(f"composecli check {pair} --format {form} >/dev/full")
    assert ran.code == 3
    assert ran.err.startswith("error[CC941]: the report could not be printed")
    assert "help: redirect stdout" in ran.err


@FULL
def test_a_join_that_cannot_report_says_that_the_file_was_written(pair: str, here: Path) -> None:
    ran = shell(f"composecli join {pair} -o both.pt >/dev/full")
    assert ran.code == 3
    assert "note: both.pt was written and verified" in ran.err
    assert Path("both.pt").exists()


@FULL
@pytest.mark.parametrize(("words", "code"), [("check a.pt b.pt", 3), ("nonsense", 2)])
def test_full_or_closed_stderr_keeps_the_exit_code(here: Path, words: str, code: int) -> None:
    for state in ("2>/dev/full", "2>&-"):
        ran = shell(f"composecli {words} {state}")
        assert (ran.code, ran.out) == (code, "")


def test_closed_stderr_and_stdin_do_not_matter_to_an_answer(pair: str, here: Path) -> None:
    ran = shell(f"composecli check {pair} --format json --debug 2>&- <&-")
    assert ran.code == 0
    assert json.loads(ran.out)["verdict"] == "compatible"


@pytest.mark.parametrize("words", ["--help", "explain CC203", "check {pair} --format json"])
def test_closed_stdout_is_told_before_anything_runs(pair: str, words: str) -> None:
    ran = shell(f"composecli {words.format(pair=pair)} >&-")
    assert ran.code == 3
    assert ran.err.startswith("error[CC941]: the report could not be printed: stdout is closed")


def test_a_join_with_all_streams_closed_writes_nothing(pair: str, here: Path) -> None:
    assert shell(f"composecli join {pair} -o both.pt <&- >&- 2>&-").code == 3
    assert list(here.iterdir()) == []


def test_a_file_that_takes_no_more_is_told(pair: str, here: Path) -> None:
    ran = shell(f"ulimit -f 0; composecli check {pair} >report.txt")
    assert ran.code == 3
    assert "CC941" in ran.err
    assert "File too large" in ran.err


@pytest.mark.parametrize("count", [5, 6, 7, 8])
def test_too_few_open_files_are_told(pair: str, count: int) -> None:
    ran = shell(f"ulimit -n {count}; composecli check {pair}")
    assert ran.code == 3
    assert "error[CC940]: the system refused to go on: Too many open files" in ran.err
    assert "ulimit -n 256" in ran.err


def test_too_few_open_files_are_told_in_json(pair: str) -> None:
    ran = shell(f"ulimit -n 8; composecli check {pair} --format json")
    assert (ran.code, ran.json["error"]["code"]) == (3, "CC940")


@pytest.mark.parametrize("columns", ["0", "1", "-5", "wide", "", "100000"])
def test_a_width_that_is_none_is_not_taken_for_one(pair: str, columns: str) -> None:
    ran = shell(f"composecli check {pair}", COLUMNS=columns)
    assert (ran.code, ran.err) == (0, "")
    assert "verdict: compatible" in ran.out


def test_a_deleted_working_folder_does_not_matter_to_other_folders(pair: str, here: Path) -> None:
    start = "mkdir gone; cd gone; rmdir ../gone; "
    assert shell(f"{start} composecli check {pair}").code == 0
    assert shell(f"{start} composecli join {pair} -o {here}/both.pt").code == 0
    relative = shell(f"{start} composecli check a.pt b.pt")
    assert (relative.code, "CC901" in relative.err) == (3, True)
    output = shell(f"{start} composecli join {pair} -o both.pt")
    assert (output.code, "CC921" in output.err) == (3, True)


@pytest.mark.parametrize(("words", "code"), [("check a.pt b.pt", 3), ("nope", 2), ("--help", 0)])
def test_pythoninspect_keeps_the_exit_code(here: Path, words: str, code: int) -> None:
    for command in ("composecli", f"{sys.executable} -m composecli"):
        ran = shell(f"{command} {words}", PYTHONINSPECT="1")
        assert ran.code == code
        assert "Traceback" not in ran.err


def test_pythoninspect_does_not_change_a_verdict(pair: str, here: Path) -> None:
    ran = shell(f"composecli check {pair} --format json", PYTHONINSPECT="1")
    assert (ran.code, ran.err, ran.json["verdict"]) == (0, "", "compatible")


@pytest.mark.parametrize(
    "words",
    [
        "check --format json",
        "check a.pt --format=json",
        "check a.pt b.pt --format json --input 'x y'",
        "check a.pt b.pt --format json --nonsense",
        "inspect a.pt --format json --trust b.pt",
        "nonsense --format json",
    ],
)
def test_usage_errors_are_json_if_json_was_asked_for(here: Path, words: str) -> None:
    ran = shell(f"composecli {words}")
    report = parse_report(ran.out)
    assert (ran.code, report["exit_code"], ran.err) == (2, 2, "")
    assert report["error"]["code"] == "CC950"
    assert report["error"]["help"][0].endswith("--help")


@pytest.mark.parametrize(
    ("words", "code"),
    [("check --format table", 2), ("check -- --format json", 3)],
)
def test_usage_errors_of_a_table_are_text(here: Path, words: str, code: int) -> None:
    ran = shell(f"composecli {words}")
    assert (ran.code, ran.out) == (code, "")


INTERRUPT_EARLY = """
import os, signal, sys, time
sys.argv = ["composecli", *{words!r}]
from composecli import early_signals
early_signals.handle()
if os.fork() == 0:
    time.sleep({seconds})
    os.kill(os.getppid(), signal.{name})
    os._exit(0)
from composecli.__main__ import run
run()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
def test_an_early_signal_is_never_silent(shelf: Shelf, name: str, seconds: float) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    words = ["check", a, b, "--format", "json", "--no-cache"]
    program = INTERRUPT_EARLY.format(seconds=seconds, name=name, words=words)
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(),
        check=False,
    )  # fmt: skip
    code = 130 if name == "SIGINT" else 143
    assert (ran.returncode, ran.stderr) == (code, "")
    report = parse_report(ran.stdout)
    assert report["exit_code"] == code
    assert report["error"]["title"] in ("interrupted", "terminated")


def test_an_early_signal_of_a_table_is_a_line_on_stderr(here: Path) -> None:
    program = INTERRUPT_EARLY.format(seconds=0, name="SIGINT", words=["check", "a.pt", "b.pt"])
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(),
        check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "interrupted\n")


def test_the_installed_command_handles_signals_before_its_imports(here: Path) -> None:
    """The wrapper of the console script imports nothing else before them."""
    code = "import sys, composecli.__main__; print([m for m in sys.modules if 'click' in m])"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment(),
        check=True,
    )  # fmt: skip
    assert ran.stdout == "[]\n"
