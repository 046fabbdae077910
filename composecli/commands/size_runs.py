"""Runs of a chain, up to one of its models, at sizes of its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from composecli.commands.session import Session
from composecli.compose.check_points import Admitted
from composecli.core.blueprint import Blueprint, Parallel, Sequential
from composecli.core.contract import Contract
from composecli.core.dims import Free, admits
from composecli.core.observations import (
    Accepted,
    Detail,
    Observation,
    Rejected,
    RejectionKind,
    Remedy,
)
from composecli.core.pytree import Call, Tree, call_leaves
from composecli.core.resizing import resize, sizes_by_name

# A call with more elements is not run only to learn more of its sizes.
MAX_ELEMENTS = 6_000_000
# Nor is an image with a longer side: it would fit, but nobody would have meant it.
MAX_SIDE_OF_IMAGE = 4096

Sizes = Mapping[str, int]


@dataclass
class SizeRuns:
    """Runs of a blueprint at sizes of the free dims of its input, each at most once.

    `first` is the contract of the first model, which accepts `call`, and `ranges` its free dims.
    `smallest_failure` are the smallest sizes at which the last model failed so far.
    """

    session: Session
    blueprint: Blueprint
    first: Contract
    call: Call
    ranges: Mapping[str, Free]
    observed: dict[tuple[Call, Detail], Observation] = field(default_factory=dict)
    smallest_failure: Sizes | None = None

    @property
    def count(self) -> int:
        """The number of forwards that were run."""
        return len(self.observed)

    def call_at(self, sizes: Sizes) -> Call:
        """Return the call with these sizes."""
        return resize(self.first, self.call, sizes)

    def admits(self, sizes: Sizes) -> bool:
        """Return whether the first model admits these sizes, and a run of them is affordable."""
        for name, size in sizes.items():
            if not admits(self.ranges[name], size):
                return False
        known = {**sizes_by_name(self.first, self.call), **sizes}
        if not self.admitted.allows(known):
            return False
        return is_affordable(self.call_at(sizes))

    @property
    def admitted(self) -> Admitted:
        """What the input of the first model admits."""
        return Admitted(self.ranges, self.first.where)

    def at(self, sizes: Sizes, detail: Detail = Detail.REASON) -> Observation:
        """Return the observation at these sizes."""
        call = self.call_at(sizes)
        explained = self.observed.get((call, Detail.REASON))
        if explained is not None:
            return explained
        if (call, detail) not in self.observed:
            self.observed[call, detail] = self.session.run(self.blueprint, call, detail=detail)
        return self.observed[call, detail]

    @property
    def result(self) -> Tree:
        """The result at the sizes of the call, which the chain accepts."""
        observation = self.at({})
        assert isinstance(observation, Accepted)
        return observation.result

    def fits(self, sizes: Sizes) -> bool | None:
        """Return whether the last model accepts these sizes; None if a run does not tell.

        It does not if an earlier model refuses them, or for lack of memory, or for the values.
        """
        if not self.admits(sizes):
            return None
        match self.at(sizes, Detail.OUTCOME):
            case Accepted():
                return True
            case Rejected() as rejected:
                if self._is_about_sizes(rejected):
                    self._note_failure(sizes)
                    return False
        return None

    def _note_failure(self, sizes: Sizes) -> None:
        """Keep the smallest sizes at which a run failed."""
        known = self.smallest_failure
        if known is None or sum(sizes.values()) < sum(known.values()):
            self.smallest_failure = sizes

    def _is_about_sizes(self, rejected: Rejected) -> bool:
        """Return whether a refusal is one of the last model for the sizes that reach it."""
        if rejected.kind is not RejectionKind.ERROR or Remedy.ZEROS in rejected.remedies:
            return False
        return rejected.stage >= self._last_stage

    @property
    def _last_stage(self) -> int:
        """The number of the stage whose refusals count: any of those that run in parallel."""
        match self.blueprint:
            case Sequential(stages):
                return len(stages) - 1
            case Parallel():
                return 0


def is_affordable(call: Call) -> bool:
    """Return whether a call may be run only to learn more of its sizes."""
    for _, spec in call_leaves(call):
        if len(spec.sizes) > 3 and max(spec.sizes[2:]) > MAX_SIDE_OF_IMAGE:
            return False
    return call.elements <= MAX_ELEMENTS
