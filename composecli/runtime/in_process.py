"""The worker in this process: it opens models, numbers them, and answers requests about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from composecli.core.blueprint import Blueprint, models
from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.observations import Detail, Observation, Read, RejectionKind
from composecli.core.pytree import (
    Argument,
    Call,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
    size_of,
)
from composecli.core.rules import Rule
from composecli.core.slices import Followed, are_all_kept
from composecli.runtime.describe import collect_facts, layer_rows
from composecli.runtime.error_text import telling_line
from composecli.runtime.forward.data_dependence import EVERYTHING, WRITABLE, ValuesRequired
from composecli.runtime.forward.follow import follow
from composecli.runtime.forward.marked_forward import Slices
from composecli.runtime.forward.probe import probe, reject_input, unread_bytes
from composecli.runtime.forward.rejection_kinds import rejection_kind
from composecli.runtime.forward.restore_state import ParameterMutated
from composecli.runtime.guarded_kernels import guarded_kernels
from composecli.runtime.loading import load, load_whole, with_values
from composecli.runtime.loading.own_code import import_libraries
from composecli.runtime.model import Model
from composecli.runtime.tensors import Maker, Values, tree_of
from composecli.workers.protocol import (
    BuildRequest,
    Built,
    Described,
    DescribeRequest,
    Done,
    FollowRequest,
    IsolationRequest,
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

# `check` and `inspect` do not wait for the import of what joins models.
if TYPE_CHECKING:
    from composecli.runtime.joining.verify import Reference

# Weights of at most this size are read to confirm that slices meet.
MAX_BYTES_TO_CONFIRM = 64_000_000

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
            IsolationRequest: self._sandbox,
            OpenRequest: self._open,
            SampleRequest: self._sample,
            ProbeRequest: self._probe,
            FollowRequest: self._follow,
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
        handler = self._handlers[type(request)]
        with guarded_kernels():
            reply: R = handler(request)
        return reply

    def close(self) -> None:
        """Release the models and samples."""
        self._models.clear()
        self._samples.clear()
        self._reference = None

    def _sandbox(self, _request: SandboxRequest | IsolationRequest) -> Sandbox:
        """Apply no measure: this process belongs to the caller, who needs its rights."""
        reason = "models run in this process"
        return Sandbox((), (reason,))

    def _open(self, request: OpenRequest) -> Opened:
        """Load a model under the next number; the reply says whether all of it is in memory."""
        _require_device(request.device)
        import_libraries(request.imports)
        model = load(request)
        handle = len(self._models)
        self._models[handle] = model
        facts = collect_facts(model)
        whole = model.weights is None and request.device != "meta"
        return Opened(handle, facts, whole)

    def _sample(self, request: SampleRequest) -> Sampled:
        """Load a file of tensors as a call.

        The items of a tuple or list become positional arguments, those of a dict named arguments.
        """
        if os.path.exists(request.path) and not os.path.isfile(request.path):
            title = "the sample is not a regular file"
            problem = Problem(Rule.NOT_A_REGULAR_FILE, title, request.path)
            raise CouldNotAttempt(problem)
        try:
            value = torch.load(request.path, map_location="cpu", weights_only=True)
        except Exception as error:
            title = "the sample file could not be read"
            help = "save a tensor, or a tuple or dict of tensors, with torch.save"
            notes = (_sample_note(error),)
            problem = Problem(Rule.INPUT_DOES_NOT_APPLY, title, request.path, notes, (help,))
            raise CouldNotAttempt(problem) from error
        call = self._sample_call(value)
        return Sampled(call)

    def _sample_call(self, value: Any) -> Call:
        """Return the call with the items of a value, and keep its tensors as samples."""
        tree = self._add_samples(tree_of(value), value)
        match tree:
            case TreeSequence(_, items):
                positional = tuple(Argument(item) for item in items)
                return Call(positional)
            case TreeMapping(entries):
                named = tuple(Argument(item, name) for name, item in entries)
                return Call(named)
        return Call((Argument(tree),))

    def _add_samples(self, tree: Tree, value: Any) -> Tree:
        """Keep the tensors of a value; return its tree with the numbers of the samples."""
        match tree:
            case TensorSpec():
                self._samples.append(value)
                number = len(self._samples) - 1
                return replace(tree, sample=number, below=_exclusive_bound(value))
            case TreeSequence(_, items):
                added = tuple(map(self._add_samples, items, value))
                return replace(tree, items=added)
            case TreeMapping(entries):
                values = {str(key): item for key, item in value.items()}
                numbered = [(key, self._add_samples(item, values[key])) for key, item in entries]
                return replace(tree, entries=tuple(numbered))
        return tree

    def _probe(self, request: ProbeRequest) -> Observation:
        """Run a forward on made-up input; an input that cannot be made is an observation, too."""
        try:
            values = self._make_inputs(request)
        except (RuntimeError, MemoryError, TypeError) as error:
            device = self._device(request.blueprint)
            return reject_input(error, device)
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
                reads = self._take_reads(request.blueprint)
                return replace(observation, read=reads)

    def _probe_on_fresh_copies(self, request: ProbeRequest) -> Observation:
        """Load the models again for each forward, because the forward writes to parameters."""
        self._reload(request.blueprint)
        values = self._make_inputs(request)
        try:
            observation = self._forward(request, values, Detail.OUTCOME)
        except ParameterMutated:
            self._reload(request.blueprint)
            numbers = models(request.blueprint)
            names = ", ".join(self._models[number].name for number in numbers)
            title = "the forward modifies the model's own parameters"
            notes = ("it cannot be probed",)
            problem = Problem(Rule.COULD_NOT_LOAD, title, names, notes)
            raise CouldNotAttempt(problem) from None
        reads = self._take_reads(request.blueprint)
        return replace(observation, read=reads)

    def _forward(self, request: ProbeRequest, values: Values, detail: Detail) -> Observation:
        """Run one forward with as many tensors in memory as there are now."""
        return probe(request.blueprint, self._models, values, seed=request.seed, detail=detail)

    def _follow(self, request: FollowRequest) -> Followed:
        """Follow the slices of an axis, with as few tensors read as possible.

        Where marks say that the slices meet, values decide, unless they are too many to be read.
        """
        for number in _distinct_models(request.blueprint):
            if not self._models[number].request.kind.traits.has_module:
                return _unfollowed(0, "a contract file says nothing of it")
        followed = self._follow_lazily(request)
        reads = self._take_reads(request.blueprint)
        numbers = tuple(_distinct_models(request.blueprint))
        unread = sum(unread_bytes(self._models[number]) for number in numbers)
        if followed.unread and not are_all_kept(followed) and unread <= MAX_BYTES_TO_CONFIRM:
            self._read_all(request.blueprint)
            followed = self._follow_lazily(request)
            reads = tuple(Read(number) for number in numbers)
        return replace(followed, read=reads)

    def _follow_lazily(self, request: FollowRequest) -> Followed:
        """Follow the slices, with those tensors read that ops depend on."""
        size = size_of(request.call, request.axes[0])
        slices = Slices(request.call, request.axes, size)

        def make(seed: int) -> Values:
            return self._maker(request.blueprint, seed).call(request.call)

        while True:
            try:
                return follow(request.blueprint, self._models, slices, make, request.seed)
            except ValuesRequired as needed:
                self._read_values(request.blueprint, needed)
            except ParameterMutated:
                self._reload(request.blueprint)
                return _unfollowed(size, "the forward modifies its own parameters")
            except (RuntimeError, TypeError, ValueError) as error:
                # Results of other sizes, or of a layout without strides, cannot be compared.
                return _unfollowed(size, telling_line(error), rejection_kind(error))

    def _read_values(self, blueprint: Blueprint, needed: ValuesRequired) -> None:
        """Read the records that an op needs, or all of each model if it needs any or writes."""
        for number in _distinct_models(blueprint):
            weights = self._models[number].weights
            if needed.records == WRITABLE:
                self._load_whole(number, f"{needed.op} writes to them")
            elif needed.records == EVERYTHING:
                model = self._models[number]
                self._models[number] = with_values(model, needed.op)
            elif weights is not None:
                records = {record for owner, record in needed.records if owner == number}
                weights.read(records, needed.op)

    def _take_reads(self, blueprint: Blueprint) -> tuple[Read, ...]:
        """Return the reads since the last forward, and forget them."""
        for number in _distinct_models(blueprint):
            weights = self._models[number].weights
            if weights is None:
                continue
            for reading in weights.readings:
                records, tensors = reading.records, reading.tensors
                self._reads.append(Read(number, "", records, tensors, reading.op))
            weights.readings.clear()
        reads = tuple(self._reads)
        self._reads.clear()
        return reads

    def _reload(self, blueprint: Blueprint) -> None:
        """Replace each model of a blueprint by a copy that no forward has changed."""
        for number in _distinct_models(blueprint):
            self._load_whole(number, "the forward modifies them")

    def _load_whole(self, number: int, reason: str) -> None:
        """Open a model again with all its tensors in memory."""
        if self._models[number].weights is not None:
            read = Read(number, f"all its tensors were read: {reason}")
            self._reads.append(read)
        request = self._models[number].request
        self._models[number] = load_whole(request)

    def _describe(self, request: DescribeRequest) -> Described:
        """Return the layers of a model, with their output sizes if there is a call to run."""
        model = self._models[request.handle]
        values = None
        if request.call is not None:
            maker = Maker(model.request.device, 0, self._samples)
            values = maker.call(request.call)
        rows = layer_rows(model, values)
        return Described(rows)

    def _build(self, request: BuildRequest) -> Built:
        """Write the joined module; a model that has to be scripted or traced is read first."""
        from composecli.runtime.joining.build import build, is_all_script

        if not is_all_script(request.blueprint, self._models):
            self._read_all(request.blueprint)
        maker = self._maker(request.blueprint, request.seed)
        return build(request, self._models, maker)

    def _run_reference(self, request: ReferenceRequest) -> Done:
        """Run the separate models at each call, and keep the outcome for `_verify`."""
        from composecli.runtime.joining.verify import run_reference

        self._read_all(request.blueprint)
        self._reference = run_reference(request, self._models, self._samples)
        return Done()

    def _verify(self, request: VerifyRequest) -> Verified:
        """Compare a file with the reference, which is run now unless it is the last that ran."""
        from composecli.runtime.joining.verify import verify

        if self._reference is None or self._reference.parts.request != request.expected:
            self.ask(request.expected)
        assert self._reference is not None
        return verify(request.path, self._reference)

    def _read_all(self, blueprint: Blueprint) -> None:
        """Read all tensors of the models of a blueprint into memory."""
        for number in _distinct_models(blueprint):
            model = self._models[number]
            self._models[number] = with_values(model)

    def _make_inputs(self, request: ProbeRequest) -> Values:
        """Return values for the call of a request, the same for the same seed."""
        maker = self._maker(request.blueprint, request.seed)
        return maker.call(request.call)

    def _maker(self, blueprint: Blueprint, seed: int) -> Maker:
        """Return the maker of values for a blueprint: on its device, or taken from the samples."""
        device = self._device(blueprint)
        return Maker(device, seed, self._samples)

    def _device(self, blueprint: Blueprint) -> str:
        """Return the device of the first model; the others are on the same."""
        first = models(blueprint)[0]
        return self._models[first].request.device


def _distinct_models(blueprint: Blueprint) -> Iterator[int]:
    """Yield the number of each model once, in the order in which they run first."""
    yield from dict.fromkeys(models(blueprint))


def _unfollowed(size: int, reason: str, kind: RejectionKind = RejectionKind.ERROR) -> Followed:
    """Return the reply for slices that could not be followed."""
    return Followed((), size, failed=reason, kind=kind)


def _sample_note(error: Exception) -> str:
    """Return why a sample was not read, without advice of torch to load all that is in it."""
    note = telling_line(error)
    if "weights_only" in note:
        return "it is not a file of tensors, tuples, lists and dicts alone"
    return note


def _exclusive_bound(tensor: torch.Tensor) -> int:
    """Return a bound for made-up integers like those of a tensor; at least 2."""
    if tensor.is_floating_point() or tensor.is_complex() or not tensor.numel():
        return 2
    largest = int(tensor.max())
    return max(2, largest + 1)


def _require_device(device: str) -> None:
    """Refuse a CUDA device that this machine lacks; `cuda` means `cuda:0`.

    Raises:
        CouldNotAttempt: if there is no such device.
    """
    if device in ("cpu", "meta"):
        return
    _, _, suffix = device.partition(":")
    number = int(suffix or 0)
    count = torch.cuda.device_count()
    if torch.cuda.is_available() and number < count:
        return
    title = f"there is no device {device} on this machine"
    notes = (f"CUDA devices found: {count}",)
    remedies = (Remedy(("--device", "cpu")),)
    problem = Problem(Rule.NO_SUCH_DEVICE, title, None, notes, remedies=remedies)
    raise CouldNotAttempt(problem)
