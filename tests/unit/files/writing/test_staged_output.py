"""Outputs appear complete under their names, or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from composecli.core.errors import CouldNotAttempt
from composecli.core.rules import Rule
from composecli.files.writing import staged_output
from composecli.files.writing.staged_output import (
    MIN_FREE_BYTES,
    could_not_write,
    full,
    resolve_output,
    staged,
)


def refusal(path: Path, *inputs: str, force: bool = False) -> Rule:
    with pytest.raises(CouldNotAttempt) as caught:
        resolve_output(str(path), inputs, force=force)
    return caught.value.problem.rule


def test_an_output_is_refused_if_it_must_not_be_written(tmp_path: Path) -> None:
    existing = tmp_path / "existing"
    existing.write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(existing)
    os.mkfifo(tmp_path / "pipe")
    assert refusal(existing) is Rule.OUTPUT_EXISTS
    assert refusal(link, str(existing), force=True) is Rule.OUTPUT_IS_AN_INPUT
    assert refusal(tmp_path / "none", str(tmp_path / "none")) is Rule.OUTPUT_IS_AN_INPUT
    assert refusal(tmp_path, force=True) is Rule.OUTPUT_IS_NOT_A_FILE
    assert refusal(tmp_path / "pipe", force=True) is Rule.OUTPUT_IS_NOT_A_FILE
    assert refusal(tmp_path / "no folder" / "out") is Rule.COULD_NOT_WRITE


@pytest.mark.parametrize(
    ("path", "existing", "free"),
    [
        ("both.pt", ["both.pt"], "both-2.pt"),
        ("both.pt", ["both.pt", "both-2.pt", "both-3.pt"], "both-4.pt"),
        ("both-2.pt", ["both-2.pt"], "both-3.pt"),
        ("both", ["both"], "both-2"),
        ("my models.pt", ["my models.pt"], "'my models-2.pt'"),
        ("x.pt2", [], "x.pt"),
        ("x.pt2", ["x.pt"], "x-2.pt"),
        ("x.PT2", ["x.PT2"], "x.pt"),
    ],
)
def test_the_help_names_an_output_that_is_free(
    here: Path, path: str, existing: list[str], free: str
) -> None:
    for name in existing:
        Path(name).touch()
    with pytest.raises(CouldNotAttempt) as caught:
        resolve_output(path, (), force=False)
    assert caught.value.problem.help[0].removesuffix(" is free") == f"-o {free}"
    assert caught.value.problem.rule.exit_code == 2


def test_a_link_is_followed_to_its_target(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    output = resolve_output(str(link), (), force=False)
    assert (output.path, output.target) == (str(link), tmp_path / "target")


def test_a_committed_file_has_the_name_and_the_mode_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out.pt"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with staged(resolve_output(str(path), (), force=True)) as file:
        file.path.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert file.path.name == path.name
        with file.flushing():
            pass
        file.commit()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["out.pt"]


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    path = tmp_path / "out.pt"
    mask = os.umask(0o027)
    try:
        with staged(resolve_output(str(path), (), force=False)) as file:
            file.commit()
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    output = resolve_output(str(tmp_path / "out.pt"), (), force=False)
    with staged(output) as file:
        file.path.write_bytes(b"half")
    assert os.listdir(tmp_path) == []


def test_leftovers_of_ended_processes_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stale = tmp_path / f".out.pt.{ended.pid}-0123abcd.composecli-tmp"
    alive = tmp_path / f".out.pt.{os.getppid()}-0123abcd.composecli-tmp"
    other = tmp_path / f".other.pt.{ended.pid}-0123abcd.composecli-tmp"
    for folder in (stale, alive, other):
        folder.mkdir()
    with staged(resolve_output(str(tmp_path / "out.pt"), (), force=False)):
        assert not stale.exists()
        assert alive.exists()
        assert other.exists()


def test_a_folder_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    output = resolve_output(str(folder / "out.pt"), (), force=False)
    folder.rmdir()
    with pytest.raises(CouldNotAttempt, match="could not write"), staged(output):
        pass


def test_a_flush_that_fails_is_a_problem(tmp_path: Path) -> None:
    output = resolve_output(str(tmp_path / "out.pt"), (), force=False)
    with staged(output) as file:
        file.path.unlink()
        with pytest.raises(CouldNotAttempt, match="No such file"), file.flushing():
            pass


def test_the_reason_of_the_system_is_shown() -> None:
    problem = could_not_write("out.pt", OSError(errno.EACCES, "Permission denied")).problem
    assert problem.title == "could not write the output: Permission denied"
    assert problem.where == "out.pt"


def test_a_disk_without_space_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = resolve_output(str(tmp_path / "out.pt"), (), force=False)
    assert not full(output)
    monkeypatch.setattr(staged_output, "MIN_FREE_BYTES", 2**70)
    assert full(output)
    assert MIN_FREE_BYTES < 2**70
