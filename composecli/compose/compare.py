"""Comparing an output of a producer with an input of a consumer: every difference is a finding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from composecli.compose.conditions import Condition, combined, conditions_of
from composecli.compose.related_sizes import Given, broken_relations, relation_conditions
from composecli.core.bridge import Bridge, apply_all, carry_all
from composecli.core.contract import Port, accepts_dtype, relations_of
from composecli.core.dims import (
    Dim,
    Fixed,
    Free,
    Shape,
    admits,
    admits_every_size,
    as_free,
    bounds,
    fixed_size,
    follows_values,
    is_variable,
    unknown_reason,
)
from composecli.core.findings import Finding, Side
from composecli.core.fit import format_when
from composecli.core.pytree import TensorSpec
from composecli.core.relations import Where, format_where
from composecli.core.rules import Rule


@dataclass(frozen=True, slots=True)
class ProducerPort:
    """One output of a producer, with the tensor that it returned for the example input.

    `ranges` are the free dims of the input that the dims of the output follow from, `sizes` their
    sizes in the example, and `where` the relations that they meet.
    """

    model: str
    port: Port
    example: TensorSpec
    ranges: tuple[Free, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    where: Where = ()

    @property
    def side(self) -> Side:
        """The producer's side of a finding."""
        dims = format_dims(self.dims)
        where = format_where(self.own_relations)
        return Side(self.model, self.port.name, self.example.dtype, dims, where)

    @property
    def own_relations(self) -> Where:
        """The relations between the symbols that the dims follow from."""
        return relations_of(self.dims, self.where)

    def after(self, bridge: Bridge) -> ProducerPort:
        """Return the port as the steps of a bridge leave it."""
        dims = carry_all(bridge, self.dims)
        example = apply_all(bridge, self.example)
        port = replace(self.port, dtype=example.dtype, dims=dims)
        return replace(self, port=port, example=example)

    @property
    def dims(self) -> Shape:
        """The dims of the port; the sizes of the example if the port has none of that rank."""
        dims = self.port.dims
        if dims is None or len(dims) != len(self.example.sizes):
            return tuple(Fixed(size) for size in self.example.sizes)
        return dims


@dataclass(frozen=True, slots=True)
class ConsumerPort:
    """One input of a consumer. `where` are the relations between all of its inputs."""

    model: str
    port: Port
    where: Where = ()

    @property
    def side(self) -> Side:
        """The consumer's side of a finding."""
        dims = format_dims(self.port.dims)
        where = format_where(self.own_relations)
        return Side(self.model, self.port.name, self.port.dtype, dims, where)

    @property
    def own_relations(self) -> Where:
        """The relations between dims of this port alone."""
        return relations_of(self.port.dims or (), self.where)


PortPair = tuple[ProducerPort, ConsumerPort]
PortPairs = tuple[PortPair, ...]


def format_dims(dims: Shape | None) -> tuple[str, ...] | None:
    """Return the text of each dim; None for a port of any rank."""
    if dims is None:
        return None
    return tuple(str(dim) for dim in dims)


def compare(
    producer: ProducerPort, consumer: ConsumerPort, *, strict: bool = False
) -> tuple[Finding, ...]:
    """Return every difference between two ports as a finding.

    The example comes first: `float32[2, 64, 4, 4]` differs from `float32[N, 32, 2, 4]` on axes 1
    and 2. If it fits, the dims are compared for all other sizes: `float32[N, H//8]` fits
    `float32[N, 4]` only when `H >= 32 and H <= 39`. That is a note, or an error if `strict`.
    """
    findings = list[Finding]()
    sides = (producer.side, consumer.side)
    if not accepts_dtype(consumer.port, producer.example.dtype):
        notes = _dtype_notes(producer, consumer)
        finding = Finding(Rule.DTYPE_DIFFERS, "dtype differs", sides, notes=notes)
        findings.append(finding)
    dims = consumer.port.dims
    if dims is None:
        return tuple(findings)
    rank = len(producer.example.sizes)
    if len(dims) != rank:
        title = f"rank differs: the producer has {rank} axes, the consumer expects {len(dims)}"
        notes = _example_notes(producer)
        finding = Finding(Rule.RANK_DIFFERS, title, sides, notes=notes)
        return (*findings, finding)
    findings.extend(_size_findings(producer, consumer, dims))
    if not findings:
        findings.extend(_relation_findings(producer, consumer))
    if not findings:
        findings.extend(_condition_findings(producer, consumer, strict=strict))
    return tuple(findings)


def _relation_findings(producer: ProducerPort, consumer: ConsumerPort) -> Iterator[Finding]:
    """Yield a finding for each relation that the sizes of the example break."""
    sides = (producer.side, consumer.side)
    for title in broken_relations(consumer.own_relations, given_to([(producer, consumer)])):
        yield Finding(Rule.SIZE_OUT_OF_RANGE, title, sides, notes=_example_notes(producer))


def _dtype_notes(producer: ProducerPort, consumer: ConsumerPort) -> tuple[str, ...]:
    """Warn of a cast from other values to the integers that the consumer needs."""
    source, target = producer.example.dtype, consumer.port.dtype
    if not target.startswith("int"):
        return ()
    if source.startswith(("int", "uint", "bool")):
        return ()
    note = f"casting {source} values to {target} ids would make them meaningless"
    return (note,)


def _example_notes(producer: ProducerPort) -> tuple[str, ...]:
    """State the example sizes if the dims do not show them: some are derived or unknown."""
    shows_sizes = all(bounds(dim) is not None for dim in producer.dims)
    if shows_sizes:
        return ()
    note = f"{producer.port.name} is {producer.example} at the example input"
    return (note,)


