"""Bounds of a report: a model may return a hundred thousand tensors, and name them at length.

What is left out is counted, so that nobody takes a part for the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from composecli.core.limits import shorten

# Of each list and each text of a JSON report.
MAX_ITEMS = 1000
MAX_TEXT_CHARS = 20_000
# Of each part of a screen: the notes of a model, the ports of a seam.
MAX_SHOWN_LINES = 20
# Of what a file holds as data of its own; longer or deeper data is shown as text.
MAX_DATA_CHARS = 100_000
MAX_DEPTH = 20
# The user named as many models or checks as these have items.
_AS_LONG_AS_THE_COMMAND = ("models", "seams", "items")

T = TypeVar("T")


def first_items(items: Sequence[T], limit: int = MAX_SHOWN_LINES) -> tuple[Sequence[T], int]:
    """Return the first items, and the number of the others."""
    return items[:limit], max(0, len(items) - limit)


def bounded(items: Sequence[str]) -> tuple[str, ...]:
    """Return the lines that a screen shows, the last of which counts the others."""
    shown, hidden = first_items(items)
    if hidden:
        return (*shown, f"and {hidden:,} more")
    return tuple(shown)


@dataclass(slots=True)
class BoundedData:
    """JSON data within bounds.

    `left_out` lists where items are missing, as a path such as `/models/0/notes`, and how many.
    """

    left_out: list[dict[str, Any]] = field(default_factory=list)

    def cut(self, data: Any, path: str = "") -> Any:
        """Return data whose lists and texts are within bounds."""
        match data:
            case str():
                return shorten(data, MAX_TEXT_CHARS)
            case dict():
                return {key: self.cut(value, _below(path, key)) for key, value in data.items()}
            case list():
                return self._cut_list(data, path)
        return data

    def _cut_list(self, items: list[Any], path: str) -> list[Any]:
        """Return the first items, and note how many are left out."""
        kept: Sequence[Any] = items
        if path.removeprefix("/") not in _AS_LONG_AS_THE_COMMAND:
            kept, hidden = first_items(items, MAX_ITEMS)
            if hidden:
                self.left_out.append({"path": path, "items": hidden})
        return [self.cut(item, f"{path}/{number}") for number, item in enumerate(kept)]


def _below(path: str, key: str) -> str:
    """Return the JSON pointer of an entry."""
    escaped = key.replace("~", "~0").replace("/", "~1")
    return f"{path}/{escaped}"


def is_deep(data: Any) -> bool:
    """Return whether data is nested deeper than a report may be."""
    level = [data]
    for _ in range(MAX_DEPTH):
        inner = list[Any]()
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = inner
    return bool(level)
