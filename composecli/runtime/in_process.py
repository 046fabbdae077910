"""The worker in this process: it opens models, numbers them, and answers requests about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from composecli.core.blueprint import Blueprint, models
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.observations import Detail, Observation, Read
from composecli.core.pytree import Argument, Call, TensorSpec, Tree, TreeMapping, TreeSequence
from composecli.core.rules import Rule
from composecli.runtime.describe import collect_facts, layer_rows
from composecli.runtime.forward.data_dependence import EVERYTHING, WRITABLE, ValuesRequired
from composecli.runtime.forward.probe import probe, reject_input
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
    R,
    ReferenceRequest,
    Request,
    Sampled,
    SampleRequest,
    Sandbox,
    SandboxRequest,
    Verified,
    VerifyRequest,
)

Handlers = dict[type[Request[Any]], Callable[[Any], Any]]


class InProcessWorker:
    """The Worker protocol without a child process: for the Python API, debuggers and tests."""

    parallelism = 1

    def __init__(self) -> None:
        self._models = dict[int, Model]()
        self._samples = list[torch.Tensor]()
        self._reference: Reference | None = None
        self._reads = list[Read]()
        self._handlers: Handlers = {
            SandboxRequest: self._sandbox,
            OpenRequest: self._open,
            SampleRequest: self._sample,
            ProbeRequest: self._probe,
            DescribeRequest: self._describe,
            BuildRequest: self._build,
            ReferenceRequest: self._run_reference,
            VerifyRequest: self._verify,
        }

    def ask(self, request: Request[R]) -> R:
        """Return the reply to a request.

        Raises:
            CouldNotAttempt: if the worker cannot do what is requested.
        """
        reply: R = self._handlers[type(request)](request)
        return reply

    def close(self) -> None:
        """Release the models and samples."""
        self._models.clear()
        self._samples.clear()
        self._reference = None

    def _sandbox(self, _request: SandboxRequest) -> Sandbox:
        """Apply no measure: this process belongs to the caller, who needs its rights."""
        return Sandbox((), ("models run in this process",))

    def _open(self, request: OpenRequest) -> Opened:
        _require_device(request.device)
        model = load(request)
        handle = len(self._models)
        self._models[handle] = model
        whole = model.weights is None and request.device != "meta"
        return Opened(handle, collect_facts(model), whole)

    def _sample(self, request: SampleRequest) -> Sampled:
        """Load a file of tensors as a call.

        The items of a tuple or list become positional arguments, those of a dict named arguments.
        """
        try:
            value = torch.load(request.path, map_location="cpu", weights_only=True)
        except Exception as error:
            title = "the sample file could not be read"
            help = "save a tensor, or a tuple or dict of tensors, with torch.save"
            notes = (last_line(error),)
            raise CouldNotAttempt(
                Problem(Rule.INPUT_DOES_NOT_APPLY, title, request.path, notes, (help,))
            ) from error
        return Sampled(self._sample_call(value))

    def _sample_call(self, value: Any) -> Call:
        tree = self._add_samples(tree_of(value), value)
        match tree:
            case TreeSequence(_, items):
                return Call(tuple(Argument(item) for item in items))
            case TreeMapping(entries):
                return Call(tuple(Argument(item, name) for name, item in entries))
        return Call((Argument(tree),))

    def _add_samples(self, tree: Tree, value: Any) -> Tree:
        """Keep the tensors of a value; return its tree with the numbers of the samples."""
        match tree:
            case TensorSpec():
                self._samples.append(value)
                return replace(tree, sample=len(self._samples) - 1, below=_exclusive_bound(value))
            case TreeSequence(_, items):
                return replace(tree, items=tuple(map(self._add_samples, items, value)))
            case TreeMapping(entries):
                values = {str(key): item for key, item in value.items()}
                numbered = [(key, self._add_samples(item, values[key])) for key, item in entries]
                return replace(tree, entries=tuple(numbered))
        return tree

    def _probe(self, request: ProbeRequest) -> Observation:
        try:
            values = self._make_inputs(request)
        except (RuntimeError, MemoryError, TypeError) as error:
            return reject_input(error, self._device(request.blueprint))
        try:
            return self._probe_lazily(request, values)
        except ParameterMutated:
            return self._probe_on_fresh_copies(request)

    def _probe_lazily(self, request: ProbeRequest, values: Values) -> Observation:
        """Run a forward with as few tensors read as possible.

        Weights are read from the file only when the result depends on their values. Repeat the
        forward after each read, until it needs no more.
        """
        while True:
            try:
                observation = self._forward(request, values, request.detail)
            except ValuesRequired as needed:
                self._read_values(request.blueprint, needed)
            else:
                return replace(observation, read=self._take_reads(request.blueprint))

    def _probe_on_fresh_copies(self, request: ProbeRequest) -> Observation:
        """Load the models again for each forward, because the forward writes to parameters."""
        self._reload(request.blueprint)
        values = self._make_inputs(request)
        try:
            observation = self._forward(request, values, Detail.OUTCOME)
        except ParameterMutated:
            self._reload(request.blueprint)
            names = ", ".join(self._models[number].name for number in models(request.blueprint))
            title = "the forward changes the model's own parameters"
            raise CouldNotAttempt(
                Problem(Rule.COULD_NOT_LOAD, title, names, ("it cannot be probed",))
            ) from None
        return replace(observation, read=self._take_reads(request.blueprint))

    def _forward(self, request: ProbeRequest, values: Values, detail: Detail) -> Observation:
        return probe(request.blueprint, self._models, values, seed=request.seed, detail=detail)

    def _read_values(self, blueprint: Blueprint, needed: ValuesRequired) -> None:
        for number in _distinct_models(blueprint):
            weights = self._models[number].weights
            if needed.records == WRITABLE:
                self._load_whole(number, f"{needed.op} writes to them")
            elif needed.records == EVERYTHING:
                self._models[number] = with_values(self._models[number], needed.op)
            elif weights is not None:
                records = {record for owner, record in needed.records if owner == number}
                weights.read(records, needed.op)

    def _take_reads(self, blueprint: Blueprint) -> tuple[Read, ...]:
        """Return what was read since the last forward, and forget it."""
        for number in _distinct_models(blueprint):
            weights = self._models[number].weights
            if weights is None:
                continue
            for reading in weights.readings:
                self._reads.append(Read(number, reading.note, reading.records))
            weights.readings.clear()
        reads = tuple(self._reads)
        self._reads.clear()
        return reads

    def _reload(self, blueprint: Blueprint) -> None:
        for number in _distinct_models(blueprint):
            self._load_whole(number, "the forward changes them")

    def _load_whole(self, number: int, reason: str) -> None:
        """Open a model again with all its tensors in memory."""
        if self._models[number].weights is not None:
            self._reads.append(Read(number, f"all its tensors were read: {reason}"))
        self._models[number] = load_whole(self._models[number].request)

    def _describe(self, request: DescribeRequest) -> Described:
        model = self._models[request.handle]
        values = None
        if request.call is not None:
            values = Maker(model.request.device, 0, self._samples).call(request.call)
        return Described(layer_rows(model, values))

    def _build(self, request: BuildRequest) -> Built:
        if not is_all_script(request.blueprint, self._models):
            self._read_all(request.blueprint)
        return build(request, self._models, self._maker(request.blueprint, request.seed))

    def _run_reference(self, request: ReferenceRequest) -> Done:
        self._read_all(request.blueprint)
        self._reference = run_reference(request, self._models, self._samples)
        return Done()

    def _verify(self, request: VerifyRequest) -> Verified:
        if self._reference is None or self._reference.parts.request != request.expected:
            self.ask(request.expected)
        assert self._reference is not None
        return verify(request.path, self._reference)

    def _read_all(self, blueprint: Blueprint) -> None:
        for number in _distinct_models(blueprint):
            self._models[number] = with_values(self._models[number])

    def _make_inputs(self, request: ProbeRequest) -> Values:
        return self._maker(request.blueprint, request.seed).call(request.call)

    def _maker(self, blueprint: Blueprint, seed: int) -> Maker:
        return Maker(self._device(blueprint), seed, self._samples)

    def _device(self, blueprint: Blueprint) -> str:
        first = models(blueprint)[0]
        return self._models[first].request.device


def _distinct_models(blueprint: Blueprint) -> Iterator[int]:
    """Yield the number of each model once, in the order in which they run first."""
    yield from dict.fromkeys(models(blueprint))


def _exclusive_bound(tensor: torch.Tensor) -> int:
    """Return a bound for made-up integers like those of a tensor; at least 2."""
    if tensor.is_floating_point() or tensor.is_complex() or not tensor.numel():
        return 2
    return max(2, int(tensor.max()) + 1)


def _require_device(device: str) -> None:
    if device in ("cpu", "meta"):
        return
    number = int(device.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if torch.cuda.is_available() and number < count:
        return
    title = f"there is no device {device} here"
    notes = (f"CUDA devices found: {count}",)
    raise CouldNotAttempt(Problem(Rule.NO_SUCH_DEVICE, title, None, notes, ("use --device cpu",)))
