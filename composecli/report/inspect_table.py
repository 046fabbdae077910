"""The table of `inspect`: the contract, the layers and the facts of one model."""

from __future__ import annotations

import json

from rich.table import Table
from rich.text import Text

from composecli.commands.results import InspectReport
from composecli.core.facts import ModelFacts
from composecli.report.screen import Screen, new_table
from composecli.report.sections import (
    format_bytes,
    print_interrupted,
    print_isolation,
    print_model,
)
from composecli.report.text import format_finding, sanitize
from composecli.workers.protocol import LayerRow

MAX_LAYER_ROWS = 40
MAX_SHARED_GROUPS = 8
MAX_PROVENANCE_INPUTS = 8
MAX_LAYER_COLUMNS = 44
MAX_OUTPUT_COLUMNS = 18


def print_inspect(screen: Screen, report: InspectReport, *, quiet: bool) -> None:
    """Print the contract; unless `quiet`, also the layers and the other facts."""
    print_model(screen, report.model)
    if report.finding is not None:
        screen.print_lines(format_finding(report.finding, screen.width))
    if report.interrupted:
        print_interrupted(screen)
    if quiet or report.interrupted:
        return
    _print_layers(screen, report.layers)
    _print_facts(screen, report.facts, report.file_size)
    for note in report.portability:
        screen.print_wrapped(f"portability: {note}")
    if not report.portability:
        screen.print("portability: nothing found that ties it to a device")
    print_isolation(screen, report.isolation)
    if report.provenance is not None:
        _print_provenance(screen, report.provenance)


def _print_layers(screen: Screen, layers: tuple[LayerRow, ...]) -> None:
    shown = _top_layers(layers)
    screen.print(_layer_table(shown))
    hidden = len(layers) - len(shown)
    if hidden:
        screen.print(f"and {hidden} deeper layers, counted in these (--format json has all)")


def _top_layers(layers: tuple[LayerRow, ...]) -> tuple[LayerRow, ...]:
    """Return as many levels of the layers as fit on a screen or two."""
    max_depth = max((row.depth for row in layers), default=0)
    for depth in range(max_depth, 0, -1):
        shown = tuple(row for row in layers if row.depth <= depth)
        if len(shown) <= MAX_LAYER_ROWS:
            return shown
    return layers[:MAX_LAYER_ROWS]


def _layer_table(layers: tuple[LayerRow, ...]) -> Table:
    table = new_table()
    table.add_column("layer", overflow="fold", max_width=MAX_LAYER_COLUMNS)
    table.add_column("output", overflow="fold", max_width=MAX_OUTPUT_COLUMNS)
    table.add_column("parameters", justify="right", no_wrap=True)
    for row in layers:
        indent = "  " * row.depth
        layer = Text(indent + sanitize(_layer_label(row)))
        table.add_row(layer, Text(row.output), f"{row.parameters:,}")
    return table


def _layer_label(row: LayerRow) -> str:
    name = row.name.rsplit(".", 1)[-1]
    if name and row.class_name:
        return f"{name} ({row.class_name})"
    return name or row.class_name


def _print_facts(screen: Screen, facts: ModelFacts, file_size: int) -> None:
    parameters = f"{facts.parameters:,}"
    frozen = facts.parameters - facts.trainable
    if frozen:
        parameters += f", {frozen:,} of them frozen"
    dtypes = ", ".join(facts.dtypes) or "no tensors"
    devices = ", ".join(facts.devices) or "no tensors"
    screen.print(f"parameters: {parameters}")
    screen.print(f"weights: {format_bytes(facts.size)} in memory, {format_bytes(file_size)} file")
    screen.print(f"dtypes: {dtypes}")
    screen.print(f"devices: {devices}; training state: {facts.training}")
    for names in facts.shared[:MAX_SHARED_GROUPS]:
        screen.print(f"shared: {sanitize(' = '.join(names))}")


def _print_provenance(screen: Screen, text: str) -> None:
    """Print the inputs that a joined file claims; the file may contain anything in this place."""
    try:
        provenance = json.loads(text)
        mode, seed = str(provenance["mode"]), str(provenance["seed"])
        inputs = [(str(entry["name"]), str(entry["sha256"])) for entry in provenance["inputs"]]
    except (ValueError, KeyError, TypeError):
        screen.print("provenance: the file holds one that cannot be read")
        return
    mode, seed = sanitize(mode, 20), sanitize(seed, 20)
    screen.print(f"provenance: joined {mode} by composecli, seed {seed}, says the file")
    for name, sha256 in inputs[:MAX_PROVENANCE_INPUTS]:
        screen.print(f"  {sanitize(name, 60)}  sha256 {sanitize(sha256, 16)}")
