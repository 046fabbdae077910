"""Contracts: the ports a model takes and gives, and what is known about where that comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from composecli.core.dims import Shape, Unknown, admits
from composecli.core.dtypes import ANY_FLOAT, FLOATS
from composecli.core.pytree import (
    Call,
    KeyPath,
    Literal,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
    call_leaves,
    keystr,
)

_NAMES = ("", "N", "ND", "NTL", "NCHW", "NCDHW")


class EvidenceKind(StrEnum):
    DECLARED = "declared"
    EXPORTED = "exported"
    TRACED = "traced"
    PROBED = "probed"


@dataclass(frozen=True, slots=True)
class Evidence:
    kind: EvidenceKind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} ({self.detail})" if self.detail else str(self.kind)


@dataclass(frozen=True, slots=True)
class Port:
    """One tensor that a model takes or gives. `dims` is None where any rank is taken, `dtype` `float` where every
    float dtype is; an output of such a model has the dtype of its input."""

    name: str
    path: KeyPath
    dtype: str
    dims: Shape | None
    optional: bool = False

    def __str__(self) -> str:
        dims = "*" if self.dims is None else ", ".join(map(str, self.dims))
        return f"{self.dtype}[{dims}]" + (" optional" if self.optional else "")


@dataclass(frozen=True, slots=True)
class Contract:
    """What a model takes and gives, with the example that stands behind it.

    `example` is a call that the model accepted and `result` what it returned for it; their leaves are the
    ports, in order.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    example: Call
    result: Tree
    evidence: tuple[Evidence, ...]

    def __str__(self) -> str:
        return f"{self.inputs_text} -> {self.outputs_text}"

    @property
    def required(self) -> tuple[Port, ...]:
        """The inputs that a call cannot do without: those of the example."""
        return tuple(port for port in self.inputs if not port.optional)

    @property
    def open_dims(self) -> tuple[str, ...]:
        """Each dim that is not known, with the reason."""
        return tuple(
            f"{port.name} axis {axis}: {dim.reason}"
            for port in (*self.inputs, *self.outputs)
            for axis, dim in enumerate(port.dims or ())
            if isinstance(dim, Unknown)
        )

    @property
    def inputs_text(self) -> str:
        ports = iter(self.inputs)
        texts = list[str]()
        for argument in self.example.arguments:
            text = _tree_text(argument.value, ports)
            named = isinstance(argument.value, Literal) and argument.name
            texts.append(f"{argument.name}={text}" if named else text)
        texts += map(str, ports)
        return ", ".join(texts) or "nothing"

    @property
    def outputs_text(self) -> str:
        return _tree_text(self.result, iter(self.outputs))


def _tree_text(tree: Tree, ports: Iterator[Port]) -> str:
    match tree:
        case TensorSpec():
            return str(next(ports))
        case TreeSequence(kind, items):
            inner = ", ".join(_tree_text(item, ports) for item in items)
            if kind == "list":
                return f"[{inner}]"
            return f"({inner},)" if len(items) == 1 else f"({inner})"
        case TreeMapping(entries):
            return (
                "{"
                + ", ".join(f'"{key}": {_tree_text(item, ports)}' for key, item in entries)
                + "}"
            )
        case Literal(value):
            return repr(value)
    return "?"


def fresh_name(spec: TensorSpec, axis: int, used: set[str]) -> str:
    """A name for a free dim by the custom of the field, `H` for axis 2 of 4, numbered where it is used already."""
    rank = len(spec.sizes)
    wanted = _NAMES[rank][axis] if rank < len(_NAMES) else f"D{axis}"
    if rank == 2 and axis == 1 and not spec.dtype.startswith(("float", "bfloat", "complex")):
        wanted = "T"
    name, number = wanted, 1
    while name in used:
        number += 1
        name = f"{wanted}{number}"
    used.add(name)
    return name


def input_name(path: KeyPath, argument: str | None) -> str:
    """`ids` where the argument has a name, else `input 0`; what is inside it is written behind."""
    return (argument or f"input {path[0]}") + keystr(path[1:])


def output_name(path: KeyPath) -> str:
    """`output 0` for a bare tensor, `out["logits"]` and `out[0]` for one inside something."""
    return f"out{keystr(path)}" if path else "output 0"


def takes_dtype(port: Port, dtype: str) -> bool:
    return dtype in FLOATS if port.dtype == ANY_FLOAT else dtype == port.dtype


def takes(port: Port, spec: TensorSpec) -> bool | None:
    """Whether a tensor like this is one that the port admits; None where the port does not say."""
    if not takes_dtype(port, spec.dtype):
        return False
    if port.dims is None:
        return True
    if len(port.dims) != len(spec.sizes):
        return False
    answers = {admits(dim, size) for dim, size in zip(port.dims, spec.sizes, strict=True)}
    return False if False in answers else None if None in answers else True


def takes_call(contract: Contract, call: Call) -> bool:
    """Whether the contract says of each tensor of the call that it is taken."""
    given, ports = dict(call_leaves(call)), {port.path: port for port in contract.inputs}
    needed = {port.path for port in contract.required}
    if not needed <= given.keys() <= ports.keys() or any(
        argument.name for argument in call.arguments
    ):
        return False
    return all(takes(ports[path], spec) is True for path, spec in given.items())
