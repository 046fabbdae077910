"""A seam behind a bridge: the sizes of the producer's input at which the bridge fits."""

from __future__ import annotations

from dataclasses import replace

from composecli.compose.compare import (
    ConsumerPort,
    ProducerPort,
    conditional_finding,
    undecided_reason,
)
from composecli.compose.conditions import Condition, for_each_side, solve_condition
from composecli.core.bridge import Bridge, carry_all
from composecli.core.contract import BATCH
from composecli.core.dims import Dim, Fixed, as_expr, fixed_size, is_variable
from composecli.core.findings import Finding
from composecli.core.rules import Rule
from composecli.core.size_expr import symbols

Needs = list[tuple[Dim, Dim]]


def needs_one_size(producer: ProducerPort, bridge: Bridge, consumer: ConsumerPort) -> bool:
    """Return whether the bridge fits only because an axis has its size in the example.

    `float32[N, T, 16]` with `T` 2 in the example becomes `float32[N, 32]` by a flatten, and
    `float32[N, 16*T]` for any other `T`.
    """
    for dim, needed in _needs(producer, bridge, consumer):
        if is_variable(dim) and fixed_size(needed) is not None:
            return True
    return False


def moves_batch(producer: ProducerPort, bridge: Bridge) -> bool:
    """Return whether the bridge merges the batch with another axis, so that samples are mixed."""
    before, after = producer.dims, carry_all(bridge, producer.dims)
    if len(before) == len(after):
        return False
    for dim in after:
        expr = as_expr(dim)
        if dim not in before and expr is not None and BATCH in symbols(expr):
            return True
    return False


def bridged_findings(
    producer: ProducerPort, bridge: Bridge, consumer: ConsumerPort, *, strict: bool
) -> tuple[Finding, ...]:
    """Return the findings about sizes other than the example's; empty if the bridge fits at all.

    An unknown size is a finding only if `strict`, as it is without a bridge.
    """
    ranges = {free.name: free for free in producer.ranges}
    conditions = list[Condition]()
    undecided = list[str]()
    for dim, needed in _needs(producer, bridge, consumer):
        reason = undecided_reason(dim, needed)
        if reason is not None:
            undecided.append(reason)
            continue
        condition = solve_condition(dim, needed, ranges)
        if condition is not None:
            conditions += for_each_side(condition, ranges, producer.sizes)
    sides = (producer.after(bridge).side, consumer.side)
    findings = list[Finding]()
    if conditions:
        finding = conditional_finding(conditions, sides, strict=strict)
        findings.append(replace(finding, title=f"with the bridge: {finding.title}"))
    if strict and undecided:
        title = "with the bridge: cannot decide for every size"
        finding = Finding(Rule.SIZES_NOT_KNOWN, title, sides, notes=tuple(undecided))
        findings.append(finding)
    return tuple(findings)


def _needs(producer: ProducerPort, bridge: Bridge, consumer: ConsumerPort) -> Needs:
    """Return each dim that has to be of another one: those of the steps, then the consumer's."""
    needs: Needs = []
    dims = producer.dims
    for step in bridge:
        for axis, size in step.required_sizes.items():
            needs.append((dims[axis], Fixed(size)))
        dims = step.carry(dims)
    needs.extend(zip(dims, consumer.port.dims or (), strict=False))
    return needs
