"""The channel between the command and its child is no stream that code of a model may meet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from tests.commands.running import environment
from tests.models import Shelf
from tests.safety.kernels import run_on

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="closes descriptors")

FACTORY = """
import os, subprocess, sys
from torch import nn
def make():
    {body}
    return nn.Linear(10, 5)
"""
# What a factory may do to its descriptors without disturbing the answer.
HARMLESS = {
    "prints garbage": 'print(\'{"type": "Done"}\', flush=True); os.write(1, bytes(range(256)))',
    "writes to stderr": "os.write(2, b'\\x00\\x00\\x00\\x02{}')",
    "closes its streams": "os.close(0); os.close(1); os.close(2)",
    "closes and opens": "os.close(1); os.open(os.devnull, os.O_WRONLY); os.write(1, b'garbage')",
    "prints much": "[os.write(1, b'x' * 65536) for _ in range(64)]",
    "reads stdin": "assert sys.stdin.read() == ''",
}
# A program that it starts may write to every number without meeting the channel.
CHILD = """
import os
for number in range(3, 64):
    try:
        os.write(number, b"garbage garbage")
    except OSError:
        pass
"""
BREAKS_THE_CHANNEL = "os.closerange(3, 256)"


def _factory(folder: Path, body: str) -> str:
    (folder / "net.py").write_text(FACTORY.format(body=body))
    return f"{folder}/net.py:make"


@pytest.mark.parametrize("name", HARMLESS)
def test_streams_of_a_factory_do_not_reach_the_answer(
    shelf: Shelf, tmp_path: Path, name: str
) -> None:
    model = _factory(tmp_path, HARMLESS[name])
    ran = run_on("", "check", model, shelf.save("five", nn.Linear(5, 2)), "--format", "json")
    assert (ran.code, ran.json["verdict"]) == (0, "compatible")


def test_program_that_a_factory_starts_does_not_inherit_the_channel(
    shelf: Shelf, tmp_path: Path
) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    start = f"subprocess.run([sys.executable, {str(tmp_path / 'child.py')!r}], close_fds=False)"
    model = _factory(tmp_path, start)
    ran = run_on("", "check", model, shelf.save("five", nn.Linear(5, 2)), "--format", "json")
    assert (ran.code, ran.json["verdict"]) == (0, "compatible")


def test_factory_that_closes_the_channel_is_a_crash_of_the_worker(
    shelf: Shelf, tmp_path: Path
) -> None:
    model = _factory(tmp_path, BREAKS_THE_CHANNEL)
    ran = run_on("", "check", model, shelf.save("five", nn.Linear(5, 2)), "--format", "json")
    assert ran.code == 3
    assert ran.json["error"]["code"] == "CC916"


IN_A_PROCESS_WITHOUT_STREAMS = """
import os, sys
from pathlib import Path
for number in map(int, sys.argv[2]):
    os.close(number)
from composecli import inspect
from composecli.workers.child import SubprocessWorker
worker = SubprocessWorker(120, show_output=len(sys.argv[2]) > 2)
report = inspect(sys.argv[1], worker=worker)
worker.close()
Path(sys.argv[3]).write_text(str(report.model.contract))
os._exit(0)
"""


@pytest.mark.parametrize("closed", ["0", "012"])
def test_child_of_a_process_without_streams_answers(
    shelf: Shelf, tmp_path: Path, closed: str
) -> None:
    path, result = shelf.save("linear", nn.Linear(10, 5)), tmp_path / "result"
    command = [sys.executable, "-c", IN_A_PROCESS_WITHOUT_STREAMS, path, closed, str(result)]
    subprocess.run(command, env=environment(), check=True, timeout=300)
    assert result.read_text() == "float32[N, 10] -> float32[N, 5]"
