"""A contract of a consumer at the rank of its producer, if its own example has another rank."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from composecli.commands.chain import Seam, pair_ports
from composecli.commands.other_examples import with_other_example
from composecli.compose.compare import PortPairs, ProducerPort, compare
from composecli.core.contract import Contract
from composecli.core.dims import fixed_size, is_variable
from composecli.core.findings import Finding
from composecli.core.pytree import Call, call_leaves, resized
from composecli.core.rules import Rule, Severity
from composecli.inference import Found


def with_related_sizes_at_rank(
    seam: Seam, pairs: PortPairs, findings: Sequence[Finding]
) -> Seam | None:
    """Give a consumer that flattens its input a contract at the rank of the producer.

    `Flatten` and `Linear(196)` accept `float32[N, 196]`, and `float32[N, C, H, W]` of any sizes
    with `C*H*W == 196`. Return the seam to judge again, None if the consumer does not flatten.
    """
    producer = _of_other_rank(pairs, findings)
    width = _width(seam)
    if producer is None or width is None:
        return None
    rank = len(producer.example.sizes)
    for call in _flattened_calls(seam.wiring.call, width):
        found = seam.chain.session.infer(seam.chain.parts[seam.number], given=call)
        if isinstance(found, Found) and _has_relation(found.contract, rank):
            return _at_fitting_sizes(seam, found)
    return None


def _at_fitting_sizes(seam: Seam, found: Found) -> Seam | None:
    """Give the consumer this contract; None if no sizes are known at which it fits."""
    chain, number = seam.chain, seam.number
    previous = chain.contracts[number]
    chain.contracts[number] = found
    pairs = pair_ports(seam)
    findings = [finding for pair in pairs for finding in compare(*pair)]
    if not any(finding.severity is Severity.ERROR for finding in findings):
        return seam
    moved = with_other_example(seam, pairs, findings)
    if moved is None:
        chain.contracts[number] = previous
    return moved


def _has_relation(contract: Contract, rank: int) -> bool:
    """Return whether the dims of the first input are related, and as many as the rank."""
    dims = next((port.dims for port in contract.required), None)
    return bool(contract.where) and dims is not None and len(dims) == rank


def _of_other_rank(pairs: PortPairs, findings: Sequence[Finding]) -> ProducerPort | None:
    """Return the only producer of a seam at which its rank is too large; else None."""
    if not any(finding.rule is Rule.RANK_DIFFERS for finding in findings) or len(pairs) != 1:
        return None
    producer, consumer = pairs[0]
    dims = consumer.port.dims
    if not dims or len(producer.example.sizes) < len(dims):
        return None
    return producer


def _width(seam: Seam) -> int | None:
    """Return how many features the consumer takes, or a multiple of which number; else None."""
    contract = seam.contract
    if contract is None or not contract.required:
        return None
    dims = contract.required[0].dims
    if not dims:
        return None
    numbers = [fixed_size(dims[-1])]
    numbers += [relation.number for relation in contract.where]
    return next((number for number in numbers if number is not None), None)


def with_contract_at_rank(seam: Seam, pairs: PortPairs, findings: Sequence[Finding]) -> Seam | None:
    """Give the consumer a contract at the rank of the producer; return the seam to judge again.

    A Linear(32) accepts `float32[N, 32]`, and `float32[N, T, 32]` behind `float32[N, T, 16]`: then
    the width is wrong, and not the rank. None if there is no such contract.
    """
    producer = _of_other_rank(pairs, findings)
    width = _width(seam)
    if producer is None or width is None:
        return None
    rank = len(producer.example.sizes)
    call = _with_width(seam.wiring.call, width)
    # Sizes that the producer does not have yet must be those of another input.
    needs_other_sizes = is_variable(producer.dims[-1])
    return _adopt(seam, call, rank, needs_other_sizes=needs_other_sizes)


def _with_width(call: Call, width: int) -> Call:
    """Return the call with this size of the last axis."""
    path, spec = next(call_leaves(call))
    return resized(call, ((path, len(spec.sizes) - 1),), width)


def _flattened_calls(call: Call, width: int) -> Iterator[Call]:
    """Yield calls of this rank in which all axes but the batch have this size together.

    `Flatten` and `Linear(196)` accept `float32[2, 4, 7, 7]`.
    """
    path, spec = next(call_leaves(call))
    rank = len(spec.sizes)
    per_channel, rest = divmod(width, max(1, spec.sizes[1]))
    side = math.isqrt(per_channel)
    if rest:
        return
    if rank == 3:
        yield resized(call, ((path, 2),), per_channel)
    if rank == 4 and side**2 == per_channel:
        yield resized(call, ((path, 2), (path, 3)), side)
    elif rank == 4:
        flat = resized(call, ((path, 2),), 1)
        yield resized(flat, ((path, 3),), per_channel)


def _adopt(seam: Seam, call: Call, rank: int, *, needs_other_sizes: bool) -> Seam | None:
    """Give the consumer the contract that it has at this call; None if that does not help."""
    chain, number = seam.chain, seam.number
    found = chain.session.infer(chain.parts[number], given=call)
    if not isinstance(found, Found) or not found.contract.required:
        return None
    port = found.contract.required[0]
    if port.dims is None or len(port.dims) != rank:
        return None
    if needs_other_sizes:
        return _at_fitting_sizes(seam, found)
    chain.contracts[number] = found
    return seam
