"""The formats of `--format`. A new format is a module with `render` here, and a line in FORMATS."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import IO, Any

from composecli.commands.results import Report


@dataclass(frozen=True, slots=True)
class Format:
    """A format of reports.

    `module` is the module of this package whose `render` writes it. It is imported when a report is
    rendered, because the table needs rich. `is_for_people`: progress and problems go to stderr.
    `library` is what it needs, and `extra` the extra of composecli that installs that.
    """

    module: str
    is_for_people: bool = False
    library: str = ""
    extra: str = ""

    def render(self, report: Report, file: IO[str], *, quiet: bool = False) -> None:
        """Write a report; if `quiet`, only its essential part."""
        module: Any = importlib.import_module(f"composecli.report.{self.module}")
        module.render(report, file, quiet=quiet)


FORMATS = {
    "table": Format("table", is_for_people=True),
    "json": Format("json_v1"),
    "junit": Format("junit", library="junitparser", extra="junit"),
    "sarif": Format("sarif"),
    "github": Format("github"),
    "gitlab": Format("gitlab"),
    "markdown": Format("markdown"),
}
DEFAULT_FORMAT = "table"


@dataclass(frozen=True, slots=True)
class Output:
    """A format, and the file that the report is written to; None for stdout."""

    form: str
    path: str | None = None

    @property
    def format(self) -> Format:
        """What writes it."""
        return FORMATS[self.form]


def parse_output(text: str) -> Output:
    """Parse `json`, or `junit=report.xml`.

    Raises:
        ValueError: if there is no such format, or its library is not installed.
    """
    form, sign, path = text.partition("=")
    if form not in FORMATS:
        known = ", ".join(FORMATS)
        raise ValueError(f"{form!r} is not one of {known}")
    if sign and not path:
        raise ValueError(f"{text} names no file: {form}=FILE")
    format = FORMATS[form]
    if format.library and not _is_installed(format.library):
        raise ValueError(f"{form} needs {format.library}: pip install 'composecli[{format.extra}]'")
    return Output(form, path or None)


def _is_installed(library: str) -> bool:
    """Return whether a library can be imported."""
    from importlib.util import find_spec

    return find_spec(library) is not None


def complete_outputs(outputs: tuple[Output, ...]) -> tuple[Output, ...]:
    """Return the outputs, with the table on stdout if there is none of them.

    Raises:
        ValueError: if two of them go to stdout, or to the same file.
    """
    places = set[str]()
    for output in outputs:
        place = "" if output.path is None else os.path.realpath(output.path)
        if place in places:
            shown = output.path or "stdout; write the others to files: junit=report.xml"
            raise ValueError(f"two reports cannot both be written to {shown}")
        places.add(place)
    if "" in places:
        return outputs
    return (Output(DEFAULT_FORMAT), *outputs)
