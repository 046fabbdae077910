"""The table of `inspect`: the contract, the layers and the facts of one model."""

from __future__ import annotations

import json

from rich.table import Table
from rich.text import Text

from composecli.commands.results import AxisReport, InspectReport
from composecli.compose.samples import describe_fates
from composecli.core.facts import ModelFacts
from composecli.report.bounds import MAX_ITEMS, bounded
from composecli.report.harmless import sanitize
from composecli.report.screen import Screen, new_table
from composecli.report.sections import (
    format_bytes,
    print_interrupted,
    print_isolation,
    print_model,
)
from composecli.report.text import format_finding
from composecli.workers.protocol import LayerRow

MAX_LAYER_ROWS = 40
MAX_SHARED_GROUPS = 8
MAX_PROVENANCE_INPUTS = 8
MAX_LAYER_COLUMNS = 44
MAX_OUTPUT_COLUMNS = 18


def print_inspect(screen: Screen, report: InspectReport, *, quiet: bool) -> None:
    """Print the contract; unless `quiet`, also the layers and the other facts."""
    print_model(screen, report.model)
    if report.axes:
        texts = [_axis_text(axis) for axis in report.axes]
        screen.print_wrapped(f"  evidence: {'; '.join(texts)}")
    if report.finding is not None:
        lines = format_finding(report.finding, screen.width)
        screen.print_lines(lines)
    if report.contract_file is not None:
        screen.print_wrapped(f"wrote {sanitize(report.contract_file)}")
    if report.interrupted:
        print_interrupted(screen)
    if quiet or report.interrupted:
        return
    if report.has_module:
        _print_module(screen, report)
    print_isolation(screen, report.isolation)
    if report.provenance is not None:
        _print_provenance(screen, report.provenance)


def _print_module(screen: Screen, report: InspectReport) -> None:
    """Print the layers of a model, its facts and its device dependencies."""
    _print_layers(screen, report.layers)
    _print_facts(screen, report.facts, report.file_size)
    for note in bounded(report.portability):
        screen.print_wrapped(f"portability: {note}")
    if not report.portability:
        screen.print("portability: no device dependencies found")


def _axis_text(axis: AxisReport) -> str:
    """Return the fates of a dim: `N is kept apart on axis 0 of output 0`."""
    if not axis.fates:
        return f"what becomes of {axis.dim} is not known"
    text = describe_fates(axis.dim, axis.fates)
    if axis.reason is not None:
        text += f" ({axis.reason})"
    return text


def _print_layers(screen: Screen, layers: tuple[LayerRow, ...]) -> None:
    """Print the layers that fit, and the number of the deeper ones."""
    shown = _top_layers(layers)
    screen.print(_layer_table(shown))
    hidden = len(layers) - len(shown)
    if hidden:
        more = f"--format json lists up to {MAX_ITEMS:,}"
        screen.print(f"and {hidden:,} deeper layers, counted in these ({more})")


def _top_layers(layers: tuple[LayerRow, ...]) -> tuple[LayerRow, ...]:
    """Return as many levels of the layers as fit on a screen or two."""
    max_depth = max((row.depth for row in layers), default=0)
    for depth in range(max_depth, 0, -1):
        shown = tuple(row for row in layers if row.depth <= depth)
        if len(shown) <= MAX_LAYER_ROWS:
            return shown
    return layers[:MAX_LAYER_ROWS]


def _layer_table(layers: tuple[LayerRow, ...]) -> Table:
    """Return a row for each layer, indented by its depth."""
    table = new_table()
    table.add_column("layer", overflow="fold", max_width=MAX_LAYER_COLUMNS)
    table.add_column("output", overflow="fold", max_width=MAX_OUTPUT_COLUMNS)
    table.add_column("parameters", justify="right", no_wrap=True)
    for row in layers:
        indent = "  " * row.depth
        label = sanitize(_layer_label(row))
        layer = Text(indent + label)
        table.add_row(layer, Text(row.output), f"{row.parameters:,}")
    return table


def _layer_label(row: LayerRow) -> str:
    """Return the last part of a layer's name and its class, or the one that is known."""
    _, _, name = row.name.rpartition(".")
    if name and row.class_name:
        return f"{name} ({row.class_name})"
    return name or row.class_name


def _print_facts(screen: Screen, facts: ModelFacts, file_size: int | None) -> None:
    """Print the parameters, the weights, the dtypes, the devices and the shared tensors."""
    parameters = f"{facts.parameters:,}"
    frozen = facts.parameters - facts.trainable
    if frozen:
        parameters += f", {frozen:,} of them frozen"
    dtypes = ", ".join(facts.dtypes) or "no tensors"
    devices = ", ".join(facts.devices) or "no tensors"
    screen.print(f"parameters: {parameters}")
    in_memory = format_bytes(facts.size)
    weights = f"{in_memory} in memory, no file"
    if file_size is not None:
        weights = f"{in_memory} in memory, {format_bytes(file_size)} file"
    screen.print(f"weights: {weights}")
    screen.print(f"dtypes: {dtypes}")
    screen.print(f"devices: {devices}; training state: {facts.training}")
    for names in facts.shared[:MAX_SHARED_GROUPS]:
        text = " = ".join(names)
        screen.print(f"shared: {sanitize(text)}")
    hidden = len(facts.shared) - MAX_SHARED_GROUPS
    if hidden > 0:
        screen.print(f"shared: and {hidden:,} more tensors")


def _print_provenance(screen: Screen, text: str) -> None:
    """Print the inputs that a joined file claims; the file may contain anything in this place."""
    try:
        provenance = json.loads(text)
        mode = str(provenance["mode"])
        seed = str(provenance["seed"])
        inputs = list[tuple[str, str]]()
        for entry in provenance["inputs"]:
            name, sha256 = str(entry["name"]), str(entry["sha256"])
            inputs.append((name, sha256))
    except (ValueError, KeyError, TypeError, RecursionError):
        screen.print("provenance: present but unreadable")
        return
    mode = sanitize(mode, 20)
    seed = sanitize(seed, 20)
    screen.print(f"provenance: joined {mode} by composecli, seed {seed} (as the file states)")
    for name, sha256 in inputs[:MAX_PROVENANCE_INPUTS]:
        shown_name = sanitize(name, 60)
        shown_sha256 = sanitize(sha256, 16)
        screen.print(f"  {shown_name}  sha256 {shown_sha256}")
