"""Digests of files that are computed in a thread."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from composecli.files.writing.digests import Digests


def test_closing_wakes_those_who_wait_for_a_digest(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 10**13)
    with Digests((str(large),)) as digests:
        threading.Timer(0.1, digests.close).start()
        with pytest.raises(OSError, match="anceled"):
            digests.of(str(large))


def test_digests_and_changes_are_those_of_the_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1" * 3_000_000)
    other.write_bytes(b"")
    with Digests((str(one), str(other), str(one), str(tmp_path / "none"))) as digests:
        assert digests.of(str(other)) == hashlib.sha256(b"").hexdigest()
        assert digests.of(str(one)) == hashlib.sha256(b"1" * 3_000_000).hexdigest()
        with pytest.raises(FileNotFoundError):
            digests.of(str(tmp_path / "none"))
        assert digests.changed() == ()
        one.write_bytes(b"2")
        assert digests.changed() == (str(one),)
