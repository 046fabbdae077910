"""Ids that a producer may give and its consumer's table cannot hold, though it held the first."""

from __future__ import annotations

from collections.abc import Iterator

from composecli.commands.chain import Seam
from composecli.compose.compare import PortPair, PortPairs
from composecli.compose.confirm import lookup_finding
from composecli.compose.samples import Seen
from composecli.core.blueprint import Stage
from composecli.core.contract import BATCH
from composecli.core.findings import Finding
from composecli.core.input_spec import are_exact
from composecli.core.observations import Rejected
from composecli.core.pytree import Call, call_leaves
from composecli.core.resizing import resize
from composecli.core.rules import Rule

# With more samples, and other values, larger ids are likely to come up.
_MORE_SAMPLES = 64
_SEEDS = (1, 2, 3)


def ids_findings(seam: Seam, pairs: PortPairs, stage: Stage, seen: Seen) -> Iterator[Finding]:
    """Yield an error for an id without a row, or a note if the producer could give one."""
    contract = seam.contract
    if contract is None or len(pairs) != len(stage.feeds):
        return
    rows = {path: spec.below for path, spec in call_leaves(contract.example) if spec.may_hold_ids}
    last = len(seam.upstream.stages) - 1
    for pair, feed in zip(pairs, stage.feeds, strict=True):
        given = seen.followed.marks_at(last, feed.path)
        table = rows.get(pair[1].port.path)
        if given is None or given.below is None or table is None or table <= 2:
            continue
        if given.below > table:
            yield _search(seam, pair, stage) or _possible_finding(pair, given.below, table)


def _search(seam: Seam, pair: PortPair, stage: Stage) -> Finding | None:
    """Return the error with an id that has no row; None if other values show none either."""
    blueprint = seam.through(stage)
    for seed in _SEEDS:
        observation = seam.chain.session.run(blueprint, _larger(seam), seed)
        if isinstance(observation, Rejected) and observation.lookup is not None:
            return lookup_finding(observation, pair)
    return None


def _larger(seam: Seam) -> Call:
    """Return the call of the chain with more samples, unless the user stated their number."""
    upstream = seam.upstream
    if are_exact(seam.chain.session.options.inputs_of_first):
        return upstream.call
    return resize(upstream.first, upstream.call, {BATCH: _MORE_SAMPLES})


def _possible_finding(pair: PortPair, below: int, rows: int) -> Finding:
    """Return the note that the producer may give ids that have no row."""
    producer, consumer = pair
    title = (
        f"{producer.model} may give ids up to {below - 1}; "
        f"{consumer.model} looks them up in {rows:,} rows"
    )
    notes = (f"it gave none above {rows - 1} at the values that were tried",)
    sides = (producer.side, consumer.side)
    return Finding(Rule.IDS_MAY_NOT_FIT, title, sides, notes=notes)
