"""Slices: what becomes of an axis of an input when a model runs.

An axis is kept apart if each slice of an output follows from its own slice of the input alone, as
the samples of a batch should. It is mixed if slices influence one another, and lost if an output
has no axis of slices any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from composecli.core.findings import Place
from composecli.core.observations import Read, RejectionKind, renumbered
from composecli.core.pytree import KeyPath


class Fate(StrEnum):
    """What becomes of an axis in one output. `UNTOUCHED`: the output does not depend on it."""

    KEPT = "kept"
    MIXED = "mixed"
    LOST = "lost"
    UNTOUCHED = "untouched"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SliceMarks:
    """The elements of one output that depend on marked slices of an input axis.

    All slices but one were marked, and perhaps that one in a second forward. `kept_axes` are the
    axes of the output on which exactly the marked slices depend on them. `touched`: some element
    does. `overlaps`: some element depends on slices of both kinds; None without a second forward.
    `changed`: other values in all slices but one changed that one, on every axis with so many
    slices; None if that was not tried. The elements are ids below `below`, if that is known.
    """

    path: KeyPath
    sizes: tuple[int, ...]
    kept_axes: tuple[int, ...]
    touched: bool
    overlaps: bool | None = None
    changed: bool | None = None
    below: int | None = None


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of the slices of an axis of this size in the result of each stage, in order.

    `opaque` are the ops behind which the marks are not known. `reads_values`: the forward read
    values that depend on the slices, so that it may branch on them. `unread`: it ran without
    weights, so that changed values say nothing. `statistics` has, with the number of its stage, the
    first batch norm in train mode of each stage with one: they are followed as if in eval mode.
    `place` is where the slices meet in the last stage. `failed` is the reason why a forward with
    marks failed, and `kind` what stopped it, or a later one. `forwards` counts the forwards.
    """

    stages: tuple[tuple[SliceMarks, ...], ...]
    size: int
    opaque: tuple[str, ...] = ()
    reads_values: bool = False
    unread: bool = False
    statistics: tuple[tuple[int, Place], ...] = ()
    place: Place | None = None
    failed: str | None = None
    kind: RejectionKind | None = None
    forwards: int = 0
    read: tuple[Read, ...] = ()

    def marks_at(self, stage: int, path: KeyPath) -> SliceMarks | None:
        """Return the marks of the tensor at a path of a stage's result; None if there is none."""
        for marks in self.stages[stage]:
            if marks.path == path:
                return marks
        return None


@dataclass(frozen=True, slots=True)
class AxisFate:
    """What becomes of one axis of the input in one output, and on which axis it is kept."""

    output: KeyPath
    fate: Fate
    axis: int | None = None


def renumber_followed(followed: Followed, numbers: Mapping[int, int]) -> Followed:
    """Return the same reply with other handles for the models whose records were read."""
    return replace(followed, read=renumbered(followed.read, numbers))


def fates(followed: Followed, stage: int = -1) -> tuple[AxisFate, ...]:
    """Return the fate of the axis in each output of a stage, the last one by default."""
    if not followed.stages:
        return ()
    return tuple(_fate(marks, followed) for marks in followed.stages[stage])


def why_unknown(followed: Followed) -> str:
    """Return why it is not known what becomes of the axis in an output."""
    if followed.failed is not None:
        reason = followed.failed.removesuffix(":")
        return f"a run with NaN in some of its slices fails: {reason}"
    if followed.opaque:
        return f"its slices cannot be followed through {', '.join(followed.opaque)}"
    return "its slices seem to meet, but no change of the others' values changed one of them"


def are_all_kept(followed: Followed) -> bool:
    """Return whether every output of every stage keeps the slices apart."""
    if followed.failed is not None:
        return False
    found = [fate for number in range(len(followed.stages)) for fate in fates(followed, number)]
    return all(fate.fate is Fate.KEPT for fate in found)


def _fate(marks: SliceMarks, followed: Followed) -> AxisFate:
    """Return the fate of the axis in one output.

    Marks prove that an axis is kept, unless an op hid some. That slices meet is believed only if
    changed values show it, or if there are no values: marks go through a product with zero, too.
    """
    is_shown = bool(marks.changed) or followed.unread
    has_axis = followed.size in marks.sizes
    if followed.opaque:
        if is_shown and has_axis and not followed.unread:
            return AxisFate(marks.path, Fate.MIXED)
        return AxisFate(marks.path, Fate.UNKNOWN)
    if not marks.touched:
        return AxisFate(marks.path, Fate.UNTOUCHED)
    if marks.kept_axes and not marks.changed:
        return AxisFate(marks.path, Fate.KEPT, marks.kept_axes[0])
    if not is_shown:
        return AxisFate(marks.path, Fate.UNKNOWN)
    if marks.overlaps or marks.kept_axes:
        return AxisFate(marks.path, Fate.MIXED)
    return AxisFate(marks.path, Fate.LOST)
