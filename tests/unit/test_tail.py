"""What a process prints: its end is kept, and no file is filled with the rest."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from composecli.workers.child import SubprocessWorker
from composecli.workers.output_tail import Tail


def test_the_end_of_much_is_kept() -> None:
    tail = Tail(100)
    code = "import sys; [sys.stdout.write('x' * 65536) for _ in range(800)]; print('the end')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=tail.writing)
    tail.start()
    assert process.wait(timeout=60) == 0
    text = tail.text()
    assert text is not None
    assert text.endswith("xxxthe end\n")
    assert len(text) == 100


def test_what_printed_nothing_has_no_end() -> None:
    tail = Tail(100)
    process = subprocess.Popen([sys.executable, "-c", "pass"], stdout=tail.writing)
    tail.start()
    process.wait(timeout=60)
    assert tail.text() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_prints_into_no_file() -> None:
    worker = SubprocessWorker(60)
    try:
        assert os.readlink(f"/proc/{worker._process.pid}/fd/1").startswith("pipe:")
        assert os.readlink(f"/proc/{worker._process.pid}/fd/2").startswith("pipe:")
    finally:
        worker.close()
