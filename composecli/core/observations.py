"""Observations: the outcome of one forward, as reported by the worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from composecli.core.pytree import TensorSpec, Tree


@dataclass(frozen=True, slots=True)
class ParameterOp:
    """An op that combines a value computed from the input with a parameter.

    `weight` is the parameter as the op receives it, `(in, out)` for addmm. `groups` and
    `transposed` are those of a convolution. `inputs` are the numbers of the input tensors that
    `value` was computed from.
    """

    op: str
    value: TensorSpec
    parameter: str
    weight: TensorSpec
    groups: int = 1
    transposed: bool = False
    inputs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Operand:
    """One tensor argument of an op.

    `inputs` are the numbers of the input tensors that it was computed from.
    """

    spec: TensorSpec
    inputs: tuple[int, ...] = ()
    parameter: str | None = None


@dataclass(frozen=True, slots=True)
class Lookup:
    """Ids that an op looked up in a table of so many rows, and could not.

    `is_given`: the extreme ones are among the values that the model got.
    """

    rows: int
    smallest: int
    largest: int
    is_given: bool = False

    @property
    def fails(self) -> bool:
        """Whether some id has no row."""
        return self.smallest < 0 or self.largest >= self.rows

    @property
    def witness(self) -> int:
        """An id that has no row."""
        if self.largest >= self.rows:
            return self.largest
        return self.smallest


@dataclass(frozen=True, slots=True)
class Read:
    """Records of a model file that were read, and why. All were read if none is named.

    `model` is the handle of the model. Either `op` depends on the values of `tensors`, or of all
    tensors if none is named, or `note` states another reason.
    """

    model: int
    note: str = ""
    records: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    op: str = ""


MAX_TENSORS_NAMED = 4


def reading_notes(reads: Iterable[Read]) -> list[str]:
    """Return notes on the records that were read: one for all the values that ops depend on.

    the forward reads values of gate.bias, table and 6 more (aten::index, aten::item)
    """
    notes = dict[str, None]()
    tensors = dict[str, None]()
    ops = dict[str, None]()
    everything = False
    for read in reads:
        if read.note:
            notes[read.note] = None
        if read.op:
            ops[read.op] = None
            tensors.update(dict.fromkeys(read.tensors))
            everything = everything or not read.tensors
    if not ops:
        return list(notes)
    named = ", ".join(list(tensors)[:MAX_TENSORS_NAMED])
    if len(tensors) > MAX_TENSORS_NAMED:
        named += f" and {len(tensors) - MAX_TENSORS_NAMED} more"
    if everything:
        named = "all its tensors"
    return [*notes, f"the forward reads values of {named} ({', '.join(ops)})"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The forward ran. `results` are the results of the stages, in order.

    `reads_values`: a size or a branch may depend on the values of the input. `unread` is the size
    in bytes of the weights that the forward ran without: it did not multiply with them.
    """

    results: tuple[Tree, ...]
    device: str
    parameter_ops: tuple[ParameterOp, ...] = ()
    reads_values: bool = False
    unread: int = 0
    read: tuple[Read, ...] = ()

    @property
    def result(self) -> Tree:
        """The result of the last stage."""
        return self.results[-1]


class RejectionKind(StrEnum):
    """What stopped a forward."""

    ERROR = "error"
    OUT_OF_MEMORY = "out of memory"
    NO_FILE = "no file"
    WORKER_DIED = "worker died"


class Remedy(StrEnum):
    """A change with which a rejected forward runs. Several of them may apply to one rejection."""

    EVAL_MODE = "eval mode"
    ZEROS = "zeros"


@dataclass(frozen=True, slots=True)
class Rejected:
    """The forward raised, in the stage with this number.

    `error` is the name of the exception's class, empty if it is only "Error".
    `submodule` is where it failed, if that is known and not the model itself. `module` is what to
    show: the submodule, or a parameter of the model. If there is none, `code` may be the line of
    TorchScript.
    `operands` and `numbers` are the arguments of the failing op, and `ops` counts the ops on the
    input that ran before it. `kind` is `NO_FILE` if the sandbox does not allow opening a file.
    `remedies` are the changes with which the same forward runs. `lookup` has the ids that the
    failing op looked up in a table, if that was the reason.
    """

    stage: int
    error: str
    message: str
    device: str
    op: str | None = None
    module: str | None = None
    submodule: str | None = None
    code: str | None = None
    operands: tuple[Operand, ...] = ()
    numbers: tuple[int, ...] = ()
    ops: int = 0
    kind: RejectionKind = RejectionKind.ERROR
    remedies: tuple[Remedy, ...] = ()
    results: tuple[Tree, ...] = ()
    parameter_ops: tuple[ParameterOp, ...] = ()
    read: tuple[Read, ...] = ()
    lookup: Lookup | None = None

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The tensor arguments of the failing op."""
        return tuple(operand.spec for operand in self.operands)

    @property
    def out_of_memory(self) -> bool:
        """Whether the forward failed for lack of memory, which is not the model's fault."""
        return self.kind is RejectionKind.OUT_OF_MEMORY

    @property
    def has_place(self) -> bool:
        """Whether it is known where the forward failed: Python code may raise anywhere."""
        return bool(self.module or self.code or self.op)

    @property
    def where(self) -> str:
        """The place of the failure: `fc1 (aten::addmm)`, or as much of it as is known."""
        place = self.module
        if not place and self.code:
            place = f"`{self.code}`"
        if place and self.op:
            return f"{place} ({self.op})"
        return place or self.op or "its own code"


def renumber_reads(observation: Observation, numbers: Mapping[int, int]) -> Observation:
    """Return the same observation with other handles for the models whose records were read."""
    return replace(observation, read=renumbered(observation.read, numbers))


def renumbered(reads: Iterable[Read], numbers: Mapping[int, int]) -> tuple[Read, ...]:
    """Return the same records with other handles for the models."""
    return tuple(replace(read, model=numbers[read.model]) for read in reads)


@dataclass(frozen=True, slots=True)
class Untried:
    """No forward was run, and the reason: the budget is spent, or the user asked to stop."""

    reason: str


Observation = Accepted | Rejected


class Detail(StrEnum):
    """How much a probe reports: the outcome, also the reason, or also the parameter ops."""

    OUTCOME = "outcome"
    REASON = "reason"
    PARAMETER_OPS = "parameter ops"
