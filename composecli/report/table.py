"""The table for people: readable at 80 columns, without colour, and in a dumb terminal."""

from __future__ import annotations

import json
import os
import textwrap
from collections import Counter
from collections.abc import Iterable
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from composecli.commands.results import (
    CheckReport,
    InspectReport,
    JoinReport,
    ModelReport,
    ProblemReport,
    Report,
    SeamReport,
)
from composecli.core.blueprint import Mode
from composecli.core.bridge import describe
from composecli.core.findings import Finding, Verdict
from composecli.report.text import Line, finding_lines, plain, problem_lines
from composecli.workers.protocol import LayerRow, Sandbox

MOST_LAYERS = 40
STYLES = {
    "error": "bold red", "bridged": "bold yellow", "unknown": "bold yellow", "note": "cyan", "help": "green",
    "mark": "bold red", "side": "",
    Verdict.COMPATIBLE: "bold green", Verdict.BRIDGEABLE: "bold yellow", Verdict.INCOMPATIBLE: "bold red",
    Verdict.UNKNOWN: "bold yellow",
}  # fmt: skip


def render(report: Report, file: IO[str], *, quiet: bool = False) -> None:
    """Print a report. `quiet` leaves the verdict and the findings and drops the rest."""
    console = _Console(
        file=file, highlight=False, markup=False, emoji=False, soft_wrap=True, width=_width(file)
    )
    match report:
        case CheckReport():
            _check(console, report, quiet=quiet)
        case JoinReport():
            _join(console, report, quiet=quiet)
        case InspectReport():
            _inspect(console, report, quiet=quiet)
        case ProblemReport():
            _lines(console, problem_lines(report.problem, console.width))


class _Console(Console):
    """rich ends the program with exit code 1 where the reader of its output went away; the verdict says otherwise."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _width(file: IO[str]) -> int | None:
    """The terminal's width; 80 where the output is no terminal and COLUMNS does not say."""
    return None if file.isatty() or "COLUMNS" in os.environ else 80


def _lines(console: Console, lines: Iterable[Line]) -> None:
    for style, line in lines:
        console.print(Text(line, style=STYLES.get(style, "")), soft_wrap=True)


def _plain_box() -> Any:
    return box.SIMPLE_HEAD if os.environ.get("TERM") != "dumb" else box.ASCII2


def _check(
    console: Console, report: CheckReport, *, quiet: bool, bridged: tuple[int, ...] = ()
) -> None:
    if report.mode is Mode.PAIRS:
        _pairs(console, report)
    else:
        if not quiet and report.seams:
            console.print(_seam_table(report))
        for number, seam in enumerate(report.seams):
            _seam_findings(console, seam, bridged=number in bridged)
    if not quiet:
        for model in _distinct(report.models):
            _contract(console, model)
        if report.example is not None:
            shown = f" -> {report.result}" if report.result is not None else ""
            where = (
                "explored on meta, run on cpu" if report.device == "meta" else f"on {report.device}"
            )
            console.print(f"example: {plain(report.example)}{plain(shown)}, {where}")
            _isolation(console, report.isolation)
    if report.interrupted:
        console.print("interrupted: this is what was known by then")
    word = report.verdict
    suffix = " (every size asked for)" if report.strict else ""
    if bridged and word is Verdict.BRIDGEABLE:
        suffix = ", and bridged as asked"
    console.print(Text.assemble("verdict: ", (str(word), STYLES[word]), suffix))


_MARKS = {
    Verdict.COMPATIBLE: "yes", Verdict.BRIDGEABLE: "brd", Verdict.INCOMPATIBLE: "-", Verdict.UNKNOWN: "?",
}  # fmt: skip


