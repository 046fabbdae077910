"""Bridging: plan the steps that make models fit, offer them, and decide whether to use them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from composecli.commands.requests import CheckRequest
from composecli.compose.bridge_plan import plan
from composecli.compose.bridged import bridged_findings, moves_batch, needs_one_size
from composecli.compose.compare import PortPair
from composecli.core.bridge import Bridge, BridgeMode
from composecli.core.contract import Port
from composecli.core.findings import Finding, Fix
from composecli.core.input_spec import are_exact
from composecli.core.pytree import TensorSpec
from composecli.core.rules import Severity

Findings = tuple[Finding, ...]


def plan_bridges(needs: Iterable[tuple[TensorSpec, Port]]) -> tuple[Bridge, ...] | None:
    """Return the steps that make each tensor fit its port; None if that is impossible for one.

    `float32[2, 5]` for the port `float32[N, 3]` needs `Linear(5 -> 3)` along axis 1.
    """
    bridges = list[Bridge]()
    for tensor, port in needs:
        steps = plan(tensor, port, BridgeMode.LINEAR)
        if steps is None:
            return None
        bridges.append(steps)
    return tuple(bridges)


def holds(pair: PortPair, bridge: Bridge, request: CheckRequest) -> bool:
    """Return whether a bridge holds at more than the example, whose sizes inference chose.

    It may rest on sizes that the user stated, unless every size must fit.
    """
    producer, consumer = pair
    if moves_batch(producer, bridge):
        return False
    if request.strict:
        return not bridged_findings(producer, bridge, consumer, strict=True)
    if are_exact(request.options.inputs_of_first):
        return True
    return not needs_one_size(producer, bridge, consumer)


def steps_of(bridges: Iterable[Bridge]) -> Bridge:
    """Return the steps of several bridges as one."""
    return tuple(step for bridge in bridges for step in bridge)


def is_allowed(mode: BridgeMode, steps: Bridge) -> bool:
    """Return whether the user allows these steps: auto excludes layers that have to be trained."""
    match mode:
        case BridgeMode.NONE:
            return False
        case BridgeMode.AUTO:
            return not _has_parameters(steps)
        case BridgeMode.LINEAR:
            return True


def bridge_mode(steps: Bridge) -> BridgeMode:
    """Return the mode that allows these steps, and no more than that."""
    if _has_parameters(steps):
        return BridgeMode.LINEAR
    return BridgeMode.AUTO


def _has_parameters(steps: Bridge) -> bool:
    """Return whether any step has parameters, which nobody has trained."""
    return any(step.parameter_count > 0 for step in steps)


def with_bridge_fix(findings: Findings, steps: Bridge, request: CheckRequest) -> Findings:
    """Return the findings, with the join that inserts these steps as the fix of each error.

    An error that no bridge can resolve has no fix.
    """
    command = request.bridged(bridge_mode(steps))
    effects = [f"adds {step}" for step in steps]
    fix = Fix(command, tuple(effects), steps)
    fixed = list[Finding]()
    for finding in findings:
        if finding.severity is Severity.ERROR and finding.rule.bridgeable:
            fixed.append(replace(finding, fix=fix))
        else:
            fixed.append(finding)
    return tuple(fixed)
