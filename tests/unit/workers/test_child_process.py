"""How a process ended is described, its output is kept, and nothing that it started survives."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from composecli.workers.child_process import ChildProcess, child_environment
from composecli.workers.protocol import Done

PARENT_OF_A_SLEEPER = """
import subprocess, sys, time
from pathlib import Path
sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
path = Path(__file__).with_name("sleeper")
path.with_suffix(".new").write_text(str(sleeper.pid))
path.with_suffix(".new").rename(path)
time.sleep(60)
"""
ECHO = """
import sys
from composecli.workers.channel import Channel
from composecli.workers.protocol import AnyReply
channel = Channel(*map(int, sys.argv[1:3]))
channel.send(channel.receive(AnyReply))
"""


def start(folder: Path, code: str) -> ChildProcess:
    (folder / "child_module.py").write_text(code)
    environment = child_environment(untrusted=False)
    environment["PYTHONPATH"] += os.pathsep + str(folder)
    return ChildProcess("child_module", environment, show_output=False)


@pytest.mark.parametrize(
    ("code", "description"),
    [
        ("", "ended with exit code 0"),
        ("import os; os._exit(7)", "ended with exit code 7"),
        ("import os; os.abort()", "was killed by SIGABRT"),
    ],
)
def test_the_end_of_a_process_is_described(tmp_path: Path, code: str, description: str) -> None:
    process = start(tmp_path, code)
    assert process.describe_exit() == description
    assert not process.is_running
    process.close()


def test_process_answers_over_its_channel(tmp_path: Path) -> None:
    process = start(tmp_path, ECHO)
    process.channel.send(Done())
    assert process.channel.receive(Done, time.monotonic() + 20) == Done()
    process.close()


def test_output_of_both_streams_is_kept(tmp_path: Path) -> None:
    process = start(tmp_path, "import os; os.write(1, b'out '); os.write(2, b'err')")
    process.describe_exit()
    assert process.printed() == "out err"
    process.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killing_a_process_ends_the_processes_that_it_started(tmp_path: Path) -> None:
    process = start(tmp_path, PARENT_OF_A_SLEEPER)
    deadline = time.monotonic() + 20
    while not (tmp_path / "sleeper").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    sleeper = int((tmp_path / "sleeper").read_text())
    assert _is_running(sleeper)
    process.close()
    while _is_running(sleeper) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_running(sleeper)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_closing_twice_does_no_harm(tmp_path: Path) -> None:
    process = start(tmp_path, "import time; time.sleep(60)")
    process.close()
    process.close()
    assert not process.is_running


@pytest.mark.parametrize("untrusted", [True, False])
def test_environment_of_an_untrusted_child_has_no_secrets(
    monkeypatch: pytest.MonkeyPatch, untrusted: bool
) -> None:
    monkeypatch.setenv("CI_SECRET", "hush")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    variables = child_environment(untrusted=untrusted)
    assert ("CI_SECRET" in variables) == (not untrusted)
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in variables
    assert variables["LC_ALL"] == "C.UTF-8"
    assert variables["OMP_NUM_THREADS"] == "1"
    package_root, *others = variables["PYTHONPATH"].split(os.pathsep)
    assert (Path(package_root) / "composecli" / "workers").is_dir()
    assert others == ["/somewhere"]
