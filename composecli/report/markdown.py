"""Reports as Markdown, for the summary of a job: a table, a picture, and what did not pass."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import IO

from composecli.commands.results import Report
from composecli.core.rules import Severity
from composecli.report.items import Item, Message, Results, Status, results_of

_SIGNS = {Status.PASSED: "✅", Status.FAILED: "❌", Status.UNKNOWN: "❔", Status.SKIPPED: "➖"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<#|~&$@])")


def render(report: Report, file: IO[str], *, quiet: bool = False) -> None:
    """Write the summary; if `quiet`, without what passed."""
    results = results_of(report)
    file.write(f"### {results.summary}\n\n")
    items = [item for item in results.items if not (quiet and item.status is Status.PASSED)]
    if items:
        _write_table(items, file)
    if results.edges:
        _write_picture(results, file)
    for item in items:
        _write_details(item, file)


def _write_table(items: Iterable[Item], file: IO[str]) -> None:
    file.write("| | item | found |\n|---|---|---|\n")
    for item in items:
        cells = (_SIGNS[item.status], _escaped(item.name), _escaped(item.summary))
        file.write(f"| {' | '.join(cells)} |\n")
    file.write("\n")


def _write_picture(results: Results, file: IO[str]) -> None:
    """Write which model feeds which, as a flowchart of Mermaid."""
    names = dict.fromkeys(name for edge in results.edges for name in edge[:2])
    numbers = {name: number for number, name in enumerate(names)}
    file.write("```mermaid\nflowchart LR\n")
    for name, number in numbers.items():
        file.write(f'  m{number}["{_quoted(name)}"]\n')
    for producer, consumer, verdict in results.edges:
        label = f'|"{_quoted(verdict)}"|' if verdict else ""
        file.write(f"  m{numbers[producer]} -->{label} m{numbers[consumer]}\n")
    file.write("```\n\n")


def _write_details(item: Item, file: IO[str]) -> None:
    """Write the messages about an item, except for notes about one that passed."""
    messages = [one for one in item.messages if _is_shown(one, item)]
    if not messages:
        return
    file.write(f"**{_escaped(item.name)}**: {_escaped(item.summary)}\n\n")
    for message in messages:
        lines = [message.heading]
        lines += (f"  {line}" for line in message.lines)
        file.write("".join(f"    {line}\n" for line in lines) + "\n")


def _is_shown(message: Message, item: Item) -> bool:
    return message.severity is not Severity.NOTE or item.status is Status.FAILED


def _escaped(text: str) -> str:
    """Return a text that Markdown shows as it is, in a cell of a table, too."""
    return _SPECIAL.sub(r"\\\1", text)


def _quoted(text: str) -> str:
    """Return a text between quotes in Mermaid, which has entities but no escapes."""
    for character in '#&"<>`':
        text = text.replace(character, "" if character == "`" else f"#{ord(character)};")
    return text
