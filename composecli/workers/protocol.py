"""The messages between the command and its worker, and the protocol that every worker implements.

A request names the type of its reply: `class OpenRequest(Request[Opened])`. To add an operation,
define its reply and its request here, add them to `AnyReply` and `AnyRequest`, and add a handler to
`runtime.in_process`. The other workers pass on requests that they do not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_args, get_origin

from composecli.core.blueprint import Blueprint
from composecli.core.errors import Problem
from composecli.core.facts import ModelFacts
from composecli.core.model_ref import ModelKind, Reference
from composecli.core.observations import Accepted, Detail, Observation, Rejected
from composecli.core.pytree import Axis, Call
from composecli.core.slices import Followed

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Request(Generic[R_co]):
    """A request to a worker. `R_co` is the type of the reply.

    `activity` completes the sentence "the worker was ..." in error messages.
    """

    __slots__ = ()

    activity: ClassVar[str]


def reply_types(request: type[Request[Any]]) -> tuple[type, ...]:
    """Return the classes that a reply to this class of requests may have.

    They are the argument of its generic base: `(Opened,)` for `OpenRequest(Request[Opened])`, and
    `(Accepted, Rejected)` for `ProbeRequest(Request[Accepted | Rejected])`.

    Raises:
        TypeError: if the class does not derive from `Request[...]`.
    """
    for base in getattr(request, "__orig_bases__", ()):
        if get_origin(base) is Request:
            (reply,) = get_args(base)
            return get_args(reply) or (reply,)
    raise TypeError(f"{request.__name__} does not state the type of its reply")


class Training(StrEnum):
    """Whether models run as they were saved or are first put into eval or train mode."""

    SAVED = "saved"
    EVAL = "eval"
    TRAIN = "train"


class Isolation(StrEnum):
    """Whether the sandbox is required, applied as far as the system allows, or not applied."""

    REQUIRED = "required"
    BEST = "best"
    NONE = "none"


class MeasureKind(StrEnum):
    """A restriction that the worker can put on its own process."""

    NO_CORE_FILE = "no core file"
    NO_NEW_PRIVILEGES = "no new privileges"
    MEMORY_LIMIT = "memory"
    LANDLOCK = "Landlock"
    SECCOMP = "seccomp"


@dataclass(frozen=True, slots=True)
class Measure:
    """A restriction that was applied; `detail` is the size of the limit or the version."""

    kind: MeasureKind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.detail}".rstrip()


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The measures that were applied, and why every other measure was not.

    `unavailable`: those that the system does not have. `failed`: those that could not be applied.
    `asked_for_lock`: files and system calls were to be restricted. `unused`: all answers were
    cached, so no process had to be confined.
    """

    applied: tuple[Measure, ...]
    unavailable: tuple[str, ...]
    failed: tuple[str, ...] = ()
    asked_for_lock: bool = False
    unused: bool = False

    @property
    def restricts_files(self) -> bool:
        """Whether Landlock denies all files except those that the request lists."""
        return any(measure.kind is MeasureKind.LANDLOCK for measure in self.applied)

    @property
    def lacks_lock(self) -> bool:
        """Whether an untrusted file can open files: they were to be restricted, and are not."""
        return self.asked_for_lock and not self.restricts_files and not self.unused


@dataclass(frozen=True, slots=True)
class SandboxRequest(Request[Sandbox]):
    """Give up all rights that are not needed to open these models.

    `memory` is in bytes; `seconds` is the computing time of one request. If `files` is set, deny
    all files except those to `read` and to `write`, and all system calls but those of a program
    that computes; trusted files may need others. `imports` and `libraries` are imported first, as
    for `OpenRequest`: they may need what is denied later. `required`: fail if any measure is
    missing.
    """

    activity: ClassVar[str] = "dropping its privileges"

    read: tuple[str, ...]
    write: tuple[str, ...]
    memory: int | None
    seconds: float
    files: bool
    imports: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    uses_cuda: bool = False
    required: bool = False


@dataclass(frozen=True, slots=True)
class IsolationRequest(Request[Sandbox]):
    """Ask which measures confine the process that has run the models.

    The child is not asked: whoever started it remembers how it was confined.
    """

    activity: ClassVar[str] = "reporting its isolation"


@dataclass(frozen=True, slots=True)
class Opened:
    """An open model. `whole`: all its tensors were loaded when it was opened."""

    handle: int
    facts: ModelFacts
    whole: bool = False


