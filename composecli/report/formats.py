"""The formats of `--format`. A new format is a module with `render` here, and a line in FORMATS."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import IO, Any

from composecli.commands.results import Report


@dataclass(frozen=True, slots=True)
class Format:
    """A format of reports.

    `module` is the module of this package whose `render` writes it. It is imported when a report is
    rendered, because the table needs rich. `is_for_people`: progress and problems go to stderr.
    """

    module: str
    is_for_people: bool = False

    def render(self, report: Report, file: IO[str], *, quiet: bool = False) -> None:
        """Write a report; if `quiet`, only its essential part."""
        module: Any = importlib.import_module(f"composecli.report.{self.module}")
        module.render(report, file, quiet=quiet)


FORMATS = {
    "table": Format("table", is_for_people=True),
    "json": Format("json_v1"),
}
DEFAULT_FORMAT = "table"
