"""The screen of `check` of a factory alone: whether its weights fit."""

from __future__ import annotations

from composecli.commands.results import WeightsReport
from composecli.report.bounds import bounded
from composecli.report.harmless import sanitize
from composecli.report.screen import Screen
from composecli.report.sections import format_bytes, print_isolation
from composecli.report.text import format_problem


def print_weights(screen: Screen, report: WeightsReport, *, quiet: bool) -> None:
    """Print the verdict, after the causes for which the weights do not fit."""
    if report.misfit is not None:
        screen.print_lines(format_problem(report.misfit, screen.width))
        screen.print("verdict: the weights do not fit")
        return
    if report.facts is not None and not quiet:
        screen.print(sanitize(report.model))
        count, size = f"{report.facts.parameters:,}", format_bytes(report.facts.size)
        screen.print_wrapped(f"  parameters: {count}, {size} with buffers")
        for note in bounded(report.facts.notes):
            screen.print_wrapped(f"  note: {note}")
        print_isolation(screen, report.isolation)
    screen.print("verdict: the weights fit")
