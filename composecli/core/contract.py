"""Contracts: the inputs and outputs of a model, and the evidence for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from composecli.core.dims import (
    REST,
    Dim,
    Free,
    Shape,
    admits,
    as_expr,
    as_free,
    free_dims,
    unknown_reason,
)
from composecli.core.dtypes import ANY_FLOAT, FLOATS, is_complex, is_floating
from composecli.core.pytree import (
    Call,
    KeyPath,
    Literal,
    Opaque,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
    call_leaves,
    port_name,
    port_names,
)
from composecli.core.relations import Relation, Where, all_hold, format_where
from composecli.core.size_expr import Const, Expr, evaluate, symbols

# The name of the axis that holds the samples.
BATCH = "N"
# The name of an output that is the whole result.
_UNNAMED = "output 0"
# The conventional names of the axes of a tensor, by its rank.
_AXIS_NAMES = ("", "N", "ND", "NTL", "NCHW", "NCDHW")


class EvidenceKind(StrEnum):
    """How a contract was established."""

    DECLARED = "declared"
    EXPORTED = "exported"
    TRACED = "traced"
    PROBED = "probed"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One piece of evidence for a contract."""

    kind: EvidenceKind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} ({self.detail})" if self.detail else str(self.kind)


@dataclass(frozen=True, slots=True)
class Port:
    """One tensor that a model accepts or returns.

    `dims` is None if the port allows any rank. `dtype` is `float` if it allows every float dtype;
    an output of such a model has the dtype of its input. `rest` is the place among the dims at
    which any number of further axes may be: it is 1 in `float32[N, *]`. The ports of a contract
    have no rest, so that their dims are those of its example: those of its `any_rank` have one.
    """

    name: str
    path: KeyPath
    dtype: str
    dims: Shape | None
    optional: bool = False
    rest: int | None = None

    def __str__(self) -> str:
        dims = ", ".join(self.axis_texts)
        suffix = " optional" if self.optional else ""
        return f"{self.dtype}[{dims}]{suffix}"

    @property
    def axis_texts(self) -> tuple[str, ...]:
        """The text of each dim, and `*` for any number of axes."""
        if self.dims is None:
            return (REST,)
        texts = [str(dim) for dim in self.dims]
        if self.rest is not None:
            texts.insert(self.rest, REST)
        return tuple(texts)


@dataclass(frozen=True, slots=True)
class Signature:
    """The ports of a model, and the relations that the dims of the inputs have to meet.

    One input may be of any rank: `float32[N, *] where prod(*) == 1024`. `prod(*)` is the product of
    the axes that `*` stands for, and may be in the dims of the outputs, too.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    where: Where


@dataclass(frozen=True, slots=True)
class Contract:
    """The inputs and outputs of a model, with an example.

    `example` is a call that the model accepted and `result` the value that it returned. Their
    leaves are the ports, in order. `where` are relations that the dims of the inputs have to meet.
    They are at the rank of the example; `any_rank` is for all ranks, if others are accepted, too.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    example: Call
    result: Tree
    evidence: tuple[Evidence, ...]
    where: Where = ()
    any_rank: Signature | None = None

    def __str__(self) -> str:
        where = format_where(self.general.where)
        return f"{self.inputs_text}{where} -> {self.outputs_text}"

    @property
    def general(self) -> Signature:
        """The ports and relations for all ranks that are accepted."""
        return self.any_rank or Signature(self.inputs, self.outputs, self.where)

    @property
    def required(self) -> tuple[Port, ...]:
        """The inputs that every call needs: those of the example."""
        return tuple(port for port in self.inputs if not port.optional)

    @property
    def free_inputs(self) -> tuple[Free, ...]:
        """The free dims of the inputs, in order: a name is there as often as it has an axis."""
        dims = list[Free]()
        for port in self.inputs:
            dims += free_dims(port.dims or ())
        return tuple(dims)

    @property
    def unknown_dims(self) -> tuple[str, ...]:
        """Each unknown dim, with the reason."""
        texts = list[str]()
        for port in (*self.inputs, *self.outputs):
            for axis, dim in enumerate(port.dims or ()):
                reason = unknown_reason(dim)
                if reason is not None:
                    texts.append(f"{port.name} axis {axis}: {reason}")
        return tuple(texts)

    @property
    def inputs_text(self) -> str:
        """The inputs as one line: `float32[N, 5], rate=16000`."""
        ports = iter(self.general.inputs)
        texts = list[str]()
        for argument in self.example.arguments:
            text = _format_tree(argument.value, ports)
            if argument.name and isinstance(argument.value, Literal):
                text = f"{argument.name}={text}"
            texts.append(text)
        texts.extend(map(str, ports))
        return ", ".join(texts) or "nothing"

    @property
    def outputs_text(self) -> str:
        """The outputs as one line: `(float32[N, 5], float32[N, 7])`."""
        return _format_tree(self.result, iter(self.general.outputs))


def _format_tree(tree: Tree, ports: Iterator[Port]) -> str:
    """Format a tree as Python would print it, with the next port at each tensor."""
    match tree:
        case TensorSpec():
            return str(next(ports))
        case TreeSequence(kind, items):
            item_texts = [_format_tree(item, ports) for item in items]
            return _format_sequence(kind, item_texts)
        case TreeMapping(entries):
            texts = [f'"{key}": {_format_tree(item, ports)}' for key, item in entries]
            inner = ", ".join(texts)
            return "{" + inner + "}"
        case Literal(value):
            return repr(value)
        case Opaque():
            return "?"


