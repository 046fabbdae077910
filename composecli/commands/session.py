"""A session: the worker, the models that were opened in it, and the contracts found so far."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from composecli.commands.opened_model import OpenedModel
from composecli.commands.requests import Options
from composecli.commands.resolve import Target
from composecli.commands.results import ModelReport
from composecli.core.blueprint import Blueprint, single_model
from composecli.core.contract import Evidence, EvidenceKind, takes_call
from composecli.core.dims import Fixed, Free, Shape
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.facts import ModelFacts
from composecli.core.input_spec import (
    Declared,
    DeclaredLiteral,
    DeclaredSample,
    DeclaredTensor,
    example_sizes,
)
from composecli.core.model_ref import ModelKind
from composecli.core.observations import Accepted, Detail, Observation, Rejected
from composecli.core.pytree import Argument, Call, KeyPath, Literal, TensorSpec
from composecli.core.rules import Rule
from composecli.inference.candidates import Candidate
from composecli.inference.hints import Hints
from composecli.inference.infer import infer
from composecli.inference.prober import INTERRUPTED
from composecli.inference.result import Found, NotFound
from composecli.workers.protocol import (
    Isolation,
    OpenRequest,
    ProbeRequest,
    SampleRequest,
    Sandbox,
    SandboxRequest,
    Worker,
)

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Progress = Callable[[str], None]
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Session:
    """Asks one worker. The same file is opened once, however often it is named. `known` is what was found so far."""

    def __init__(self, worker: Worker, options: Options, tell: Progress) -> None:
        self.worker = worker
        self.options = options
        self.tell = tell
        self._opened = dict[tuple[str, str], tuple[int, ModelFacts]]()
        self._stated: Candidate | None = None
        self._not_on_meta = set[int]()
        self.known = list[ModelReport]()
        self.confined: Sandbox | None = None
        self._read = dict[int, dict[str, None]]()
        self._found = dict[int, Found | NotFound]()
        self._threads: ThreadPoolExecutor | None = None

    @property
    def real_device(self) -> str:
        """The device whose forward decides: meta accepts what real kernels refuse."""
        return "cpu" if self.options.device == "meta" else self.options.device

    def confine(self, targets: tuple[Target, ...], write: tuple[str, ...] = ()) -> None:
        """Have the worker give up what it does not need for these models.

        Raises:
            CouldNotAttempt: a measure that is required cannot be had.
        """
        limits = self.options.limits
        if limits.isolation is Isolation.NONE:
            return
        samples = tuple(
            declared.path
            for declared in self.options.inputs
            if isinstance(declared, DeclaredSample)
        )
        read = (
            *(os.path.realpath(target.path) for target in targets),
            *map(os.path.realpath, samples),
        )
        own = all(
            target.trust is None and target.kind is not ModelKind.FACTORY for target in targets
        )
        memory = None if self.real_device.startswith("cuda") else limits.memory or _most_memory()
        self.confined = self.worker.sandbox(
            SandboxRequest(read, write, memory, limits.seconds, files=own)
        )
        if self.confined.unavailable and limits.isolation is Isolation.REQUIRED:
            help = ("--isolation best goes on with what can be had",)
            problem = Problem(
                Rule.ISOLATION_MISSING,
                "the isolation that is required cannot be had",
                None,
                self.confined.unavailable,
                help,
            )
            raise CouldNotAttempt(problem)

    def open(self, target: Target) -> OpenedModel:
        real, facts = self._open(target, self.real_device)
        return OpenedModel(target, facts, self._explored(target, real), real)

    def _explored(self, target: Target, real: int) -> int:
        """The handle to explore with: on meta where that was asked for and the model can be had there."""
        if self.options.device != "meta":
            return real
        try:
            return self._open(target, "meta")[0]
        except CouldNotAttempt:
            return real

    def _open(self, target: Target, device: str) -> tuple[int, ModelFacts]:
        name = target.name if target.file is None else os.path.realpath(target.path)
        if (name, device) not in self._opened:
            self.tell(f"loading {target.name}")
            opened = self.worker.open(_open_request(target, device, self.options))
            self._opened[name, device] = (opened.handle, opened.facts)
        return self._opened[name, device]

    def run(self, blueprint: Blueprint, call: Call) -> Observation:
        return self._probe(ProbeRequest(blueprint, call))

    def _probe(self, request: ProbeRequest) -> Observation:
        seen = self.worker.probe(request)
        for read in seen.read:
            self._read.setdefault(read.model, {})[read.note] = None
        return seen

    def report(self, part: OpenedModel, found: Found | NotFound) -> ModelReport:
        """What was found of one model, with what had to be read of its tensors by now."""
        contract = found.contract if isinstance(found, Found) else None
        notes = (*part.facts.notes, *self._read.get(part.handle, ()))
        return ModelReport(part.name, str(part.target.kind), contract, found.probes, notes)

    def stated_input(self, part: OpenedModel) -> Candidate | None:
        """What `--input` states, as a call of this model, or of another that gets the same input."""
        if not self.options.inputs:
            return None
        if self._stated is None:
            self._stated = self._state(self.options.inputs, part)
        return self._stated

    def _state(self, inputs: tuple[Declared, ...], part: OpenedModel) -> Candidate:
        arguments, dims = list[Argument](), list[tuple[KeyPath, Shape]]()
        sizes = dict[str, int]()
        for declared in inputs:
            self._refuse_strange_name(declared, part)
            match declared:
                case DeclaredSample(path):
                    arguments += self.worker.sample(SampleRequest(path)).call.arguments
                case DeclaredLiteral(name, value):
                    arguments.append(Argument(Literal(value), name))
                case DeclaredTensor(name, dtype, shape):
                    chosen = example_sizes(shape, sizes)
                    sizes.update(
                        {
                            dim.name: size
                            for dim, size in zip(shape, chosen, strict=True)
                            if isinstance(dim, Free)
                        }
                    )
                    arguments.append(
                        Argument(TensorSpec(dtype or part.facts.float_dtype, chosen), name)
                    )
                    if dtype is not None or not all(isinstance(dim, Fixed) for dim in shape):
                        dims.append(((len(arguments) - 1,), shape))
        return Candidate(Call(tuple(arguments)), Evidence(EvidenceKind.DECLARED), tuple(dims))

    def _refuse_strange_name(self, declared: Declared, part: OpenedModel) -> None:
        """A Python forward may take any name; the arguments of the other kinds are all known."""
        name = None if isinstance(declared, DeclaredSample) else declared.name
        names = [argument.name for argument in part.facts.arguments]
        if (
            name is None
            or name in names
            or part.target.kind not in (ModelKind.TORCHSCRIPT, ModelKind.EXPORTED)
        ):
            return
        note = f"its inputs: {', '.join(names) or 'none'}"
        raise CouldNotAttempt(
            Problem(Rule.INPUT_DOES_NOT_APPLY, f"the model has no input {name}", part.name, (note,))
        )

    def infer(
        self, part: OpenedModel, *, stated: Candidate | None = None, given: Call | None = None
    ) -> Found | NotFound:
        """The contract of one model, from what is stated, what its file says, and probes. One that was found before is
        found no more, unless the model takes what is given and the contract says nothing of that."""
        before = self._found.get(part.handle)
        if before is not None and stated is None and not self._reveals_more(part, before, given):
            return before
        self.tell(f"finding what {part.name} takes")
        file = part.target.file
        hints = Hints(
            part.facts,
            stated,
            file.exported if file is not None else None,
            file.traced if file is not None else None,
            given,
        )
        progress = _Counting(self.tell, part.name)

        def ask(call: Call, detail: Detail) -> Observation:
            progress.step()
            return self._explore(part, call, detail)

        found = infer(hints, ask, self.options.budget)
        self.known.append(self.report(part, found))
        if found.stopped == INTERRUPTED:
            raise KeyboardInterrupt
        if stated is None:
            self._found.setdefault(part.handle, found)
        return found

    def map(self, work: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """What it gives for each of them, as many at a time as the worker has lanes."""
        if self.worker.parallelism == 1:
            return [work(item) for item in items]
        from concurrent.futures import ThreadPoolExecutor

        # Its threads live as long as this does: a child that takes the place of another ends with its thread.
        self._threads = self._threads or ThreadPoolExecutor(self.worker.parallelism)
        found = [self._threads.submit(work, item) for item in items]
        try:
            return [future.result() for future in found]
        except BaseException:
            self._threads.shutdown(wait=False, cancel_futures=True)
            raise

    def _reveals_more(
        self, part: OpenedModel, before: Found | NotFound, given: Call | None
    ) -> bool:
        if given is None or (isinstance(before, Found) and takes_call(before.contract, given)):
            return False
        return isinstance(
            self._probe(ProbeRequest(single_model(part.handle), given, detail=Detail.OUTCOME)),
            Accepted,
        )

    def _explore(self, part: OpenedModel, call: Call, detail: Detail) -> Observation:
        """A probe where exploring is done. On meta what is refused is refused, and nothing is accepted that does not
        really run; a model that refuses there what really runs (its device is baked in) is explored where it runs."""
        if part.explore_handle == part.handle or part.handle in self._not_on_meta:
            return self._probe(ProbeRequest(single_model(part.handle), call, detail=detail))
        seen = self._probe(ProbeRequest(single_model(part.explore_handle), call, detail=detail))
        if detail is Detail.OUTCOME and isinstance(seen, Rejected):
            return seen
        real = self._probe(ProbeRequest(single_model(part.handle), call, detail=detail))
        if isinstance(seen, Rejected) and isinstance(real, Accepted):
            self._not_on_meta.add(part.handle)
        return seen if isinstance(real, Accepted) and isinstance(seen, Accepted) else real


def _open_request(target: Target, device: str, options: Options) -> OpenRequest:
    return OpenRequest(
        target.reference,
        target.kind,
        device,
        options.training,
        trusted=target.trust is not None,
        key=options.key,
        allowed_ops=options.allowed_ops,
        sha256=target.trust.sha256 if target.trust is not None else None,
    )


def _most_memory() -> int | None:
    """Four fifths of the memory of this machine, where that can be known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 4 // 5
    except (ValueError, OSError, AttributeError):
        return None


class _Counting:
    """Says how many probes were made, from the second second on."""

    def __init__(self, tell: Progress, name: str) -> None:
        self.tell = tell
        self.name = name
        self.count = 0
        self.next = time.monotonic() + 1

    def step(self) -> None:
        self.count += 1
        if time.monotonic() > self.next:
            self.next += 0.5
            self.tell(f"finding what {self.name} takes: {self.count} probes")
