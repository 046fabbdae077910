"""The worker in this process: opens models, keeps them by number, and answers requests about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from composecli.core.blueprint import Blueprint, models
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.observations import Detail, Observation, Read
from composecli.core.pytree import Argument, Call, TensorSpec, Tree, TreeMapping, TreeSequence
from composecli.core.rules import Rule
from composecli.runtime.describe import facts, rows
from composecli.runtime.forward.data_dependence import EVERYTHING, WRITABLE, ValuesRequired
from composecli.runtime.forward.probe import cannot_be_made, probe
from composecli.runtime.forward.restore_state import ParameterMutated
from composecli.runtime.joining.build import build, is_all_script
from composecli.runtime.joining.verify import Reference, run_reference, verify
from composecli.runtime.loading import load, load_whole, with_values
from composecli.runtime.model import Model, last_line
from composecli.runtime.tensors import Maker, Values, tree_of
from composecli.workers.protocol import (
    BuildRequest,
    Built,
    Described,
    DescribeRequest,
    Done,
    Opened,
    OpenRequest,
    ProbeRequest,
    ReferenceRequest,
    Sampled,
    SampleRequest,
    Sandbox,
    SandboxRequest,
    Verified,
    VerifyRequest,
)


class InProcessWorker:
    """The Worker protocol without a child process: for the Python API, the debugger and most tests."""

    parallelism = 1

    def __init__(self) -> None:
        self._models = dict[int, Model]()
        self._samples = list[torch.Tensor]()
        self._expected: Reference | None = None
        self._read = list[Read]()

    def open(self, request: OpenRequest) -> Opened:
        _refuse_missing_device(request)
        model = load(request)
        handle = len(self._models)
        self._models[handle] = model
        return Opened(
            handle, facts(model), whole=model.weights is None and request.device != "meta"
        )

    def sample(self, request: SampleRequest) -> Sampled:
        """The tensors of a file, as a call: a tuple or list is its positional arguments, a dict its named ones."""
        try:
            held = torch.load(request.path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CouldNotAttempt(
                Problem(
                    Rule.INPUT_DOES_NOT_APPLY, "the sample file could not be read", request.path, (last_line(error),),
                    ("save a tensor, or a tuple or dict of tensors, with torch.save",),
                )
            ) from error  # fmt: skip
        return Sampled(self._sample_call(held))

    def _sample_call(self, held: Any) -> Call:
        tree = self._numbered(tree_of(held), held)
        match tree:
            case TreeSequence(_, items):
                return Call(tuple(Argument(item) for item in items))
            case TreeMapping(entries):
                return Call(tuple(Argument(value, name) for name, value in entries))
        return Call((Argument(tree),))

    def _numbered(self, tree: Tree, value: Any) -> Tree:
        match tree:
            case TensorSpec():
                self._samples.append(value)
                whole = not value.is_floating_point() and not value.is_complex() and value.numel()
                below = max(2, int(value.max()) + 1) if whole else 2
                return replace(tree, sample=len(self._samples) - 1, below=below)
            case TreeSequence(_, items):
                return replace(tree, items=tuple(map(self._numbered, items, value)))
            case TreeMapping(entries):
                held = {str(key): item for key, item in value.items()}
                return replace(
                    tree,
                    entries=tuple((key, self._numbered(item, held[key])) for key, item in entries),
                )
        return tree

    def sandbox(self, _request: SandboxRequest) -> Sandbox:
        """Nothing: this process is the caller's own, and has more to do than this."""
        return Sandbox((), ("models run in this process",))

    def probe(self, request: ProbeRequest) -> Observation:
        try:
            values = self._maker(request.blueprint, request.seed).call(request.call)
        except (RuntimeError, MemoryError, TypeError) as error:
            device = self._models[models(request.blueprint)[0]].request.device
            return cannot_be_made(error, device)
        try:
            return self._probe(request, values)
        except ParameterMutated:
            return self._probe_on_fresh_copies(request)

    def _probe(self, request: ProbeRequest, values: Values) -> Observation:
        """A forward by what was read of the models' tensors, and again with more of it where it depends on more."""
        while True:
            try:
                seen = probe(
                    request.blueprint,
                    self._models,
                    values,
                    seed=request.seed,
                    detail=request.detail,
                )
            except ValuesRequired as needed:
                self._read_values(request.blueprint, needed)
            else:
                return replace(seen, read=tuple(self._newly_read(request.blueprint)))

    def _read_values(self, blueprint: Blueprint, needed: ValuesRequired) -> None:
        for number in dict.fromkeys(models(blueprint)):
            records = {record for owner, record in needed.records if owner == number}
            weights = self._models[number].weights
            if needed.records == WRITABLE:
                self._load_whole(number, f"{needed.op} writes to them")
            elif needed.records == EVERYTHING:
                self._models[number] = with_values(self._models[number], needed.op)
            elif weights is not None:
                weights.read(records, needed.op)

    def _newly_read(self, blueprint: Blueprint) -> Iterator[Read]:
        """What was read since the last forward."""
        for number in dict.fromkeys(models(blueprint)):
            weights = self._models[number].weights
            if weights is not None:
                self._read += (
                    Read(number, reading.note, reading.records) for reading in weights.readings
                )
                weights.readings.clear()
        yield from self._read
        self._read.clear()

    def _probe_on_fresh_copies(self, request: ProbeRequest) -> Observation:
        """For models whose forward writes to their parameters: each forward gets them as they were saved."""
        self._reload(request.blueprint)
        values = self._maker(request.blueprint, request.seed).call(request.call)
        try:
            seen = probe(
                request.blueprint, self._models, values, seed=request.seed, detail=Detail.OUTCOME
            )
        except ParameterMutated:
            self._reload(request.blueprint)
            names = ", ".join(self._models[number].name for number in models(request.blueprint))
            raise CouldNotAttempt(
                Problem(
                    Rule.COULD_NOT_LOAD,
                    "the forward changes the model's own parameters",
                    names,
                    ("it cannot be probed",),
                )
            ) from None
        return replace(seen, read=tuple(self._newly_read(request.blueprint)))

    def _reload(self, blueprint: Blueprint) -> None:
        for number in dict.fromkeys(models(blueprint)):
            self._load_whole(number, "the forward changes them")

    def _load_whole(self, number: int, reason: str) -> None:
        """Open a model again with all its tensors in memory."""
        if self._models[number].weights is not None:
            self._read.append(Read(number, f"all its tensors were read: {reason}"))
        self._models[number] = load_whole(self._models[number].request)

    def describe(self, request: DescribeRequest) -> Described:
        model = self._models[request.handle]
        values = None
        if request.call is not None:
            values = Maker(model.request.device, 0, self._samples).call(request.call)
        return Described(rows(model, values))

    def build(self, request: BuildRequest) -> Built:
        if not is_all_script(request.blueprint, self._models):
            self._read_all(request.blueprint)
        return build(request, self._models, self._maker(request.blueprint, request.seed))

    def run_reference(self, request: ReferenceRequest) -> Done:
        self._read_all(request.blueprint)
        self._expected = run_reference(request, self._models, self._samples)
        return Done()

    def verify(self, request: VerifyRequest) -> Verified:
        if self._expected is None or self._expected.parts.request != request.expected:
            self.run_reference(request.expected)
        assert self._expected is not None
        return verify(request.path, self._expected)

    def _read_all(self, blueprint: Blueprint) -> None:
        for number in dict.fromkeys(models(blueprint)):
            self._models[number] = with_values(self._models[number])

    def close(self) -> None:
        self._models.clear()
        self._samples.clear()
        self._expected = None

    def _maker(self, blueprint: Blueprint, seed: int) -> Maker:
        return Maker(self._models[models(blueprint)[0]].request.device, seed, self._samples)


def _refuse_missing_device(request: OpenRequest) -> None:
    device = request.device
    if device in ("cpu", "meta"):
        return
    number = int(device.partition(":")[2] or 0)
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        raise CouldNotAttempt(
            Problem(
                Rule.NO_SUCH_DEVICE, f"there is no device {device} here", None,
                (f"CUDA devices found: {torch.cuda.device_count()}",), ("use --device cpu",),
            )
        )  # fmt: skip