def _format_sequence(kind: str, items: list[str]) -> str:
    """Join the items in brackets; a tuple of one keeps its comma, as in Python."""
    inner = ", ".join(items)
    if kind == "list":
        return f"[{inner}]"
    if len(items) == 1:
        return f"({inner},)"
    return f"({inner})"


def fresh_name(spec: TensorSpec, axis: int, used: set[str], layout: str = "") -> str:
    """Name a free dim by convention, numbered if the name is in use, and add it to `used`.

    Axis 2 of a tensor of rank 4 is `H`, a second one `H2`. Axis 1 of integers of rank 2 is `T`:
    they are tokens. `layout` has the names of all axes if they are known: `HWC`.
    """
    rank = len(spec.sizes)
    base = f"D{axis}"
    if rank < len(_AXIS_NAMES):
        base = _AXIS_NAMES[rank][axis]
    is_index = not is_floating(spec.dtype) and not is_complex(spec.dtype)
    if rank == 2 and axis == 1 and is_index:
        base = "T"
    if len(layout) == rank:
        base = layout[axis]
    name = base
    number = 1
    while name in used:
        number += 1
        name = f"{base}{number}"
    used.add(name)
    return name


def relations_of(dims: Iterable[Dim], where: Where) -> Where:
    """Return the relations that are about symbols of these dims alone."""
    names = frozenset[str]()
    for dim in dims:
        names |= symbols(as_expr(dim) or Const(0))
    return tuple(relation for relation in where if relation.symbols <= names)


def texts_with_relations(ports: Iterable[Port], where: Where) -> Iterator[str]:
    """Yield the text of each port, the relations of its dims and of those before it behind it."""
    dims = list[Dim]()
    told = set[Relation]()
    for port in ports:
        dims += port.dims or ()
        known = relations_of(dims, where)
        yield f"{port}{format_where(item for item in known if item not in told)}"
        told.update(known)


def input_name(path: KeyPath, argument: str | None) -> str:
    """Return the display name of an input: `ids`, or `input 0` if the argument has no name.

    The path inside the argument follows: `batch.mask`, `input 1[0]`.
    """
    name = argument or f"input {path[0]}"
    inner = port_name(path[1:])
    if inner and not inner.startswith("["):
        inner = f".{inner}"
    return name + inner


def output_name(path: KeyPath, result: Tree | None = None) -> str:
    """Return the display name of an output: `logits`, or `output 0` for a bare tensor.

    `result` is the value that the path leads into; it has the names of a named tuple.
    """
    return port_name(path, result) or _UNNAMED


def output_names(result: Tree) -> dict[KeyPath, str]:
    """Return the display names of all parts of a result, each as `output_name` returns it."""
    return {path: name or _UNNAMED for path, name in port_names(result).items()}


def with_output_names(contract: Contract) -> Contract:
    """Return the contract with the names that its outputs have in its result."""
    names = output_names(contract.result)
    outputs = list[Port]()
    for port in contract.outputs:
        outputs.append(replace(port, name=names[port.path]))
    return replace(contract, outputs=tuple(outputs))


def accepts_dtype(port: Port, dtype: str) -> bool:
    """Return whether the port accepts tensors of this dtype."""
    if port.dtype == ANY_FLOAT:
        return dtype in FLOATS
    return dtype == port.dtype


def accepts(port: Port, spec: TensorSpec) -> bool | None:
    """Return whether the port accepts the tensor; None if it depends on an unknown dim."""
    if not accepts_dtype(port, spec.dtype):
        return False
    if port.dims is None:
        return True
    if len(port.dims) != len(spec.sizes):
        return False
    answers = set[bool | None]()
    for dim, size in zip(port.dims, spec.sizes, strict=True):
        answers.add(admits(dim, size))
    if False in answers:
        return False
    if None in answers:
        return None
    return True


def accepts_call(contract: Contract, call: Call) -> bool:
    """Return whether the contract is known to accept each tensor of a call without keywords."""
    if any(argument.name for argument in call.arguments):
        return False
    specs = dict(call_leaves(call))
    ports = {port.path: port for port in contract.inputs}
    required = {port.path for port in contract.required}
    if not required <= specs.keys() <= ports.keys():
        return False
    sizes = dict[str, int]()
    derived = list[tuple[Expr, int]]()
    for path, spec in specs.items():
        port = ports[path]
        if accepts(port, spec) is False:
            return False
        for dim, size in zip(port.dims or (), spec.sizes, strict=port.dims is not None):
            expr = as_expr(dim)
            if expr is None:
                return False
            free = as_free(dim)
            if free is not None and sizes.setdefault(free.name, size) != size:
                return False
            derived.append((expr, size))
    known = [(expr, size) for expr, size in derived if symbols(expr) <= sizes.keys()]
    if len(known) < len(derived) or not all_hold(contract.where, sizes):
        return False
    return all(evaluate(expr, sizes) == size for expr, size in known)


def is_call_of(contract: Contract, call: Call) -> bool:
    """Return whether the contract is known to accept a call: its example, which may have keywords.

    Others are as for `accepts_call`.
    """
    return contract.example == call or accepts_call(contract, call)
