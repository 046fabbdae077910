"""Following the slices of an axis: which elements of the results depend on which of them.

A forward with marks in all slices but one shows it. Other forwards are needed only if the slices
are not kept apart: with marks in that one slice, and with other values in the others, because marks
go through a product with zero, which changed values do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor

from composecli.core.blueprint import Blueprint, models
from composecli.core.findings import Place
from composecli.core.observations import RejectionKind
from composecli.core.slices import Followed, SliceMarks
from composecli.runtime.error_text import telling_line
from composecli.runtime.forward.id_bounds import bound_of
from composecli.runtime.forward.mark_mode import Trail
from composecli.runtime.forward.marked_forward import (
    Follower,
    MarkedRun,
    Slices,
    tensors_of,
    with_changes,
)
from composecli.runtime.forward.marks import holds_nan
from composecli.runtime.forward.meeting_place import find_meeting_place
from composecli.runtime.forward.rejection_kinds import rejection_kind
from composecli.runtime.forward.run import BlueprintRun, ModelFailed
from composecli.runtime.forward.slice_axes import changes_slice, kept_axes
from composecli.runtime.model import Model
from composecli.runtime.tensors import Values

# With this many slices, one forward tells: a reversed axis is not taken for the same one.
MIN_SLICES = 4
# How many times as large as usual the values are that replace others, in each try.
SCALES = (1.0, 100.0, -3.0)

MakeValues: TypeAlias = Callable[[int], Values]
Stage: TypeAlias = tuple[SliceMarks, ...]
Stages: TypeAlias = tuple[Stage, ...]


class _Following:
    """The forwards that follow the slices of one axis, and their results so far."""

    def __init__(self, follower: Follower, slices: Slices, make: MakeValues) -> None:
        self.follower = follower
        self.slices = slices
        self.make = make
        self.values = make(follower.seed)
        self.trail = Trail()
        self.stages: Stages = ()
        self.place: Place | None = None
        self.failed: str | None = None
        self.kind: RejectionKind | None = None

    def answer(self) -> Followed:
        """Return the reply, from the forwards so far."""
        return Followed(
            self.stages,
            self.slices.size,
            tuple(self.trail.opaque),
            self.trail.reads_values,
            self.follower.unread,
            tuple(self.trail.statistics.items()),
            self.place,
            self.failed,
            self.kind,
            self.follower.forwards,
        )

    def follow(self) -> None:
        """Run forwards until it is clear whether the slices are kept apart."""
        try:
            runs = self._mark()
        except ModelFailed as failed:
            self.failed = telling_line(failed.error)
            self.kind = rejection_kind(failed.error)
            self.stages = ()
            return
        if self._is_kept:
            return
        self._change()
        number_of_models = len(models(self.follower.blueprint))
        if number_of_models > 1 and len(runs) > 1:
            self.place = find_meeting_place(self.follower, runs[0], runs[1])

    @property
    def _is_kept(self) -> bool:
        """Whether the slices are certainly kept apart in every result."""
        if self.trail.opaque or self.trail.reads_values:
            return False
        return all(marks.kept_axes for stage in self.stages for marks in stage)

    @property
    def _is_shown(self) -> bool:
        """Whether changed values have shown that the slices meet wherever marks say so."""
        if self.trail.opaque or self.trail.reads_values:
            return False
        return all(marks.kept_axes or marks.changed for stage in self.stages for marks in stage)

    def _mark(self) -> list[MarkedRun]:
        """Run with marks in all slices but one, and in that one if the first run does not tell."""
        one = self.follower.run_marked(self.values, self.slices, self.trail)
        self.stages = _stages_of(one)
        if self._is_kept and self.slices.size >= MIN_SLICES:
            return [one]
        other = self.follower.run_marked(self.values, self.slices, self.trail, complement=True)
        self.stages = _stages_of_both(one, other)
        return [one, other]

    def _change(self) -> None:
        """Run with other values in all slices but one, and compare the results in that one.

        Without weights, one run shows whether results are NaN by themselves: 0 divided by 0.
        """
        try:
            plain = self.follower.run_plain(self.values)
            if self.follower.unread:
                self._look_for_nan(plain)
                return
            for number, scale in enumerate(SCALES):
                other = self.make(self.follower.seed + number + 1)
                values = with_changes(self.values, other, self.slices, scale)
                self._compare(plain, self.follower.run_plain(values))
                if self._is_shown:
                    return
        except ModelFailed as failed:
            self.kind = rejection_kind(failed.error)

    def _compare(self, plain: BlueprintRun, changed: BlueprintRun) -> None:
        """Note in which results the slice that was left out has changed."""
        compared = list[Stage]()
        for stage, one, other in zip(self.stages, plain.results, changed.results, strict=False):
            before, after = tensors_of(one), tensors_of(other)
            found = list[SliceMarks]()
            for marks in stage:
                has_changed = bool(marks.changed)
                if marks.path in before and marks.path in after:
                    has_changed |= self._is_changed(before[marks.path], after[marks.path])
                found.append(replace(marks, changed=has_changed))
            compared.append(tuple(found))
        self.stages = tuple(compared)

    def _look_for_nan(self, plain: BlueprintRun) -> None:
        """Note that marks say nothing if there are NaN without them."""
        for result in plain.results:
            for tensor in tensors_of(result).values():
                if holds_nan(tensor) and bool(tensor.isnan().any()):
                    self.trail.opaque["a forward without weights"] = None

    def _is_changed(self, one: Tensor, other: Tensor) -> bool:
        """Return whether the slice that was left out has changed."""
        return changes_slice(one, other, self.slices.size, self.slices.left_out)


def follow(
    blueprint: Blueprint, opened: Mapping[int, Model], slices: Slices, make: MakeValues, seed: int
) -> Followed:
    """Return the marks and changes of the slices in the result of each model of a blueprint.

    `make` makes values for the call from a seed. Raises ValuesRequired if weights have to be read,
    and ParameterMutated if a model writes to its parameters.
    """
    used = {number: opened[number] for number in models(blueprint)}
    following = _Following(Follower(blueprint, used, seed), slices, make)
    following.follow()
    return following.answer()


def _stages_of(run: MarkedRun) -> Stages:
    """Return the marks in the results of one run."""
    stages = list[Stage]()
    for number in range(len(run.run.results)):
        stage = list[SliceMarks]()
        tensors = tensors_of(run.run.results[number])
        for path, marks in run.of_stage(number).items():
            kept = kept_axes(marks, run.marked)
            found = SliceMarks(path, tuple(marks.shape), kept, bool(marks.any()))
            stage.append(replace(found, below=bound_of(tensors[path])))
        stages.append(tuple(stage))
    return tuple(stages)


def _stages_of_both(one: MarkedRun, other: MarkedRun) -> Stages:
    """Return the marks in the results of two runs whose marks are in complementary slices."""
    stages = list[Stage]()
    for number in range(len(one.run.results)):
        stage = list[SliceMarks]()
        others = other.of_stage(number)
        tensors = tensors_of(one.run.results[number])
        for path, marks in one.of_stage(number).items():
            sizes = tuple(marks.shape)
            opposite = others.get(path)
            if opposite is None or opposite.shape != marks.shape:
                # The sizes follow the values, and these runs have NaN among them.
                stage.append(SliceMarks(path, sizes, (), touched=True))
                continue
            kept = set(kept_axes(marks, one.marked)) & set(kept_axes(opposite, other.marked))
            touched = bool(marks.any()) or bool(opposite.any())
            overlaps = bool((marks & opposite).any())
            found = SliceMarks(path, sizes, tuple(sorted(kept)), touched, overlaps)
            stage.append(replace(found, below=bound_of(tensors[path])))
        stages.append(tuple(stage))
    return tuple(stages)