@dataclass(frozen=True, slots=True)
class OpenRequest(Request[Opened]):
    """Open a model.

    `trusted`: the file may run any code, provided that its content has this `sha256`, if given.
    `pins` are the hashes of other trusted files by their real paths: those of the shards of an
    index.
    `allowed_ops` extends the list of permitted ops. `key` is the entry of a checkpoint that holds
    the weights or the module. `imports` are modules, files and folders of Python that the user
    named, and `libraries` those whose module classes may be in pickles.
    """

    activity: ClassVar[str] = "loading a model"

    reference: Reference
    kind: ModelKind
    device: str
    training: Training
    trusted: bool
    key: str | None
    allowed_ops: tuple[str, ...] = ()
    sha256: str | None = None
    imports: tuple[str, ...] = ()
    pins: tuple[tuple[str, str], ...] = ()
    libraries: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The file to open.

        Raises:
            ValueError: if the model is a factory without weights.
        """
        if self.reference.path is None:
            raise ValueError(f"{self.reference.name} names no file")
        return self.reference.path


@dataclass(frozen=True, slots=True)
class Sampled:
    """The tensors of a sample file as a call. The worker keeps their values."""

    call: Call


@dataclass(frozen=True, slots=True)
class SampleRequest(Request[Sampled]):
    """Load a file of sample tensors."""

    activity: ClassVar[str] = "loading a sample"

    path: str


@dataclass(frozen=True, slots=True)
class ProbeRequest(Request[Accepted | Rejected]):
    """Run the models of a blueprint once, one by one, on inputs generated from the seed.

    `seconds` is what is left of the time for inference: a child is stopped then, even if each
    request may take longer. It does not change the answer.
    """

    activity: ClassVar[str] = "running a forward"

    blueprint: Blueprint
    call: Call
    seed: int = 0
    detail: Detail = Detail.REASON
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class FollowRequest(Request[Followed]):
    """Find out the fates of the slices of an input axis when the models of a blueprint run.

    `axes` have the same size in the call, and are followed as one: the samples of all inputs.
    """

    activity: ClassVar[str] = "following the slices of an axis"

    blueprint: Blueprint
    call: Call
    axes: tuple[Axis, ...]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A row of the layer table."""

    depth: int
    name: str
    class_name: str
    output: str
    parameters: int


@dataclass(frozen=True, slots=True)
class Described:
    """The layer table of a model."""

    rows: tuple[LayerRow, ...]


@dataclass(frozen=True, slots=True)
class DescribeRequest(Request[Described]):
    """List the layers of one model, with output sizes if a forward of this call can show them."""

    activity: ClassVar[str] = "listing layers"

    handle: int
    call: Call | None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A record of a built file that was left empty.

    Its content is that of the record `source` in the file of the model with this handle.
    """

    record: str
    model: int
    source: str


@dataclass(frozen=True, slots=True)
class Built:
    """A combined module that was written to a file.

    `notes` state what tracing lost. If records are left out, the file declares that its storages
    are on the meta device. `functions` are the autograd functions whose own backward it lacks.
    """

    notes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    functions: tuple[str, ...] = ()

    @property
    def is_traced(self) -> bool:
        """Whether a model was traced: its code may have been kept for some sizes only."""
        return bool(self.notes)


@dataclass(frozen=True, slots=True)
class BuildRequest(Request[Built]):
    """Write the combined module to `path`, an existing empty file; trace it with `call`."""

    activity: ClassVar[str] = "building the join"

    blueprint: Blueprint
    call: Call
    path: str
    seed: int


@dataclass(frozen=True, slots=True)
class Done:
    """The reference run is finished, and the worker keeps its results."""


@dataclass(frozen=True, slots=True)
class ReferenceRequest(Request[Done]):
    """Run the models of a blueprint one by one at each of these calls.

    The worker keeps the results to verify the combined file against them.
    """

    activity: ClassVar[str] = "running the separate models"

    blueprint: Blueprint
    calls: tuple[Call, ...]
    seed: int


# The name of the check that compares gradients.
GRADIENTS = "gradients"


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison of the combined file with the separate models."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call at other sizes than the example's, which the models accept and the file does not."""

    call: Call
    message: str


@dataclass(frozen=True, slots=True)
class Verified:
    """The checks of a combined file.

    `cut` names the trainable parameters that get no gradient, in the separate models too.
    `refusals` are not failed checks: a trace may hold for the example alone.
    """

    checks: tuple[Check, ...]
    results: tuple[str, ...]
    cut: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)


@dataclass(frozen=True, slots=True)
class VerifyRequest(Request[Verified]):
    """Load the file at `path` and compare it with the reference run, which is made if missing."""

    activity: ClassVar[str] = "verifying the join"

    path: str
    expected: ReferenceRequest


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker could not carry out the request."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Ready:
    """The first message of a child process: it has started, and reads requests."""


AnyRequest = (
    SandboxRequest
    | IsolationRequest
    | OpenRequest
    | SampleRequest
    | ProbeRequest
    | FollowRequest
    | DescribeRequest
    | BuildRequest
    | ReferenceRequest
    | VerifyRequest
)
# The reply types of these requests, and `Failed`, which may answer any of them.
AnyReply = (
    Sandbox
    | Opened
    | Sampled
    | Observation
    | Followed
    | Described
    | Built
    | Done
    | Verified
    | Failed
)


class Worker(Protocol):
    """Opens models and runs them."""

    @property
    def parallelism(self) -> int:
        """How many threads may ask at the same time."""

    def ask(self, request: Request[R]) -> R:
        """Return the reply to a request.

        Raises:
            CouldNotAttempt: if the worker cannot do what is requested.
        """

    def close(self) -> None:
        """Release the models and end any process."""
