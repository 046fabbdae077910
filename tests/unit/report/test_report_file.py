"""Reports in files: whole or not at all, and never in the place of a device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import pytest

from composecli.report.formats import Output, complete_outputs, parse_output
from composecli.report.report_file import why_not_writable, write_report


def write_text(file: IO[str]) -> None:
    file.write("text\n")


def fail(file: IO[str]) -> None:
    file.write("half")
    raise OSError(28, "No space left on device")


def test_a_report_that_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        write_report(str(target), fail)
    assert (os.listdir(tmp_path), target.read_text()) == (["report.json"], "old")


def test_a_report_replaces_an_old_one_and_keeps_its_mode_and_link(tmp_path: Path) -> None:
    target, link = tmp_path / "report.json", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_report(str(link), write_text)
    assert link.is_symlink()
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("text\n", 0o640)


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    write_report(str(fifo), write_text)
    assert os.read(reading, 100) == b"text\n"
    os.close(reading)
    assert fifo.is_fifo()


def test_a_device_is_written_to_and_stays() -> None:
    assert why_not_writable(os.devnull) is None
    write_report(os.devnull, write_text)
    assert Path(os.devnull).is_char_device()


def test_obstacles_are_known_before_the_work(tmp_path: Path) -> None:
    assert "it is a folder" in str(why_not_writable(str(tmp_path)))
    assert "there is no folder" in str(why_not_writable(str(tmp_path / "none" / "x.json")))
    assert why_not_writable(str(tmp_path / "x.json")) is None


@pytest.mark.parametrize(
    ("text", "message"), [("xml", "'xml' is not one of table"), ("json=", "names no file")]
)
def test_wrong_formats_are_told(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_output(text)


def test_the_table_is_printed_unless_another_format_is() -> None:
    report = Output("json", "r.json")
    assert complete_outputs(()) == (Output("table"),)
    assert complete_outputs((report,)) == (Output("table"), report)
    assert complete_outputs((report, Output("github"))) == (report, Output("github"))


@pytest.mark.parametrize(
    "outputs",
    [
        (Output("table"), Output("json")),
        (Output("json", "r.json"), Output("sarif", "./r.json")),
    ],
)
def test_no_two_reports_go_to_one_place(outputs: tuple[Output, ...]) -> None:
    with pytest.raises(ValueError, match="two reports cannot both be written to"):
        complete_outputs(outputs)
