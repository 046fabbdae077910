"""Sections that the tables of several commands share."""

from __future__ import annotations

from composecli.commands.results import ModelReport
from composecli.report.bounds import bounded
from composecli.report.harmless import sanitize
from composecli.report.screen import Screen
from composecli.workers.protocol import Sandbox


def print_model(screen: Screen, model: ModelReport) -> None:
    """Print a model with its contract and the evidence."""
    screen.print(f"{sanitize(model.name)}  ({model.kind})")
    if model.contract is None:
        ending = "s"
        if model.probes == 1:
            ending = ""
        screen.print_wrapped(f"  contract: not found ({model.probes} probe{ending})")
    else:
        screen.print_wrapped(f"  contract: {model.contract}")
        for reason in bounded(model.contract.unknown_dims):
            screen.print_wrapped(f"  unknown:  {reason}")
        for evidence in bounded([str(item) for item in model.contract.evidence]):
            screen.print_wrapped(f"  evidence: {evidence}")
    for note in bounded(model.notes):
        screen.print_wrapped(f"  note: {note}")


def print_isolation(screen: Screen, sandbox: Sandbox | None) -> None:
    """Print the measures that a sandbox lacks. A worker in this process has no sandbox at all.

    A lock that is missing has its warning on stderr.
    """
    if sandbox is not None and sandbox.lacks_lock:
        return
    if sandbox is not None and sandbox.applied and sandbox.unavailable:
        measures = "; ".join(sandbox.unavailable)
        screen.print(f"isolation: {measures}")


def print_interrupted(screen: Screen) -> None:
    """Print that the report is incomplete."""
    screen.print("interrupted: this is what is known so far")


def format_bytes(count: int) -> str:
    """Return a size in decimal units: `12 B`, `3.4 kB`, `1.2 GB`."""
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    for unit in ("kB", "MB"):
        if size < 1000:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
