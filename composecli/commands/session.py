"""A session: the worker, the models that it has opened, and the contracts inferred so far."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from typing import TypeVar

from composecli.commands.composition import InferenceResult, contract_of
from composecli.commands.confinement import confine
from composecli.commands.exploration import Explorer
from composecli.commands.opened_model import OpenedModel
from composecli.commands.parallel_map import ParallelMap
from composecli.commands.progress import ProbeCounter, Progress
from composecli.commands.requests import Options
from composecli.commands.resolve import Target
from composecli.commands.results import ModelReport
from composecli.commands.stated_inputs import is_partial, state_inputs, state_settings
from composecli.commands.trust import pinned_files
from composecli.core.blueprint import Blueprint, Settings, single_model
from composecli.core.contract import accepts_call
from composecli.core.contract_at_rank import at_rank
from composecli.core.errors import CouldNotAttempt
from composecli.core.facts import ModelFacts
from composecli.core.observations import Accepted, Detail, Observation, Read, reading_notes
from composecli.core.pytree import Axis, Call
from composecli.core.rules import Rule
from composecli.core.slices import Followed
from composecli.inference import Found, Hints, infer
from composecli.inference.candidates import Candidate
from composecli.inference.prober import INTERRUPTED
from composecli.workers.protocol import (
    FollowRequest,
    IsolationRequest,
    OpenRequest,
    ProbeRequest,
    Sandbox,
    Worker,
)

Item = TypeVar("Item")
Result = TypeVar("Result")


class Session:
    """One command at work on one worker.

    `partial_results` are the reports of the models whose inference has ended: an interrupted
    command can still show them.
    """

    def __init__(self, worker: Worker, options: Options, progress: Progress) -> None:
        self.worker = worker
        self.options = options
        self.progress = progress
        self.partial_results = list[ModelReport]()
        self._is_confined = False
        self._opened = dict[tuple[str, str, str | None], tuple[int, ModelFacts]]()
        self._stated = dict[int, Candidate]()
        self._inferred = dict[int, InferenceResult]()
        self._reads = dict[int, list[Read]]()
        self._explorer = Explorer(self._probe)
        self._threads = ParallelMap(worker.parallelism)

    def with_options(self, options: Options, progress: Progress) -> Session:
        """Return a session with other inputs, selections and key, which shares what is known."""
        other = copy(self)
        other.options = options
        other.progress = progress
        other.partial_results = []
        other._stated = {}
        return other

    def confine(self, targets: tuple[Target, ...], writable: tuple[str, ...] = ()) -> None:
        """Have the worker give up everything that these models do not need.

        `writable` are the folders that it may write to.
        """
        expected = confine(self.worker, self.options, targets, writable)
        self._is_confined = expected is not None

    @property
    def sandbox(self) -> Sandbox | None:
        """The measures that confine the process of the models; None if none were asked for."""
        if not self._is_confined:
            return None
        return self.worker.ask(IsolationRequest())

    def open(self, target: Target) -> OpenedModel:
        """Open a model on the device of the command. A file that is named twice is opened once."""
        handle, facts = self._open(target, self.options.real_device)
        explore_handle = handle
        if self.options.device == "meta":
            explore_handle = self._open_on_meta(target, handle)
        return OpenedModel(target, facts, explore_handle, handle)

    def _open_on_meta(self, target: Target, real_handle: int) -> int:
        """Return the handle of the model on meta; of the real one if it cannot be loaded there."""
        try:
            return self._open(target, "meta")[0]
        except CouldNotAttempt:
            return real_handle

    def _open(self, target: Target, device: str) -> tuple[int, ModelFacts]:
        """Return the handle and the facts of a model, which is loaded once per device and key."""
        name = target.name
        if target.file is not None:
            name = os.path.realpath(target.file.path)
        key = (name, device, self.options.key)
        if key not in self._opened:
            self.progress(f"loading {target.name}")
            request = _open_request(target, device, self.options)
            opened = self.worker.ask(request)
            self._opened[key] = (opened.handle, opened.facts)
        return self._opened[key]

    def run(
        self, blueprint: Blueprint, call: Call, seed: int = 0, detail: Detail = Detail.REASON
    ) -> Observation:
        """Run one forward of a blueprint, on values that follow from the seed."""
        return self._probe(ProbeRequest(blueprint, call, seed, detail))

    def _probe(self, request: ProbeRequest) -> Observation:
        """Run a probe, and keep the records that it had to read."""
        observation = self.worker.ask(request)
        self._keep_reads(observation.read)
        return observation

    def _keep_reads(self, reads: Iterable[Read]) -> None:
        """Keep the records that a forward had to read, by model."""
        for read in reads:
            self._reads.setdefault(read.model, []).append(read)

    def follow(self, blueprint: Blueprint, call: Call, axes: tuple[Axis, ...]) -> Followed | None:
        """Follow the slices of an axis through a blueprint; None if that cannot be attempted."""
        try:
            followed = self.worker.ask(FollowRequest(blueprint, call, axes))
        except CouldNotAttempt as failure:
            if failure.problem.rule is Rule.A_BUG_OF_OURS:
                raise
            return None
        self._keep_reads(followed.read)
        return followed

    def stated_input(self, part: OpenedModel, number: int = 1) -> Candidate | None:
        """Return the input that `--input` states for the model of this number; None if it does not.

        In parallel, every model gets the input that is stated for the first one. It is partial if
        other arguments are needed than those that are stated.
        """
        inputs = tuple(given for given in self.options.inputs if given.model == number)
        if not inputs:
            return None
        if number not in self._stated:
            candidate = state_inputs(inputs, part.name, part.facts, part.target.kind, self.worker)
            partial = is_partial(candidate, part.facts)
            self._stated[number] = replace(candidate, is_partial=partial)
        return self._stated[number]

    def stated_branch(self, part: OpenedModel, number: int) -> Candidate | None:
        """Return the input that `--input` states for a parallel model: that of the first one.

        It has the plain values that are stated for this model, too.
        """
        if not self.settings(part, number):
            return self.stated_input(part)
        inputs = tuple(given for given in self.options.inputs if given.model in (1, number))
        kind = part.target.kind
        candidate = state_inputs(inputs, part.name, part.facts, kind, self.worker)
        return replace(candidate, is_partial=is_partial(candidate, part.facts))

    def settings(self, part: OpenedModel, number: int) -> Settings:
        """Return the plain values that `--input` states for a model that is not the first one."""
        if number == 1:
            return ()
        inputs = tuple(given for given in self.options.inputs if given.model == number)
        return state_settings(inputs, part.facts)

    def has_stated_call(self, number: int = 1) -> bool:
        """Return whether `--input` states a whole call, so that no other is tried."""
        stated = self._stated.get(number)
        return stated is not None and not stated.is_partial

    def infer(
        self, part: OpenedModel, *, stated: Candidate | None = None, given: Call | None = None
    ) -> InferenceResult:
        """Infer the contract of a model from a stated input, its file, and probes.

        `given` is a call that a producer makes of the model. A contract that was inferred earlier
        is returned again, at the rank of that call if it is of any rank, unless the model accepts
        `given` and the contract does not allow it.

        Raises:
            KeyboardInterrupt: if the user ended the inference. Its report is in `partial_results`.
        """
        if stated is None:
            known = self._known(part, given)
            if known is not None:
                return known
        self.progress(f"inferring the contract of {part.name}")
        counter = ProbeCounter(self.progress, part.name)
        deadline = time.monotonic() + self.options.budget.seconds

        def probe(call: Call, detail: Detail) -> Observation:
            counter.step(call)
            return self._explorer.explore(part, call, detail, deadline)

        hints = _hints(part, stated, given)
        found = infer(hints, probe, self.options.budget)
        self.partial_results.append(self.report(part, found))
        if found.stopped == INTERRUPTED:
            raise KeyboardInterrupt
        if stated is None:
            self._inferred.setdefault(part.handle, found)
        return found

    def _known(self, part: OpenedModel, given: Call | None) -> InferenceResult | None:
        """Return the contract that was inferred earlier, at the rank of the call that is given.

        None if there is none, or if the model accepts a call that it does not allow.
        """
        previous = self._inferred.get(part.handle)
        if previous is None or given is None:
            return previous
        if isinstance(previous, Found) and accepts_call(previous.contract, given):
            return previous
        request = ProbeRequest(single_model(part.handle), given, detail=Detail.OUTCOME)
        observation = self._probe(request)
        if not isinstance(observation, Accepted):
            return previous
        if not isinstance(previous, Found):
            return None
        ranked = at_rank(previous.contract, given, observation.result)
        if ranked is None:
            return None
        return replace(previous, contract=ranked)

    def report(self, part: OpenedModel, found: InferenceResult) -> ModelReport:
        """Return the contract of a model, with notes on the tensors that probes had to read."""
        contract = contract_of(found)
        reads = self._reads.get(part.handle, [])
        notes = (*part.facts.notes, *reading_notes(reads))
        kind = str(part.target.kind)
        return ModelReport(part.name, kind, contract, found.probes, notes)

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return the result for each item, in order, as many at a time as the worker can run."""
        return self._threads.map(function, items)


def _hints(part: OpenedModel, stated: Candidate | None, given: Call | None) -> Hints:
    """Collect everything that suggests a call of the model."""
    if stated is not None and stated.is_partial:
        return Hints(part.facts, partial=stated)
    file = part.target.file
    if file is None:
        return Hints(part.facts, stated, given=given)
    return Hints(part.facts, stated, file.exported, file.traced, given)


def _open_request(target: Target, device: str, options: Options) -> OpenRequest:
    """Return the request to load a model; a trusted file is loaded by its digest."""
    sha256 = None
    pins: tuple[tuple[str, str], ...] = ()
    if target.trust is not None:
        sha256 = target.trust.sha256
        pins = tuple(pinned_files(options.trust))
    return OpenRequest(
        target.reference,
        target.kind,
        device,
        options.training,
        trusted=target.trust is not None,
        key=options.key,
        allowed_ops=options.allowed_ops,
        sha256=sha256,
        imports=options.imports,
        pins=pins,
        libraries=options.libraries,
    )
