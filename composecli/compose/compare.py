"""Comparing what a producer gives with what a consumer takes: every difference is a finding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from composecli.compose.conditions import Condition, condition, equalities
from composecli.core.contract import Port, takes_dtype
from composecli.core.dims import Derived, Fixed, Free, Shape, Unknown, admits
from composecli.core.findings import Finding, Side
from composecli.core.pytree import TensorSpec
from composecli.core.rules import Rule


@dataclass(frozen=True, slots=True)
class ProducerPort:
    """One output of a producer: its port, and the tensor that it was at the example input.

    `ranges` are the free dims of the input that it follows from.
    """

    model: str
    port: Port
    found: TensorSpec
    ranges: tuple[Free, ...] = ()

    @property
    def side(self) -> Side:
        return Side(self.model, self.port.name, self.found.dtype, dims_text(self.shown))

    @property
    def shown(self) -> Shape:
        """The dims of the port, or plain sizes where it has none."""
        dims = self.port.dims
        return (
            tuple(map(Fixed, self.found.sizes))
            if dims is None or len(dims) != len(self.found.sizes)
            else dims
        )


@dataclass(frozen=True, slots=True)
class ConsumerPort:
    """One input of a consumer."""

    model: str
    port: Port

    @property
    def side(self) -> Side:
        return Side(self.model, self.port.name, self.port.dtype, dims_text(self.port.dims))


def dims_text(dims: Shape | None) -> tuple[str, ...] | None:
    return None if dims is None else tuple(map(str, dims))


def compare(offer: ProducerPort, ask: ConsumerPort, *, strict: bool = False) -> tuple[Finding, ...]:
    """Every way in which the offer is not what is asked, at the example and (as a note) at other sizes."""
    findings = list[Finding]()
    sides = (offer.side, ask.side)
    if not takes_dtype(ask.port, offer.found.dtype):
        findings.append(
            Finding(Rule.DTYPE_DIFFERS, "dtype differs", sides, notes=_dtype_notes(offer, ask))
        )
    wanted = ask.port.dims
    if wanted is None:
        return tuple(findings)
    if len(wanted) != len(offer.found.sizes):
        title = f"rank differs: {len(offer.found.sizes)} axes given, {len(wanted)} taken"
        return (*findings, Finding(Rule.RANK_DIFFERS, title, sides, notes=_example_notes(offer)))
    findings += _size_findings(offer, ask, wanted)
    if not findings:
        findings += _condition_findings(offer, ask, wanted, strict=strict)
    return tuple(findings)


def _dtype_notes(offer: ProducerPort, ask: ConsumerPort) -> tuple[str, ...]:
    if ask.port.dtype.startswith("int") and not offer.found.dtype.startswith(
        ("int", "uint", "bool")
    ):
        return (
            f"{ask.port.dtype} ids cannot be made of {offer.found.dtype} values by a cast that means anything",
        )
    return ()


def _example_notes(offer: ProducerPort) -> tuple[str, ...]:
    if any(isinstance(dim, Derived | Unknown) for dim in offer.shown):
        return (f"{offer.port.name} is {offer.found} at the example input",)
    return ()


def _size_findings(offer: ProducerPort, ask: ConsumerPort, wanted: Shape) -> Iterator[Finding]:
    sides = (offer.side, ask.side)
    sizes = dict[str, int]()
    for axis, (dim, size) in enumerate(zip(wanted, offer.found.sizes, strict=True)):
        if isinstance(dim, Free) and sizes.setdefault(dim.name, size) != size:
            title = f"axis {axis} is {size} where {dim.name} is {sizes[dim.name]} already"
            yield Finding(Rule.SIZE_OUT_OF_RANGE, title, sides, axis, _example_notes(offer))
            continue
        if admits(dim, size) is not False:
            continue
        if isinstance(dim, Fixed):
            yield Finding(
                Rule.SIZE_DIFFERS,
                _size_title(axis, len(wanted)),
                sides,
                axis,
                _example_notes(offer),
            )
        else:
            title = f"{size} on axis {axis} is outside {dim}"
            yield Finding(Rule.SIZE_OUT_OF_RANGE, title, sides, axis, _example_notes(offer))


def _size_title(axis: int, rank: int) -> str:
    if axis == 1 and rank > 3:
        return "channel count differs"
    return (
        "feature width differs" if axis == rank - 1 and rank < 4 else f"size of axis {axis} differs"
    )


def _condition_findings(
    offer: ProducerPort, ask: ConsumerPort, wanted: Shape, *, strict: bool
) -> Iterator[Finding]:
    ranges = {dim.name: dim for dim in offer.ranges}
    conditions, open_axes = list[Condition](), list[str]()
    for axis, (given, dim) in enumerate(zip(offer.shown, wanted, strict=True)):
        if isinstance(given, Unknown) or (
            isinstance(dim, Unknown) and not isinstance(given, Fixed)
        ):
            reason = given.reason if isinstance(given, Unknown) else getattr(dim, "reason", "")
            open_axes.append(f"axis {axis}: {reason}")
        else:
            found = condition(given, dim, ranges)
            conditions += [found] if found is not None else []
    conditions += equalities(offer.shown, wanted)
    sides = (offer.side, ask.side)
    if conditions:
        yield _conditional(conditions, sides, _example_notes(offer), strict=strict)
    if strict and open_axes:
        yield Finding(
            Rule.SIZES_NOT_KNOWN, "cannot speak of every size", sides, notes=tuple(open_axes)
        )


def _conditional(
    conditions: list[Condition], sides: tuple[Side, ...], notes: tuple[str, ...], *, strict: bool
) -> Finding:
    text = " and ".join(dict.fromkeys(found.text for found in conditions))
    if not strict:
        return Finding(Rule.FITS_ONLY_AT_SOME_SIZES, f"compatible when {text}", sides, notes=notes)
    fails = dict.fromkeys(
        f"it fails at {found.fails_at}" for found in conditions if found.fails_at is not None
    )
    return Finding(Rule.NOT_AT_EVERY_SIZE, f"fits only when {text}", sides, notes=tuple(fails))


def shared_symbol_findings(
    pairs: tuple[tuple[ProducerPort, ConsumerPort], ...], *, strict: bool = False
) -> tuple[Finding, ...]:
    """What a consumer asks of several of its inputs at once: that axes of the same name be of one size."""
    whole = [(offer, ask) for offer, ask in pairs if len(ask.port.dims or ()) == len(offer.shown)]
    given = [dim for offer, _ in whole for dim in offer.shown]
    wanted = [dim for _, ask in whole for dim in ask.port.dims or ()]
    inside = {
        found.text for offer, ask in whole for found in equalities(offer.shown, ask.port.dims or ())
    }
    conditions = [found for found in equalities(given, wanted) if found.text not in inside]
    sides = tuple(side for offer, ask in whole for side in (offer.side, ask.side))
    return (_conditional(conditions, sides, (), strict=strict),) if conditions else ()
