"""Fixes: the command that would mend a finding, as data, where there is one that really works."""

from __future__ import annotations

from dataclasses import replace

from composecli.commands.requests import CheckRequest
from composecli.compose.bridge_plan import plan
from composecli.compose.confirm import PortPairs
from composecli.compose.wiring import selector
from composecli.core.blueprint import Feed, Stage
from composecli.core.bridge import BridgeMode, Linear, describe
from composecli.core.contract import Contract, takes
from composecli.core.findings import Finding, Fix
from composecli.core.pytree import Tree, keystr, leaves
from composecli.core.rules import Rule, Severity


def allowed(mode: BridgeMode, stage: Stage) -> bool:
    """Whether a bridge of this mode may hold what stands before the stage."""
    trains = any(isinstance(step, Linear) for feed in stage.feeds for step in feed.bridge)
    return mode is BridgeMode.LINEAR or (mode is BridgeMode.AUTO and not trains)


def find_bridge(findings: tuple[Finding, ...], pairs: PortPairs, stage: Stage) -> Stage | None:
    """The stage with steps before it that make every pair fit on paper; None where there are none."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not all(finding.rule.bridgeable for finding in errors) or len(pairs) != len(stage.feeds):
        return None
    feeds = list[Feed]()
    for feed, (offer, ask) in zip(stage.feeds, pairs, strict=True):
        steps = plan(offer.found, ask.port, BridgeMode.LINEAR)
        if steps is None:
            return None
        feeds.append(replace(feed, bridge=steps))
    return replace(stage, feeds=tuple(feeds))


def with_bridge_fix(
    findings: tuple[Finding, ...], bridge: Stage, request: CheckRequest
) -> tuple[Finding, ...]:
    """The findings with the join that puts the bridge in as the fix of each error."""
    steps = tuple(step for feed in bridge.feeds for step in feed.bridge)
    mode = "linear" if any(isinstance(step, Linear) for step in steps) else "auto"
    command = request.command("--bridge", mode, "-o", "both.pt")
    fix = Fix(command, tuple(f"adds {describe(step)}" for step in steps), steps)
    return tuple(
        replace(finding, fix=fix) if finding.severity is Severity.ERROR else finding
        for finding in findings
    )


def with_select_fix(
    finding: Finding, request: CheckRequest, number: int, result: Tree, contract: Contract | None
) -> Finding:
    """The finding with the `--select` that mends it: an output of model `number` that the one input takes."""
    if (
        contract is None
        or len(contract.required) != 1
        or finding.rule is not Rule.STRUCTURE_DIFFERS
    ):
        return finding
    fits = [path for path, spec in leaves(result) if takes(contract.inputs[0], spec) is not False]
    if not fits:
        return finding
    word = selector(result, fits[0])
    word = f"{number}:{word}" if len(request.models) > 2 else word
    command = request.command("--select", word, name="check")
    return replace(
        finding, fix=Fix(command, (f"feeds {keystr(fits[0])} to {contract.inputs[0].name}",))
    )