def _pairs(console: Console, report: CheckReport) -> None:
    """A grid of all pairs, a row for each model that gives, as many columns as fit beside each other; then those that
    fit. The findings of the others are in the JSON."""
    seams = iter(report.seams)
    count = len(report.models)
    verdicts = {
        (gives, takes): next(seams).verdict
        for gives in range(count)
        for takes in range(count)
        if gives != takes
    }
    room = max(1, (console.width - 31) // 5)
    for first in range(0, count, room):
        table = Table(box=_plain_box(), pad_edge=False, expand=False)
        table.add_column("gives \\ takes", overflow="fold", max_width=26)
        columns = range(first, min(first + room, count))
        for column in columns:
            table.add_column(str(column + 1), justify="center", no_wrap=True)
        for row, model in enumerate(report.models):
            cells = [verdicts.get((row, column)) for column in columns]
            marks = [
                Text(_MARKS[cell], STYLES[cell]) if cell is not None else Text("") for cell in cells
            ]
            table.add_row(f"{row + 1} {plain(_short(model.name))}", *marks)
        console.print(table)
    found = Counter(seam.verdict for seam in report.seams)
    said = ", ".join(
        f"{found[verdict]} {verdict} ({_MARKS[verdict]})" for verdict in _MARKS if found[verdict]
    )
    console.print(f"{len(report.seams)} pairs: {said}")
    for seam in report.seams:
        if seam.verdict is Verdict.COMPATIBLE:
            console.print(f"  {plain(seam.producer)} -> {plain(seam.consumer)}")


def _isolation(console: Console, confined: Sandbox | None) -> None:
    """What a confined child could not give up; a worker in this process gives up nothing."""
    if confined is not None and confined.applied and confined.unavailable:
        console.print(f"isolation: {'; '.join(confined.unavailable)}")


def _distinct(models: tuple[ModelReport, ...]) -> list[ModelReport]:
    return list({model.name: model for model in models}.values())


def _seam_table(report: CheckReport) -> Table:
    parallel = report.mode == "parallel"
    table = Table(box=_plain_box(), pad_edge=False, expand=False)
    table.add_column("model" if parallel else "gives", overflow="fold", max_width=31)
    table.add_column("beside" if parallel else "takes", overflow="fold", max_width=31)
    table.add_column("verdict", no_wrap=True)
    for seam in report.seams:
        rows = seam.rows or ()
        if not rows:
            verdict = Text(str(seam.verdict), STYLES[seam.verdict])
            table.add_row(plain(seam.producer), plain(seam.consumer), verdict)
        for row in rows:
            table.add_row(
                _cell(seam.producer, row.gives, row.given),
                _cell(seam.consumer, row.takes, row.taken),
                Text(str(row.verdict), STYLES[row.verdict]),
            )
    return table


def _cell(model: str, port: str, text: str) -> Text:
    if not port:
        return Text("-")
    return Text(f"{plain(_short(model))}  {plain(port, 40)}\n{plain(text)}")


def _short(name: str) -> str:
    """The end of a long path: the table has 80 columns, and the findings below name it in full."""
    return name if len(name) <= 20 else f"…{name[-19:]}"


def _seam_findings(console: Console, seam: SeamReport, *, bridged: bool) -> None:
    """The findings of a seam; a fix that several of them share is printed once, under the last of these."""
    last = {_command(finding): number for number, finding in enumerate(seam.findings)}
    for number, finding in enumerate(seam.findings):
        mended = bridged and finding.fix is not None
        lines = finding_lines(
            finding,
            console.width,
            with_fix=not mended and last[_command(finding)] == number,
            label="bridged" if mended else None,
        )
        _lines(console, lines)
    if seam.findings:
        console.print()


def _command(finding: Finding) -> str:
    return finding.fix.command if finding.fix is not None else ""


def _contract(console: Console, model: ModelReport) -> None:
    console.print(f"{plain(model.name)}  ({model.kind})")
    lines = list[str]()
    if model.contract is None:
        lines.append(
            f"  contract: not found ({model.probes} probe{'s' if model.probes != 1 else ''})"
        )
    else:
        lines.append(f"  contract: {model.contract}")
        lines += [f"  unknown:  {why}" for why in model.contract.open_dims]
        lines += [f"  evidence: {evidence}" for evidence in model.contract.evidence]
    for line in (*lines, *(f"  note: {note}" for note in model.notes)):
        _lines(console, _wrapped(line, console.width))


def _wrapped(text: str, width: int) -> Iterable[Line]:
    indent = " " * (len(text) - len(text.lstrip()) + 10)
    for line in textwrap.wrap(plain(text), width, subsequent_indent=indent, break_long_words=False):
        yield "", line


def _join(console: Console, report: JoinReport, *, quiet: bool) -> None:
    _check(console, report.check, quiet=quiet, bridged=report.bridged)
    written = report.written
    if written is None:
        console.print("nothing was written")
        return
    for finding in written.notes:
        _lines(console, finding_lines(finding, console.width))
    console.print(
        Text.assemble(("wrote ", "bold green"), f"{plain(written.path)}  ({_bytes(written.size)})")
    )
    if quiet:
        return
    for bridge in written.bridges:
        for step in bridge:
            console.print(f"  bridge: {describe(step)}")
    for check in dict.fromkeys((check.name, check.detail) for check in written.checks):
        console.print(f"  verified: {check[0]}: {plain(check[1])}")
    console.print(f"  sha256: {written.sha256}")


def _inspect(console: Console, report: InspectReport, *, quiet: bool) -> None:
    facts = report.facts
    _contract(console, report.model)
    if report.finding is not None:
        _lines(console, finding_lines(report.finding, console.width))
    if report.interrupted:
        console.print("interrupted: this is what was known by then")
    if quiet or report.interrupted:
        return
    shown = _shown_layers(report.layers)
    console.print(_layer_table(shown))
    if len(report.layers) > len(shown):
        console.print(
            f"and {len(report.layers) - len(shown)} deeper layers, counted in these (--format json has all)"
        )
    frozen = facts.parameters - facts.trainable
    console.print(
        f"parameters: {facts.parameters:,}" + (f", {frozen:,} of them frozen" if frozen else "")
    )
    console.print(f"weights: {_bytes(facts.size)} in memory, {_bytes(report.file_size)} file")
    console.print(f"dtypes: {', '.join(facts.dtypes) or 'no tensors'}")
    console.print(
        f"devices: {', '.join(facts.devices) or 'no tensors'}; training state: {facts.training}"
    )
    for group in facts.shared[:8]:
        console.print(f"shared: {plain(' = '.join(group))}")
    for note in report.portability:
        _lines(console, _wrapped(f"portability: {note}", console.width))
    if not report.portability:
        console.print("portability: nothing found that ties it to a device")
    _isolation(console, report.isolation)
    if report.provenance is not None:
        _provenance(console, report.provenance)


def _shown_layers(layers: tuple[LayerRow, ...]) -> tuple[LayerRow, ...]:
    """All layers, or as many levels of them as fit a screen or two."""
    for depth in range(max((row.depth for row in layers), default=0), 0, -1):
        shown = tuple(row for row in layers if row.depth <= depth)
        if len(shown) <= MOST_LAYERS:
            return shown
    return layers[:MOST_LAYERS]


def _layer_table(layers: tuple[LayerRow, ...]) -> Table:
    table = Table(box=_plain_box(), pad_edge=False)
    table.add_column("layer", overflow="fold", max_width=44)
    table.add_column("output", overflow="fold", max_width=18)
    table.add_column("parameters", justify="right", no_wrap=True)
    for row in layers:
        name = row.name.rsplit(".", 1)[-1]
        label = f"{name} ({row.class_name})" if name and row.class_name else name or row.class_name
        table.add_row(
            Text("  " * row.depth + plain(label)), Text(row.output), f"{row.parameters:,}"
        )
    return table


def _provenance(console: Console, text: str) -> None:
    """Where a joined file says it comes from; said by the file, so shown as its words."""
    try:
        facts = json.loads(text)
        inputs = [(str(entry["name"]), str(entry["sha256"])) for entry in facts["inputs"]]
        mode, seed = str(facts["mode"]), str(facts["seed"])
    except (ValueError, KeyError, TypeError):
        console.print("provenance: the file holds one that cannot be read")
        return
    console.print(
        f"provenance: joined {plain(mode, 20)} by composecli, seed {plain(seed, 20)}, says the file"
    )
    for name, sha256 in inputs[:8]:
        console.print(f"  {plain(name, 60)}  sha256 {plain(sha256, 16)}")


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
