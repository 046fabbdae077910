"""The limits of every reader are in one table, which states what the code has."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TABLE = (ROOT / ".github" / "SECURITY.md").read_text()
ROWS = re.findall(r"^\| `([\w.]+)\.(MAX_\w+)` \| (\d+) \| (.+) \|$", TABLE, re.MULTILINE)
# Limits of what a message or a suggestion shows, and of how hard something is tried.
_NOT_OF_READERS = re.compile(
    r"MAX_(SHOWN\w*|SUGGESTED\w*|KEYS\w*|NAMES_SHOWN|UNREADABLE|CLASSES|MODULES)"
    r"|MAX_(SETTING\w*|CONSTANT_BYTES)"
    r"|MAX_(NAME_LENGTH|EXPONENT|INTEGER|NARROW_COUNT)"
)


def test_the_table_states_the_limits_of_the_code() -> None:
    assert len(ROWS) > 30
    for module, name, limit, reason in ROWS:
        found = getattr(importlib.import_module(f"composecli.{module}"), name)
        assert (found, bool(reason)) == (int(limit), True), f"{module}.{name}"


def test_every_limit_of_the_readers_of_files_is_in_the_table() -> None:
    listed = {(module, name) for module, name, *_ in ROWS}
    for file in (ROOT / "composecli" / "files").rglob("*.py"):
        parts = file.relative_to(ROOT / "composecli").with_suffix("").parts
        for node in ast.parse(file.read_text()).body:
            match node:
                case ast.Assign([ast.Name(name)]) if name.startswith("MAX_"):
                    is_listed = (".".join(parts), name) in listed
                    assert is_listed or _NOT_OF_READERS.fullmatch(name), f"{file}: {name}"
