"""Private copies do not change with the file."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from composecli.files.private_copy import anonymous_file, copy_privately, digest


def test_a_copy_keeps_the_bytes_of_its_start(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"before" * 1000)
    with copy_privately(str(path)) as copy:
        path.write_bytes(b"after")
        assert copy.read_bytes() == b"before" * 1000
        assert digest(copy) == hashlib.sha256(b"before" * 1000).hexdigest()


def test_a_copy_is_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"content")
    with copy_privately(str(path)) as copy:
        assert copy.exists()
    with pytest.raises(OSError, match=r".*"):
        copy.read_bytes()


def test_a_file_that_is_not_there_cannot_be_copied(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), copy_privately(str(tmp_path / "none")):
        pass


LIMITED = """
import resource, sys
from composecli.files.private_copy import copy_privately

resource.setrlimit(resource.RLIMIT_DATA, (2**28, 2**28))
try:
    with copy_privately(sys.argv[1]):
        pass
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_copy_larger_than_the_memory_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.touch()
    os.truncate(path, 2**28 + 1)
    command = [sys.executable, "-c", LIMITED, str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "it has 268,435,457 bytes, and memory is limited to 268,435,456" in output


def test_an_anonymous_file_is_read_back() -> None:
    with anonymous_file() as file:
        file.write(b"content")
        file.seek(0)
        assert file.read() == b"content"