def _size_findings(
    producer: ProducerPort, consumer: ConsumerPort, dims: Shape
) -> Iterator[Finding]:
    """Yield a finding for each axis that refuses its size in the example."""
    sides = (producer.side, consumer.side)
    notes = _example_notes(producer)
    sizes_by_name = dict[str, int]()
    axes = zip(dims, producer.example.sizes, strict=True)
    for axis, (dim, size) in enumerate(axes):
        given = producer.dims[axis]
        if follows_values(given):
            if not admits_every_size(dim):
                yield values_finding(axis, given, sides)
            continue
        other = size
        free = as_free(dim)
        if free is not None:
            other = sizes_by_name.setdefault(free.name, size)
        if free is not None and other != size:
            title = f"axis {axis} is {size}, but {free.name} is already {other}"
            yield Finding(Rule.SIZE_OUT_OF_RANGE, title, sides, axis, notes)
        elif admits(dim, size) is not False:
            continue
        elif fixed_size(dim) is not None:
            title = _size_title(axis, len(dims))
            yield Finding(Rule.SIZE_DIFFERS, title, sides, axis, notes)
        else:
            title = f"{size} on axis {axis} is outside {dim}"
            yield Finding(Rule.SIZE_OUT_OF_RANGE, title, sides, axis, notes)


def values_finding(axis: int, dim: Dim, sides: tuple[Side, ...]) -> Finding:
    """Return the finding that a size follows the values of the input, and may not fit always."""
    title = f"the size of axis {axis} follows the values of the input"
    reason = unknown_reason(dim) or ""
    note = f"axis {axis}: {reason.removeprefix('follows the values of the input: ')}"
    return Finding(Rule.SIZE_FOLLOWS_VALUES, title, sides, axis, (note,))


def _size_title(axis: int, rank: int) -> str:
    """Return the usual meaning of an axis: channels come first, features last."""
    if axis == 1 and rank > 3:
        return "channel count differs"
    if axis == rank - 1 and rank < 4:
        return "feature width differs"
    return f"size of axis {axis} differs"


def _condition_findings(
    producer: ProducerPort, consumer: ConsumerPort, *, strict: bool
) -> Iterator[Finding]:
    """Yield the findings about sizes other than those of the example."""
    sides = (producer.side, consumer.side)
    conditions = pair_conditions(producer, consumer)
    if conditions:
        notes = _example_notes(producer)
        yield conditional_finding(conditions, sides, strict=strict, notes=notes)
    unknown_axes = undecided_axes(producer, consumer)
    if strict and unknown_axes:
        title = "cannot decide for every size"
        yield Finding(Rule.SIZES_NOT_KNOWN, title, sides, notes=unknown_axes)


def pair_conditions(producer: ProducerPort, consumer: ConsumerPort) -> list[Condition]:
    """Return the conditions under which two ports of one rank fit, where they can be decided."""
    dims = consumer.port.dims
    if dims is None or len(dims) != len(producer.dims):
        return []
    ranges = {free.name: free for free in producer.ranges}
    conditions = conditions_of(producer.dims, dims, ranges, producer.sizes)
    given = given_to([(producer, consumer)])
    conditions += relation_conditions(consumer.own_relations, given, ranges, producer.sizes)
    return conditions


def given_to(pairs: Iterable[PortPair]) -> Given:
    """Return the sizes and expressions that these producers give the symbols of the consumer."""
    given = Given()
    for producer, consumer in pairs:
        given.known = producer.where
        dims = consumer.port.dims or ()
        if len(dims) == len(producer.dims):
            given.add(producer.dims, dims, producer.example.sizes)
    return given


def undecided_axes(producer: ProducerPort, consumer: ConsumerPort) -> tuple[str, ...]:
    """Return each axis of which it is not known at which sizes it fits, with the reason."""
    reasons = list[str]()
    for axis, dims in enumerate(zip(producer.dims, consumer.port.dims or (), strict=False)):
        reason = undecided_reason(*dims)
        if reason is not None:
            reasons.append(f"axis {axis}: {reason}")
    given = given_to([(producer, consumer)])
    return (*reasons, *given.undecided(consumer.own_relations))


def undecided_reason(producer: Dim, consumer: Dim) -> str | None:
    """Return why two dims cannot be compared; None if they can be.

    A fixed size needs no comparison beyond the example, whatever is known of the consumer's dim.
    """
    reason = unknown_reason(producer)
    if reason is None and is_variable(producer):
        return unknown_reason(consumer)
    return reason


def conditional_finding(
    conditions: Sequence[Condition],
    sides: tuple[Side, ...],
    *,
    strict: bool,
    notes: tuple[str, ...] = (),
) -> Finding:
    """Return one finding for all conditions: a note, or an error if `strict`."""
    text = conditions_text(conditions)
    relations = dict.fromkeys(filter(None, (condition.relation for condition in conditions)))
    notes = (*notes, *(f"it fits wherever {relation}" for relation in relations))
    if not strict:
        title = f"compatible when {text}"
        return Finding(Rule.FITS_ONLY_AT_SOME_SIZES, title, sides, notes=notes)
    failures = dict.fromkeys(filter(None, (condition.failure for condition in conditions)))
    title = f"fits only when {text}"
    failing = tuple(f"it fails at {failure}" for failure in failures)
    return Finding(Rule.NOT_AT_EVERY_SIZE, title, sides, notes=failing)


def conditions_text(conditions: Iterable[Condition]) -> str:
    """Return conditions as part of a sentence: `H>=32 and H%16==0 and 8<=W<=64`."""
    return format_when(combined(conditions))
