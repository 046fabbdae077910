"""What the command and the worker say to each other: plain data, and the one protocol that both sides know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from composecli.core.blueprint import Blueprint
from composecli.core.errors import Problem
from composecli.core.facts import ModelFacts
from composecli.core.model_ref import ModelKind, Reference
from composecli.core.observations import Accepted, Detail, Observation, Rejected
from composecli.core.pytree import Call


class Training(StrEnum):
    """Whether models run as they were saved, or are put into eval or train mode first."""

    SAVED = "saved"
    EVAL = "eval"
    TRAIN = "train"


class Isolation(StrEnum):
    """Whether the measures that confine the child have to be had, may be, or are left out."""

    REQUIRED = "required"
    BEST = "best"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """Give up what is not needed to open these models. `memory` is in bytes; `seconds` of computing are
    for one request.

    `files`: whether to give up all files but those to `read` and to `write`; a file that is trusted may need others.
    """

    read: tuple[str, ...]
    write: tuple[str, ...]
    memory: int | None
    seconds: float
    files: bool


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The measures that were had, and those that were not."""

    applied: tuple[str, ...]
    unavailable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """`trusted`: whatever the file holds may run, where its content has this `sha256` if one is given; `allowed_ops`
    may run besides those on the list. `key` says which entry of a checkpoint holds the weights.
    """

    reference: Reference
    kind: ModelKind
    device: str
    training: Training
    trusted: bool
    key: str | None
    allowed_ops: tuple[str, ...] = ()
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """`whole`: all its tensors had their values from the start."""

    handle: int
    facts: ModelFacts
    whole: bool = False


@dataclass(frozen=True, slots=True)
class SampleRequest:
    path: str


@dataclass(frozen=True, slots=True)
class Sampled:
    call: Call


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """One forward of a blueprint, run by hand."""

    blueprint: Blueprint
    call: Call
    seed: int = 0
    detail: Detail = Detail.REASON


@dataclass(frozen=True, slots=True)
class DescribeRequest:
    """The layer table of one model, with output sizes where a forward of this call can show them."""

    handle: int
    call: Call | None


@dataclass(frozen=True, slots=True)
class LayerRow:
    depth: int
    name: str
    class_name: str
    output: str
    parameters: int


@dataclass(frozen=True, slots=True)
class Described:
    rows: tuple[LayerRow, ...]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """The combined module, written to `path`, a file that is there and empty. `call` is the example for tracing."""

    blueprint: Blueprint
    call: Call
    path: str
    seed: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A record of a built file that is empty: its content is that of a record of the file of the model with this
    handle."""

    record: str
    model: int
    source: str


@dataclass(frozen=True, slots=True)
class Built:
    """`notes` say what the building lost: what tracing drops. Where records are left out, the storages of the file are
    said to lie on the meta device."""

    notes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True)
class ReferenceRequest:
    """The blueprint run by hand, at each of these calls. What it gives is kept for the file that is to do the same."""

    blueprint: Blueprint
    calls: tuple[Call, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Done:
    """It was run, and what came of it is kept."""


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """The file at `path` loaded afresh and held against what is expected, which is run by hand if it was not before."""

    path: str
    expected: ReferenceRequest


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Verified:
    """`cut` names the parameters that get no gradient though they ask for one, in the parts run by hand too."""

    checks: tuple[Check, ...]
    results: tuple[str, ...]
    cut: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker could not attempt it."""

    problem: Problem


Request = (
    SandboxRequest
    | OpenRequest
    | SampleRequest
    | ProbeRequest
    | DescribeRequest
    | BuildRequest
    | ReferenceRequest
    | VerifyRequest
)
Reply = (
    Sandbox | Opened | Sampled | Accepted | Rejected | Described | Built | Done | Verified | Failed
)


class Worker(Protocol):
    """Opens models and runs them. Each method raises CouldNotAttempt where it cannot. `lanes`: how many threads may ask
    it at a time."""

    @property
    def parallelism(self) -> int: ...

    def sandbox(self, request: SandboxRequest, /) -> Sandbox: ...

    def open(self, request: OpenRequest) -> Opened: ...

    def sample(self, request: SampleRequest) -> Sampled: ...

    def probe(self, request: ProbeRequest) -> Observation: ...

    def describe(self, request: DescribeRequest) -> Described: ...

    def build(self, request: BuildRequest) -> Built: ...

    def run_reference(self, request: ReferenceRequest) -> Done: ...

    def verify(self, request: VerifyRequest) -> Verified: ...

    def close(self) -> None: ...
