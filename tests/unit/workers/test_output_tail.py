"""The end of what a process prints is kept, and the rest fills no file."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from composecli.workers.child import SubprocessWorker
from composecli.workers.output_tail import Tail


def test_end_of_much_output_is_kept() -> None:
    tail = Tail(100)
    code = "import sys; [sys.stdout.write('x' * 65536) for _ in range(800)]; print('the end')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=tail.writing)
    tail.start()
    assert process.wait(timeout=60) == 0
    text = tail.text()
    assert text is not None
    assert text.endswith("xxxthe end\n")
    assert len(text) == 100


def test_no_output_has_no_tail() -> None:
    tail = Tail(100)
    process = subprocess.Popen([sys.executable, "-c", "pass"], stdout=tail.writing)
    tail.start()
    process.wait(timeout=60)
    assert tail.text() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_child_prints_into_a_pipe_and_no_file() -> None:
    worker = SubprocessWorker(60)
    try:
        assert os.readlink(f"/proc/{worker.pid}/fd/1").startswith("pipe:")
        assert os.readlink(f"/proc/{worker.pid}/fd/2").startswith("pipe:")
    finally:
        worker.close()
