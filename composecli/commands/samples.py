"""Samples: whether a consumer keeps those apart that its producer keeps apart."""

from __future__ import annotations

from collections.abc import Iterator

from composecli.commands.chain import Seam
from composecli.commands.ids import ids_findings
from composecli.commands.opened_model import OpenedModel, all_have_modules
from composecli.commands.seam_report import Findings
from composecli.commands.session import Session
from composecli.compose.compare import ConsumerPort, PortPairs
from composecli.compose.samples import (
    SampleSeam,
    Seen,
    batch_norm_finding,
    fate_of_samples,
    kept_axis,
    samples_finding,
    samples_not_known_finding,
)
from composecli.core.blueprint import Blueprint, Feed, Sequential, Stage, single_model
from composecli.core.contract import BATCH, Contract
from composecli.core.dims import admits, as_free, fixed_size
from composecli.core.findings import Finding
from composecli.core.input_spec import are_exact
from composecli.core.pytree import Axis, Call, TensorSpec, call_leaves, replace_call_leaf, size_of
from composecli.core.resizing import axes_named, resize, sizes_by_name
from composecli.core.slices import Fate, Followed, SliceMarks, fates

# Sizes of a batch, the best first: with four samples, one forward tells.
_BATCHES = (4, 5, 6, 7, 3, 2)
MAX_TRIES = 2
# Layers that take the samples on axis 1 unless they are built with batch_first=True.
_SEQUENCE_LAYERS = frozenset(
    (
        "RNN", "LSTM", "GRU", "MultiheadAttention", "Transformer", "TransformerEncoder",
        "TransformerEncoderLayer", "TransformerDecoder", "TransformerDecoderLayer",
    )
)  # fmt: skip


def sample_findings(seam: Seam, pairs: PortPairs, stage: Stage) -> Findings:
    """Return the warning that the consumer mixes or loses the samples of the producer, if so.

    It is judged by running the chain up to this consumer, which `stage` is. A contract file says
    nothing of samples.
    """
    upstream = seam.upstream
    if not pairs or not all_have_modules(seam.chain.parts[: seam.number + 1]):
        return ()
    blueprint = seam.through(stage)
    seen = follow_batch(seam.chain.session, blueprint, upstream.first, upstream.call)
    if seen is None:
        return tuple(_finding_of_failure(seam, pairs, stage, blueprint))
    findings = list(ids_findings(seam, pairs, stage, seen))
    mixed = _mixing_finding(seam, pairs, stage, seen)
    if mixed is None and _is_time_first(seam, seen.followed):
        mixed = _finding_on_another_axis(seam, pairs, stage)
    elif mixed is None and not _takes_any_batch(pairs):
        mixed = _finding_at_other_sizes(seam, pairs, stage, seen.call)
    if mixed is None and fate_of_samples(seen.followed) is Fate.UNKNOWN:
        mixed = _unknown_finding(seam, pairs, stage, seen)
    if mixed is not None:
        findings.append(mixed)
    last = len(upstream.stages)
    for number, place in seen.followed.statistics:
        if number == last or (number == 0 and last == 1):
            findings.append(batch_norm_finding(seam.chain.parts[number].name, place))
    return tuple(findings)


def follow_batch(
    session: Session, blueprint: Blueprint, contract: Contract, call: Call, name: str = BATCH
) -> Seen | None:
    """Follow the samples of a call through a blueprint; None if it has none, or cannot run.

    `name` is that of the dim that holds the samples.
    """
    for batch in _batches(session, contract, call, name):
        resized = call
        if batch != _batch_of(contract, call, name):
            resized = resize(contract, call, {name: batch})
        seen = _follow(session, blueprint, contract, resized, name)
        if seen is not None:
            return seen
    return None


def _follow(
    session: Session, blueprint: Blueprint, contract: Contract, call: Call, name: str = BATCH
) -> Seen | None:
    """Follow the samples of a call; None if that fails."""
    axes = tuple(_sample_axes(contract, call, name))
    followed = session.follow(blueprint, call, axes)
    if followed is None or followed.failed is not None:
        return None
    return Seen(call, followed, name)


def _is_time_first(seam: Seam, followed: Followed) -> bool:
    """Return whether the producer is a sequence model that mixes the slices of its first axis.

    Then that axis is time, and the samples are on another one.
    """
    if len(seam.upstream.stages) != 1:
        return False
    if not _has_sequence_layers(seam.chain.parts[seam.number - 1]):
        return False
    return Fate.MIXED in [fate.fate for fate in fates(followed, 0)]


