"""A contract of a consumer at the rank of its producer, if its own example has another rank."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from composecli.commands.chain import Seam, pair_ports
from composecli.commands.other_examples import with_other_example
from composecli.compose.compare import PortPairs, compare
from composecli.core.dims import fixed_size, is_variable
from composecli.core.findings import Finding
from composecli.core.pytree import Call, call_leaves, resized
from composecli.core.rules import Rule
from composecli.inference import Found


def with_contract_at_rank(seam: Seam, pairs: PortPairs, findings: Sequence[Finding]) -> Seam | None:
    """Give the consumer a contract at the rank of the producer; return the seam to judge again.

    A Linear(32) accepts `float32[N, 32]`, and `float32[N, T, 32]` behind `float32[N, T, 16]`: then
    the width is wrong, and not the rank. None if there is no such contract.
    """
    if not any(finding.rule is Rule.RANK_DIFFERS for finding in findings) or len(pairs) != 1:
        return None
    producer, consumer = pairs[0]
    dims, rank = consumer.port.dims, len(producer.example.sizes)
    if not dims or rank < len(dims):
        return None
    width = fixed_size(dims[-1])
    if width is None:
        return None
    for number, call in enumerate(_calls_at_rank(seam.wiring.call, width)):
        # Sizes that the producer does not have yet must be those of another input.
        needs_other_sizes = number > 0 or is_variable(producer.dims[-1])
        adopted = _adopt(seam, call, rank, needs_other_sizes=needs_other_sizes)
        if adopted is not None:
            return adopted
    return None


def _calls_at_rank(call: Call, width: int) -> Iterator[Call]:
    """Yield calls of this rank that a layer of this width may accept.

    The width is that of the last axis, or of all axes but the batch together: `Flatten` and
    `Linear(196)` accept `float32[2, 4, 7, 7]`.
    """
    path, spec = next(call_leaves(call))
    rank = len(spec.sizes)
    yield resized(call, ((path, rank - 1),), width)
    per_channel, rest = divmod(width, max(1, spec.sizes[1]))
    side = math.isqrt(per_channel)
    if rest == 0 and rank == 3:
        yield resized(call, ((path, 2),), per_channel)
    if rest == 0 and rank == 4 and side**2 == per_channel:
        yield resized(call, ((path, 2), (path, 3)), side)


def _adopt(seam: Seam, call: Call, rank: int, *, needs_other_sizes: bool) -> Seam | None:
    """Give the consumer the contract that it has at this call; None if that does not help."""
    chain, number = seam.chain, seam.number
    found = chain.session.infer(chain.parts[number], given=call)
    if not isinstance(found, Found) or not found.contract.required:
        return None
    port = found.contract.required[0]
    if port.dims is None or len(port.dims) != rank:
        return None
    previous = chain.contracts[number]
    chain.contracts[number] = found
    if not needs_other_sizes:
        return seam
    pairs = pair_ports(seam)
    findings = [finding for pair in pairs for finding in compare(*pair)]
    moved = with_other_example(seam, pairs, findings)
    if moved is None:
        chain.contracts[number] = previous
    return moved
