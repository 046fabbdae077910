"""Defaults of options: `COMPOSECLI_STRICT=1`, or `strict = true` below `[tool.composecli]`.

The file comes with a folder, which may be a stranger's. So nothing in it trusts a file, runs code,
weakens the sandbox or its limits, or names a file to write. The command line wins over the
environment, and that over pyproject.toml.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROJECT_FILE = Path("pyproject.toml")
MAX_BYTES = 1_000_000
PREFIX = "COMPOSECLI_"
# The keys, and the parameters of commands that they are defaults of.
KEYS = {
    "format": "outputs",
    "device": "device",
    "training": "training",
    "timeout": "timeout",
    "max-memory": "max_memory",
    "max-probes": "max_probes",
    "max-seconds": "max_seconds",
    "strict": "strict",
    "fail-on": "fail_on",
    "isolation": "isolation",
}
ONLY_ISOLATION = "required"
# The limits of the sandbox are for the person who calls the command to change.
NOT_OF_A_PROJECT = frozenset(("timeout", "max-memory"))


def read_defaults(environment: Mapping[str, str], path: Path = PROJECT_FILE) -> dict[str, Any]:
    """Return the defaults by the names of parameters.

    Raises:
        ValueError: with a message for users.
    """
    defaults = _of_project(path)
    for key, name in KEYS.items():
        variable = PREFIX + key.replace("-", "_").upper()
        text = environment.get(variable)
        if text:
            defaults[name] = _checked(key, text.split() if key == "format" else text, variable)
    return defaults


def _of_project(path: Path) -> dict[str, Any]:
    """Return the defaults of the table in a pyproject.toml, if there is one."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return {}
        text = path.read_text(encoding="utf-8")
        if "composecli" not in text:
            return {}
        document = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    table = document.get("tool", {})
    if isinstance(table, dict):
        table = table.get("composecli", {})
    if not isinstance(table, dict):
        raise ValueError(f"{path}: tool.composecli is not a table")
    defaults = dict[str, Any]()
    for key, value in table.items():
        place = f"{path}:{_line(text, key)}"
        checked = _checked(key, value, place)
        if key in NOT_OF_A_PROJECT:
            variable = PREFIX + key.replace("-", "_").upper()
            raise ValueError(f"{place}: {key} limits the sandbox: use --{key}, or {variable}")
        if key == "format" and any("=" in form for form in checked):
            raise ValueError(f"{place}: only the command line names a file to write: {checked[0]}")
        defaults[KEYS[key]] = checked
    return defaults


def _checked(key: str, value: Any, place: str) -> Any:
    """Return the value of a key that may be set from here."""
    if key not in KEYS:
        near = difflib.get_close_matches(key, KEYS, 1, cutoff=0)
        raise ValueError(f"{place}: {key!r:.60} is no default: the nearest key is {near[0]!r}")
    if key == "isolation" and value != ONLY_ISOLATION:
        raise ValueError(f"{place}: only the command line weakens the sandbox: {key} = 'required'")
    items = [value]
    if key == "format" and isinstance(value, list):
        items = value
    if not all(isinstance(item, str | int | float) for item in items):
        raise ValueError(f"{place}: {key} is not a text, a number or true")
    if key == "format":
        return [str(item) for item in items]
    if isinstance(value, bool):
        return value
    return str(value)


def _line(text: str, key: str) -> int:
    """Return the line of a key below the header of the table."""
    start = re.search(r"^\s*\[\s*tool\s*\.\s*composecli\s*\]", text, re.MULTILINE)
    begin = start.start() if start else 0
    found = re.compile(rf"^\s*[\"']?{re.escape(key)}[\"']?\s*=", re.MULTILINE).search(text, begin)
    position = found.end() if found else begin
    return text.count("\n", 0, position) + 1