def _finding_on_another_axis(seam: Seam, pairs: PortPairs, stage: Stage) -> Finding | None:
    """Return the warning about samples that are on another axis of the producer's input."""
    upstream = seam.upstream
    blueprint = seam.through(stage)
    for name in sizes_by_name(upstream.first, upstream.call):
        if name == BATCH:
            continue
        seen = follow_batch(seam.chain.session, blueprint, upstream.first, upstream.call, name)
        if seen is not None:
            finding = _mixing_finding(seam, pairs, stage, seen)
            if finding is not None:
                return finding
    return None


def _takes_any_batch(pairs: PortPairs) -> bool:
    """Return whether the first axis of each input of the consumer is free, or of any rank."""
    for _, consumer in pairs:
        dims = consumer.port.dims
        if dims and as_free(dims[0]) is None:
            return False
    return True


def _finding_at_other_sizes(
    seam: Seam, pairs: PortPairs, stage: Stage, call: Call
) -> Finding | None:
    """Return the warning at other sizes of the samples: a view may keep them at some sizes only."""
    session, first = seam.chain.session, seam.upstream.first
    if are_exact(session.options.inputs_of_first):
        return None
    blueprint = seam.through(stage)
    for name, size in sizes_by_name(first, call).items():
        for other in (size // 2, size * 2):
            changed = resize(first, call, {name: other})
            if name == BATCH or not _admits(first, name, other):
                continue
            seen = _follow(session, blueprint, first, changed)
            if seen is None:
                continue
            finding = _mixing_finding(seam, pairs, stage, seen)
            if finding is not None:
                return finding
    return None


def _admits(contract: Contract, name: str, size: int) -> bool:
    """Return whether the free dims of this name admit a size."""
    return all(admits(free, size) for free in contract.free_inputs if free.name == name)


def _sample_axes(contract: Contract, call: Call, name: str) -> Iterator[Axis]:
    """Yield the axes of the inputs that hold the samples: those that have this name.

    If all sizes of the first axes are fixed, they would have that name, were they not.
    """
    named = axes_named(contract, call, name)
    yield from named
    if named:
        return
    for port in contract.required:
        if port.dims and fixed_size(port.dims[0]) is not None:
            yield port.path, 0


def _batch_of(contract: Contract, call: Call, name: str) -> int | None:
    """Return the number of samples in a call; None if it has no axis for them."""
    axes = list(_sample_axes(contract, call, name))
    if not axes:
        return None
    sizes = {size_of(call, axis) for axis in axes}
    if len(sizes) != 1:
        return None
    return sizes.pop()


def _batches(session: Session, contract: Contract, call: Call, name: str) -> list[int]:
    """Return the numbers of samples to try: those that no other axis has come first.

    If the size is fixed or the user stated it, it is only that of the call.
    """
    own = _batch_of(contract, call, name)
    if own is None:
        return []
    if not axes_named(contract, call, name) or are_exact(session.options.inputs_of_first):
        return [own] if own > 1 else []
    admitted = [size for size in _BATCHES if _admits(contract, name, size)]
    sizes = {size for _, spec in call_leaves(call) for size in spec.sizes}
    unlike = [size for size in admitted if size not in sizes - {own}]
    tried = [*unlike[:1], *admitted[:1], own]
    return [size for size in dict.fromkeys(tried) if size > 1][:MAX_TRIES]


def _mixing_finding(seam: Seam, pairs: PortPairs, stage: Stage, seen: Seen) -> Finding | None:
    """Return the warning; None if the producer keeps no samples apart, or the consumer does."""
    followed = seen.followed
    fate = fate_of_samples(followed)
    if fate not in (Fate.MIXED, Fate.LOST):
        return None
    found = _samples_between(seam, pairs, stage, seen)
    if found is None:
        return None
    sides, feed = found
    help: tuple[str, ...] = ()
    given = followed.marks_at(len(seam.upstream.stages) - 1, feed.path)
    if given is not None and len(pairs) == 1 and not feed.bridge:
        help = tuple(_mending_steps(seam, given, sides.axis))
    finding = samples_finding(sides, fate, followed.place, help, seen.name)
    return finding.noted(f"seen at {seen.call}")


def _finding_of_failure(
    seam: Seam, pairs: PortPairs, stage: Stage, blueprint: Blueprint
) -> Iterator[Finding]:
    """Yield the note if the chain runs on several samples, but not with NaN in some of them."""
    first, call = seam.upstream.first, seam.upstream.call
    if (_batch_of(first, call, BATCH) or 1) < 2:
        return
    followed = seam.chain.session.follow(blueprint, call, tuple(_sample_axes(first, call, BATCH)))
    if followed is not None and followed.failed is not None:
        finding = _unknown_finding(seam, pairs, stage, Seen(call, followed))
        if finding is not None:
            yield finding


def _unknown_finding(seam: Seam, pairs: PortPairs, stage: Stage, seen: Seen) -> Finding | None:
    """Return the note that it is not known what becomes of the samples of the producer."""
    found = _samples_between(seam, pairs, stage, seen)
    if found is None:
        return None
    sides, _ = found
    return samples_not_known_finding(sides, seen)


def _samples_between(
    seam: Seam, pairs: PortPairs, stage: Stage, seen: Seen
) -> tuple[SampleSeam, Feed] | None:
    """Return where the producer keeps samples apart, of those that are fed; None if nowhere.

    A feed of several tensors is told by the first of them.
    """
    followed = _followed_to_producer(seam, seen)
    if followed is None:
        return None
    last = len(seam.upstream.stages) - 1
    for (producer, consumer), feed in zip(pairs, stage.feeds, strict=False):
        axis = kept_axis(followed, last, feed.path)
        if axis is not None and _may_hold_samples(seam, consumer, axis):
            return SampleSeam(producer.side, consumer.side, axis), feed
    return None


def _followed_to_producer(seam: Seam, seen: Seen) -> Followed | None:
    """Return what becomes of the samples up to the producer.

    It is followed by itself if the consumer fails, or has an op that marks cannot be followed
    through: the run of both says nothing of the producer then.
    """
    if seen.followed.stages and not seen.followed.opaque:
        return seen.followed
    upstream = seam.upstream
    blueprint = Sequential(upstream.stages)
    alone = _follow(seam.chain.session, blueprint, upstream.first, seen.call, seen.name)
    if alone is None:
        return None
    return alone.followed


def _may_hold_samples(seam: Seam, consumer: ConsumerPort, axis: int) -> bool:
    """Return whether the axis may be one of samples: the producer's sizes are not fixed by name.

    If they are, the consumer has to take several sizes: `float32[3, 64, 64]` is an image.
    """
    first, call = seam.upstream.first, seam.upstream.call
    if axes_named(first, call, BATCH):
        return True
    dims = consumer.port.dims
    return not dims or fixed_size(dims[axis]) is None


def _mending_steps(seam: Seam, given: SliceMarks, axis: int) -> Iterator[str]:
    """Yield what would keep the samples apart: another order of the axes, or of the layers'."""
    contract = seam.contract
    part = seam.chain.parts[seam.number]
    if contract is None:
        return
    for other in range(len(given.sizes)):
        if other == axis or not _keeps_permuted(seam, contract, given, (axis, other)):
            continue
        order = list(range(len(given.sizes)))
        order[axis], order[other] = other, axis
        permuted = ", ".join(map(str, order))
        yield f"permute the tensor between them: x.permute({permuted})"
        if {axis, other} == {0, 1} and _has_sequence_layers(part):
            yield f"or build the layers of {part.name} with batch_first=True"
        return


def _keeps_permuted(
    seam: Seam, contract: Contract, given: SliceMarks, axes: tuple[int, int]
) -> bool:
    """Return whether the consumer keeps the samples apart if these axes are exchanged."""
    leaves = list(call_leaves(contract.example))
    if len(leaves) != 1:
        return False
    path, spec = leaves[0]
    one, other = axes
    sizes = list(given.sizes)
    sizes[one], sizes[other] = sizes[other], sizes[one]
    tensor = TensorSpec(spec.dtype, tuple(sizes), spec.below)
    call = replace_call_leaf(contract.example, {path: tensor})
    handle = seam.chain.parts[seam.number].handle
    followed = seam.chain.session.follow(single_model(handle), call, ((path, other),))
    return followed is not None and bool(followed.stages) and _is_kept(followed)


def _is_kept(followed: Followed) -> bool:
    """Return whether the result keeps the samples apart."""
    return fate_of_samples(followed) is Fate.KEPT


def _has_sequence_layers(part: OpenedModel) -> bool:
    """Return whether a model has layers with the option `batch_first`."""
    return any(layer.class_name in _SEQUENCE_LAYERS for layer in part.facts.layers)
