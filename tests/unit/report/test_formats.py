"""The formats of `--format`."""

from __future__ import annotations

import io

import pytest

from composecli.report.formats import DEFAULT_FORMAT, FORMATS
from tests.unit.report.reports import REPORTS


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_renders_every_report(name: str, report: str) -> None:
    file = io.StringIO()
    FORMATS[name].render(REPORTS[report], file)
    assert file.getvalue().endswith("\n")


def test_the_default_is_a_format_for_people() -> None:
    assert FORMATS[DEFAULT_FORMAT].is_for_people


def test_quiet_shortens_the_table_and_leaves_the_json_complete() -> None:
    def length(name: str, *, quiet: bool) -> int:
        file = io.StringIO()
        FORMATS[name].render(REPORTS["join"], file, quiet=quiet)
        return len(file.getvalue())

    assert length("table", quiet=True) < length("table", quiet=False)
    assert length("json", quiet=True) == length("json", quiet=False)
