"""The tables of `check` and `join`: seams, findings, contracts and the verdict."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from composecli.commands.results import CheckReport, JoinReport, SeamReport, Written
from composecli.core.blueprint import Mode
from composecli.core.findings import Finding, Verdict
from composecli.report.bounds import MAX_SHOWN_LINES, first_items
from composecli.report.harmless import sanitize
from composecli.report.pairs_grid import print_pairs
from composecli.report.screen import Screen, new_table, verdict_text
from composecli.report.sections import (
    format_bytes,
    print_interrupted,
    print_isolation,
    print_model,
)
from composecli.report.text import format_finding, shorten_path

MAX_PORT_COLUMNS = 31
MAX_PORT_NAME_CHARS = 40


def print_check(
    screen: Screen, report: CheckReport, *, quiet: bool, bridged: tuple[int, ...] = ()
) -> None:
    """Print a check, and the verdict last. `bridged` are the seams that have a bridge now."""
    if report.mode is Mode.PAIRS:
        print_pairs(screen, report)
    else:
        _print_seams(screen, report, quiet=quiet, bridged=bridged)
    if not quiet:
        _print_models(screen, report)
    if report.interrupted:
        print_interrupted(screen)
    suffix = _count_warnings(report)
    if bridged and report.verdict is Verdict.BRIDGEABLE:
        suffix += ", bridged as requested"
    elif report.strict:
        suffix += " (every size required)"
    verdict = verdict_text(report.verdict)
    line = Text.assemble("verdict: ", verdict, suffix)
    screen.print(line)


def _count_warnings(report: CheckReport) -> str:
    """Return how many warnings there are, to be printed behind the verdict."""
    if not report.warnings:
        return ""
    if report.warnings == 1:
        return ", 1 warning"
    return f", {report.warnings} warnings"


def _print_seams(
    screen: Screen, report: CheckReport, *, quiet: bool, bridged: tuple[int, ...]
) -> None:
    """Print the table of the seams unless `quiet`, then the findings of each seam."""
    if report.seams and not quiet:
        table = _seam_table(report)
        screen.print(table)
    for number, seam in enumerate(report.seams):
        _print_findings(screen, seam, bridged=number in bridged)


def _seam_table(report: CheckReport) -> Table:
    """Return the rows of each seam: one for each pair of ports, or only the names."""
    headers = ("gives", "takes")
    if report.mode is Mode.PARALLEL:
        headers = ("model", "beside")
    table = new_table()
    for header in headers:
        table.add_column(header, overflow="fold", max_width=MAX_PORT_COLUMNS)
    table.add_column("verdict", no_wrap=True)
    for seam in report.seams:
        if not seam.rows:
            models = (sanitize(seam.producer), sanitize(seam.consumer))
            table.add_row(*models, verdict_text(seam.verdict))
        rows, hidden = first_items(seam.rows)
        for row in rows:
            producer = _cell(seam.producer, row.gives, row.given)
            consumer = _cell(seam.consumer, row.takes, row.taken)
            table.add_row(producer, consumer, verdict_text(row.verdict))
        if hidden:
            table.add_row(f"and {hidden:,} more", "", "")
    return table


def _cell(model: str, port: str, text: str) -> Text:
    """Return the model and its port above the dims; a dash if there is no port.

    Relations of the dims get a line of their own.
    """
    if not port:
        return Text("-")
    name = sanitize(shorten_path(model))
    port = sanitize(port, MAX_PORT_NAME_CHARS)
    lines = sanitize(text).replace(" where ", "\nwhere ", 1)
    return Text(f"{name}  {port}\n{lines}")


def _print_findings(screen: Screen, seam: SeamReport, *, bridged: bool) -> None:
    """Print the findings; a fix that several of them share is printed once, below the last one."""
    last_with_fix = dict[str, int]()
    findings, hidden = first_items(seam.findings)
    for number, finding in enumerate(findings):
        command = _command(finding)
        last_with_fix[command] = number
    for number, finding in enumerate(findings):
        command = _command(finding)
        with_fix = last_with_fix[command] == number
        label = None
        if bridged and finding.fix is not None:
            with_fix = False
            label = "bridged"
        lines = format_finding(finding, screen.width, with_fix=with_fix, label=label)
        screen.print_lines(lines)
    if hidden:
        screen.print(f"and {hidden:,} more findings")
    if findings:
        screen.print()


def _command(finding: Finding) -> str:
    """Return the command that fixes a finding; empty if there is none."""
    if finding.fix is None:
        return ""
    return finding.fix.command


def _print_models(screen: Screen, report: CheckReport) -> None:
    """Print each distinct model once, and the example."""
    by_name = {model.name: model for model in report.models}
    for model in by_name.values():
        print_model(screen, model)
    if report.example is None:
        return
    call = sanitize(report.example)
    if report.result is not None:
        call += sanitize(f" -> {report.result}")
    device = f"on {report.device}"
    if report.device == "meta":
        device = "explored on meta, run on cpu"
    screen.print(f"example: {call}, {device}")
    print_isolation(screen, report.isolation)


def print_join(screen: Screen, report: JoinReport, *, quiet: bool) -> None:
    """Print the check, then the file that was written and how it was verified."""
    print_check(screen, report.check, quiet=quiet, bridged=report.bridged)
    written = report.written
    if written is None:
        screen.print("no file was written")
        return
    for finding in written.notes[:MAX_SHOWN_LINES]:
        lines = format_finding(finding, screen.width)
        screen.print_lines(lines)
    path = sanitize(written.path)
    size = format_bytes(written.size)
    line = Text.assemble(("wrote ", "bold green"), f"{path}  ({size})")
    screen.print(line)
    if not quiet:
        _print_written(screen, written)


def _print_written(screen: Screen, written: Written) -> None:
    """Print the bridges, the checks that were passed, and the hash."""
    for bridge in written.bridges:
        for step in bridge:
            screen.print(f"  bridge: {step}")
    # Several checks of one kind may have the same outcome: dicts drop the repetitions.
    checks = dict.fromkeys((check.name, check.detail) for check in written.checks)
    for name, detail in list(checks)[:MAX_SHOWN_LINES]:
        screen.print(f"  verified: {name}: {sanitize(detail)}")
    screen.print(f"  sha256: {written.sha256}")
