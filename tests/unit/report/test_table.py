"""Tables: they fit any output, and nothing in a file can change how they look."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from composecli.report.table import render
from tests.unit.report.rendering import rendered
from tests.unit.report.reports import CHECK, MODEL, REPORTS, SEAM


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_in_a_file_has_no_colors(name: str) -> None:
    assert "\x1b" not in rendered(REPORTS[name])


@pytest.mark.parametrize("name", REPORTS)
def test_a_dumb_terminal_gets_ascii_only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert rendered(REPORTS[name]).isascii()


@pytest.mark.parametrize("name", ["a\x1b[2Jb.pt", "[bold]a[/bold].pt", ":smile:.pt"])
def test_a_file_name_is_printed_as_it_is_but_without_control_characters(name: str) -> None:
    report = replace(
        CHECK,
        models=(replace(MODEL, name=name),),
        seams=(replace(SEAM, producer=name),),
    )
    text = rendered(report)
    assert "\x1b" not in text
    assert name.replace("\x1b", "\ufffd") in text


def test_a_table_fits_into_80_columns() -> None:
    name = "/a/very/long/path/that/does/not/fit/" * 4 + "a.pt"
    report = replace(CHECK, seams=(replace(SEAM, producer=name, consumer=name),))
    table = rendered(report).partition("error[")[0]
    assert max(map(len, table.splitlines())) <= 80


def test_a_closed_pipe_is_left_to_the_caller() -> None:
    class ClosedPipe(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        render(CHECK, ClosedPipe())
