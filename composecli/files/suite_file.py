"""Suite files: many checks in one TOML file, read as data with the line of each mistake."""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from composecli.core.documents import InvalidDocument, place_text
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.files.toml_lines import Lines

MAX_SUITE_BYTES = 2**18
# The reader takes a time that is the square of the number of keys in `a.b.c = 1`.
MAX_LINE_DOTS = 50
_PLACE_OF_ERROR = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_SCHEMA_FILE = Path(__file__).with_name("suite_v1.json")


@dataclass(frozen=True, slots=True)
class SuiteDocument:
    """The content of a suite file, and the line of each value."""

    path: str
    values: dict[str, Any]
    lines: Lines
    sha256: str

    def refuse(self, mistake: InvalidDocument) -> NoReturn:
        """Refuse the file for a mistake.

        Raises:
            CouldNotAttempt: always; the problem names the line, and the key.
        """
        message = f"{mistake}"
        if mistake.place:
            message = f"{place_text(mistake.place)}: {mistake}"
        raise _invalid(f"{self.path}:{self.lines.of(mistake.place)}", message)


def schema_text() -> str:
    """Return the JSON Schema (draft 2020-12) of suite files."""
    return _SCHEMA_FILE.read_text(encoding="utf-8")


def read_suite(path: str) -> SuiteDocument:
    """Return the content of a suite file.

    Raises:
        CouldNotAttempt: if there is no such file, or it is not TOML; the problem names the line.
    """
    data = _read(path)
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _invalid(f"{path}:{line}", "it is not UTF-8 text") from None
    for number, line_text in enumerate(text.split("\n"), start=1):
        if line_text.count(".") > MAX_LINE_DOTS:
            message = f"the line has more than {MAX_LINE_DOTS} dots"
            raise _invalid(f"{path}:{number}", message)
    values = _parse(path, text)
    return SuiteDocument(path, values, Lines(text), hashlib.sha256(data).hexdigest())


def _read(path: str) -> bytes:
    """Return the bytes of a file that is not too long."""
    if not Path(path).exists():
        raise CouldNotAttempt(Problem(Rule.NO_SUCH_FILE, "there is no such file", path))
    if not Path(path).is_file():
        title = "the suite is not a regular file"
        raise CouldNotAttempt(Problem(Rule.NOT_A_REGULAR_FILE, title, path))
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SUITE_BYTES + 1)
    except OSError as error:
        title = f"the file could not be read: {error.strerror}"
        raise CouldNotAttempt(Problem(Rule.NO_SUCH_FILE, title, path)) from None
    if len(data) > MAX_SUITE_BYTES:
        raise _invalid(path, f"it has more than {MAX_SUITE_BYTES:,} bytes")
    return data


def _parse(path: str, text: str) -> dict[str, Any]:
    """Return the tables of a TOML text."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        where = path
        found = _PLACE_OF_ERROR.search(message)
        if found is not None:
            line = found[1] or text.rstrip("\n").count("\n") + 1
            where, message = f"{path}:{line}", message[: found.start()]
        raise _invalid(where, _lower_first(message)) from None
    except RecursionError:
        raise _invalid(path, "it is nested too deeply") from None
    except ValueError:
        raise _invalid(path, "it has a number that is too long") from None


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _invalid(where: str, message: str) -> CouldNotAttempt:
    """Return the error for a file that is not a suite."""
    help = ("composecli schema suite",)
    return CouldNotAttempt(
        Problem(Rule.INVALID_SUITE, "the suite has a mistake", where, (message,), help)
    )
