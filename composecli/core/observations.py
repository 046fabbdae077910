"""What a probe saw: facts from the worker, without judgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from composecli.core.pytree import TensorSpec, Tree

# Ops of aten in which an input meets a weight.
PROJECTIONS = ("addmm", "mm", "linear", "matmul", "bmm", "baddbmm", "mv")
CONVOLUTIONS = ("convolution", "_convolution")


@dataclass(frozen=True, slots=True)
class ParameterOp:
    """An op in which something made from the input meets a parameter.

    `value` is what came from the input; `parameter` is the name of the parameter and `weight` it as the op saw
    it (`(in, out)` for addmm). `groups` and `transposed` speak of convolutions alone; `inputs` are the numbers of the
    input tensors that `value` was made from.
    """

    op: str
    value: TensorSpec
    parameter: str
    weight: TensorSpec
    groups: int = 1
    transposed: bool = False
    inputs: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        """How many channels a convolution takes."""
        return self.weight.sizes[0] if self.transposed else self.weight.sizes[1] * self.groups


@dataclass(frozen=True, slots=True)
class Operand:
    """One tensor that an op was given: `inputs` are the numbers of the input tensors that it was made from."""

    spec: TensorSpec
    inputs: tuple[int, ...] = ()
    parameter: str | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """What had to be read of the tensors of the model with this handle, and for which op: these records, all of them
    where none is named."""

    model: int
    note: str
    records: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The forward ran. `results` is what each stage returned, the last one last."""

    results: tuple[Tree, ...]
    device: str
    parameter_ops: tuple[ParameterOp, ...] = ()
    read: tuple[Read, ...] = ()

    @property
    def result(self) -> Tree:
        return self.results[-1]


@dataclass(frozen=True, slots=True)
class Rejected:
    """The forward raised, in the stage with this number.

    `module` is the submodule where it can be known, `code` the line of TorchScript where it cannot; `operands` and
    `numbers` are the arguments of the op that refused, `ops` is how many ops on the input ran before it.
    `runs_on_zeros`: the same sizes pass with other values; `runs_in_eval`: the same input passes in eval mode;
    `no_descriptor`: a file could not be opened because none may be.
    """

    stage: int
    error: str
    message: str
    device: str
    op: str | None = None
    module: str | None = None
    code: str | None = None
    operands: tuple[Operand, ...] = ()
    numbers: tuple[int, ...] = ()
    ops: int = 0
    runs_on_zeros: bool = False
    runs_in_eval: bool = False
    out_of_memory: bool = False
    no_descriptor: bool = False
    results: tuple[Tree, ...] = ()
    parameter_ops: tuple[ParameterOp, ...] = ()
    read: tuple[Read, ...] = ()

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        return tuple(operand.spec for operand in self.operands)

    @property
    def where(self) -> str:
        """`fc1 (aten::addmm)`, with as much of it as is known."""
        place = self.module or (f"`{self.code}`" if self.code else None)
        if place and self.op:
            return f"{place} ({self.op})"
        return place or self.op or "its own code"


def renumber_reads(seen: Observation, numbers: Mapping[int, int]) -> Observation:
    """The same with other numbers for the models whose tensors were read."""
    return replace(seen, read=tuple(replace(read, model=numbers[read.model]) for read in seen.read))


@dataclass(frozen=True, slots=True)
class Untried:
    """No forward was run, and why: the budget is spent, or the user asked to stop."""

    reason: str


Observation = Accepted | Rejected


class Detail(StrEnum):
    """How much a probe tells: whether it ran, also why not, or also the ops in which inputs meet parameters."""

    OUTCOME = "outcome"
    REASON = "reason"
    PARAMETER_OPS = "meetings"
