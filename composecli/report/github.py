"""Reports as annotations of GitHub Actions: a workflow command for each message that counts.

Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from typing import IO

from composecli.commands.results import Report
from composecli.core.rules import Severity
from composecli.report.items import Item, Message, Status, relative_path, results_of

_COMMANDS = {
    Severity.ERROR: "error",
    Severity.UNKNOWN: "error",
    Severity.WARNING: "warning",
    Severity.NOTE: "notice",
}


def render(report: Report, file: IO[str], *, quiet: bool = False) -> None:
    """Write a line for each message, then one with the number of items; if `quiet`, no notices."""
    results = results_of(report)
    for item in results.items:
        messages = [one for one in item.messages if not (quiet and one.severity is Severity.NOTE)]
        for message in messages:
            file.write(_annotation(item, message))
        if not messages and item.status in (Status.FAILED, Status.UNKNOWN):
            file.write(_command("error", item, item.name, item.summary))
    file.write(f"{results.summary}\n")


def _annotation(item: Item, message: Message) -> str:
    title = f"{message.rule.value} {item.name}"
    return _command(_COMMANDS[message.severity], item, title, message.text)


def _command(command: str, item: Item, title: str, text: str) -> str:
    """Return a workflow command, with what would end its parts escaped."""
    properties = {"title": title}
    if item.file:
        properties = {"file": relative_path(item.file), "line": str(item.line), **properties}
    shown = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{command} {shown}::{_escaped(text)}\n"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
