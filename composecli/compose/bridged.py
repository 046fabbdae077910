"""A seam behind a bridge: the sizes of the producer's input at which the bridge fits."""

from __future__ import annotations

from dataclasses import replace

from composecli.compose.compare import ConsumerPort, ProducerPort, conditional_finding
from composecli.compose.conditions import Condition, solve_condition
from composecli.core.bridge import Bridge, carry_all
from composecli.core.contract import BATCH
from composecli.core.dims import Dim, Fixed, as_expr, fixed_size, is_variable
from composecli.core.findings import Finding
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
    """Return the finding that the bridge fits only at some sizes; empty if it fits at all."""
    ranges = {free.name: free for free in producer.ranges}
    conditions = list[Condition]()
    for dim, needed in _needs(producer, bridge, consumer):
        condition = solve_condition(dim, needed, ranges)
        if condition is not None:
            conditions.append(condition)
    if not conditions:
        return ()
    sides = (producer.after(bridge).side, consumer.side)
    finding = conditional_finding(conditions, sides, (), strict=strict)
    return (replace(finding, title=f"with the bridge: {finding.title}"),)


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
