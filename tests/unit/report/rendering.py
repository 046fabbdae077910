"""Rendering a report as text."""

from __future__ import annotations

import io

from composecli.commands.results import Report
from composecli.report.table import render


def rendered(report: Report, *, quiet: bool = False) -> str:
    """Return the table of a report as it is written to a file."""
    file = io.StringIO()
    render(report, file, quiet=quiet)
    return file.getvalue()
