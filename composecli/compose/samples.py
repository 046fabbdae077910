"""Samples at a seam: the finding that a consumer mixes or loses those that its producer keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from composecli.core.contract import BATCH
from composecli.core.findings import Finding, Place, Side
from composecli.core.pytree import Call, KeyPath
from composecli.core.rules import Rule
from composecli.core.slices import AxisFate, Fate, Followed, fates, why_unknown

MAX_LISTED_OUTPUTS = 4
_VERBS = {Fate.MIXED: "mixes", Fate.LOST: "loses"}
_PARTICIPLES = {
    Fate.KEPT: "kept apart",
    Fate.MIXED: "mixed",
    Fate.LOST: "lost",
    Fate.UNTOUCHED: "not used",
    Fate.UNKNOWN: "not known",
}
# Between a participle and the outputs.
_PREPOSITIONS = {
    Fate.KEPT: "on",
    Fate.MIXED: "in",
    Fate.LOST: "in",
    Fate.UNTOUCHED: "by",
    Fate.UNKNOWN: "in",
}


@dataclass(frozen=True, slots=True)
class SampleSeam:
    """Both sides of a seam, and the axis of each tensor between them that holds the samples."""

    producer: Side
    consumer: Side
    axis: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of the samples of a call, which are on the axes of this name."""

    call: Call
    followed: Followed
    name: str = BATCH


def kept_axis(followed: Followed, stage: int, path: KeyPath) -> int | None:
    """Return the axis on which a stage's result keeps the samples apart, in the part at `path`.

    None if it does not keep them, or that is not known.
    """
    depth = len(path)
    for fate in fates(followed, stage):
        if fate.output[:depth] == path and fate.fate is Fate.KEPT:
            return fate.axis
    return None


def fate_of_samples(followed: Followed) -> Fate:
    """Return the fate of the samples in the whole result of the last stage.

    They are kept if one output keeps them and none mixes them in place: a loss beside the logits
    is a mean over all samples.
    """
    last = fates(followed)
    kinds = {fate.fate for fate in last}
    in_place = {marks.path for marks in followed.stages[-1] if followed.size in marks.sizes}
    if any(fate.fate is Fate.MIXED and fate.output in in_place for fate in last):
        return Fate.MIXED
    for kind in (Fate.KEPT, Fate.UNKNOWN, Fate.MIXED, Fate.LOST):
        if kind in kinds:
            return kind
    return Fate.UNTOUCHED


def samples_finding(
    seam: SampleSeam, fate: Fate, place: Place | None, help: tuple[str, ...], name: str = BATCH
) -> Finding:
    """Return the finding that the consumer mixes or loses the samples; `help` would mend it."""
    producer, consumer = seam.producer, seam.consumer
    title = f"{consumer.model} {_VERBS[fate]} the samples that {producer.model} keeps apart"
    taken = f"axis {seam.axis} of {consumer.port} of {consumer.model} is {_PARTICIPLES[fate]}"
    if place is not None:
        taken += f" at {format_place(place)}"
    notes = (_kept_note(seam, name), taken)
    sides = (producer, consumer)
    return Finding(Rule.SAMPLES_ARE_MIXED, title, sides, seam.axis, notes, help=help, place=place)


def samples_not_known_finding(seam: SampleSeam, seen: Seen) -> Finding:
    """Return the note that the consumer may or may not keep the producer's samples apart."""
    producer, consumer = seam.producer, seam.consumer
    title = f"{consumer.model} may mix the samples that {producer.model} keeps apart"
    notes = (
        _kept_note(seam, seen.name),
        f"it is not known what becomes of axis {seam.axis} of {consumer.port} of {consumer.model}: "
        + why_unknown(seen.followed),
        f"tried at {seen.call}",
    )
    return Finding(Rule.SAMPLES_NOT_KNOWN, title, (producer, consumer), seam.axis, notes)


def _kept_note(seam: SampleSeam, name: str) -> str:
    """Return on which axis the producer keeps the samples apart."""
    producer = seam.producer
    return f"{name} is kept apart on axis {seam.axis} of {producer.port} of {producer.model}"


def batch_norm_finding(model: str, place: Place) -> Finding:
    """Return the note that a batch norm in train mode uses all samples."""
    where = format_place(place)
    title = f"{model} is in train mode, where batch norm mixes the samples of a batch"
    notes = (f"the first one is {where}", "--training eval keeps them apart")
    return Finding(Rule.BATCH_NORM_TRAINS, title, notes=notes, place=place)


def format_place(place: Place) -> str:
    """Return a place as it is shown: `1.lstm (aten::lstm)`."""
    if place.submodule and place.op:
        return f"{place.submodule} ({place.op})"
    return place.submodule or place.op or "its own code"


def branches_finding(keeping: Side, mixing: Side, fate: Fate, seen: Seen) -> Finding:
    """Return the finding that one of two branches mixes or loses the samples of the shared input.

    `seen` is what the other branch made of them.
    """
    title = f"{mixing.model} {_VERBS[fate]} the samples that {keeping.model} keeps apart"
    notes = (
        f"{BATCH} of the shared input is kept apart in {keeping.port} of {keeping.model}",
        f"it is {_PARTICIPLES[fate]} in {mixing.port} of {mixing.model}",
        f"seen at {seen.call}",
    )
    return Finding(Rule.SAMPLES_ARE_MIXED, title, (keeping, mixing), notes=notes)


def describe_fates(name: str, found: Sequence[tuple[str, AxisFate]]) -> str:
    """Return the fates of a dim as text: `N is kept apart on axis 0 of output 0`."""
    kept_on = {fate.axis for _, fate in found if fate.fate is Fate.KEPT}
    is_alike = all(fate.fate is Fate.KEPT for _, fate in found)
    if is_alike and len(kept_on) == 1 and len(found) > MAX_LISTED_OUTPUTS:
        (axis,) = kept_on
        return f"{name} is kept apart on axis {axis} of all {len(found)} outputs"
    places_by_kind = dict[Fate, list[str]]()
    for output, fate in found:
        place = output
        if fate.fate is Fate.KEPT:
            place = f"axis {fate.axis} of {output}"
        places_by_kind.setdefault(fate.fate, []).append(place)
    if len(places_by_kind) == 1 and Fate.KEPT not in places_by_kind:
        (kind,) = places_by_kind
        return f"{name} is {_PARTICIPLES[kind]}"
    parts = list[str]()
    for kind, places in places_by_kind.items():
        listed = ", ".join(places)
        parts.append(f"{_PARTICIPLES[kind]} {_PREPOSITIONS[kind]} {listed}")
    return f"{name} is {'; '.join(parts)}"
