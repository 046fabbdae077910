"""The parts of a contract that somebody wrote, and the contract that they make together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from composecli.core.contract import (
    Contract,
    Evidence,
    EvidenceKind,
    Port,
    Signature,
    accepts,
    with_output_names,
)
from composecli.core.contract_at_rank import at_rank_of
from composecli.core.dims import Dim, Free, Shape, as_expr, example_size, fixed_size, free_dims
from composecli.core.documents import InvalidDocument, Place
from composecli.core.dtypes import ANY_FLOAT
from composecli.core.pytree import (
    Argument,
    Call,
    KeyPath,
    Literal,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
    parse_port_name,
)
from composecli.core.relations import Where, sizes_meeting
from composecli.core.size_expr import PRODUCT_OF_REST, evaluate, symbols

MAX_ITEMS = 10_000
# The items of a tuple that have no port are None: this many, and some for each port.
MAX_ABSENT = 100
ABSENT_PER_PORT = 4
# No machine holds such a tensor, and torch counts its bytes with 64 bits.
MAX_ELEMENTS = 2**40

# Sizes of a free dim in the example: on axis 0, which is usually the batch, and on other axes.
_EXAMPLE_BATCH = 2
_EXAMPLE_SIZE = 8
_ANY_RANK_SIZES = (_EXAMPLE_BATCH, _EXAMPLE_SIZE)
_UNNAMED = re.compile(r"(input \d{1,4})(.*)", re.DOTALL)
_NAMED = re.compile(r"([^\W\d]\w*)\.?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class InputPart:
    """A tensor input: its argument, the path inside it, and the sizes of an example, if stated.

    Integer values of the example are below `below`. `keyword`: the argument is passed by name.
    """

    argument: str
    path: KeyPath
    port: Port
    sizes: tuple[int, ...] | None
    below: int
    keyword: bool
    place: Place


@dataclass(frozen=True, slots=True)
class ValuePart:
    """An argument that is a plain value."""

    argument: str
    value: Literal
    keyword: bool


@dataclass(frozen=True, slots=True)
class OutputPart:
    """An output, with the sizes of an example, if stated."""

    port: Port
    sizes: tuple[int, ...] | None
    place: Place


def argument_and_path(name: str) -> tuple[str, KeyPath]:
    """Split the name of an input: `batch.mask` is in the argument `batch`, at `mask`.

    Raises:
        ValueError: if it is not such a name; the message is written for users.
    """
    match = _UNNAMED.fullmatch(name) or _NAMED.fullmatch(name)
    if match is None:
        raise ValueError(f"not the name of an input: {name} (as in ids, batch.mask, input 0)")
    argument, inner = match.groups()
    return argument, parse_port_name(inner)


def assemble(
    inputs: Sequence[InputPart | ValuePart],
    outputs: Sequence[OutputPart],
    where: Where,
    source: str,
) -> Contract:
    """Return the contract of these parts, with an example whose sizes meet it.

    Raises:
        InvalidDocument: if no such example is found, or two parts are in one place.
    """
    # The example lacks the optional arguments, which come behind its own.
    inputs = sorted(inputs, key=_is_optional)
    tensors = _placed(inputs)
    input_ports = tuple(part.port for part in tensors)
    output_ports = tuple(part.port for part in outputs)
    signature = Signature(input_ports, output_ports, where)
    _refuse_unknown_symbols(signature)
    _refuse_unknown_outputs(signature, outputs)
    evidence = (Evidence(EvidenceKind.DECLARED, source),)
    contract = Contract(input_ports, output_ports, Call(()), Literal(None), evidence, where)
    if any(port.rest is not None for port in input_ports):
        contract = _at_a_rank(contract, signature, tensors)
    parts = _with_ports(inputs, contract.inputs)
    sizes = _sizes_by_name(parts, contract.where)
    pairs = zip(outputs, contract.outputs, strict=True)
    results = [replace(part, port=port) for part, port in pairs]
    example, result = _call(parts, sizes), _result(results, sizes)
    return with_output_names(replace(contract, example=example, result=result))


def _is_optional(part: InputPart | ValuePart) -> bool:
    """Return whether a call may leave out an input."""
    return isinstance(part, InputPart) and part.port.optional


def _placed(inputs: Iterable[InputPart | ValuePart]) -> list[InputPart]:
    """Return the tensor inputs, with the numbers of their arguments in the paths of the ports."""
    numbers = dict[str, int]()
    tensors = list[InputPart]()
    for part in inputs:
        number = numbers.setdefault(part.argument, len(numbers))
        if isinstance(part, InputPart):
            port = replace(part.port, path=(number, *part.path))
            tensors.append(replace(part, port=port))
    return tensors


def _with_ports(
    inputs: Iterable[InputPart | ValuePart], ports: Iterable[Port]
) -> list[InputPart | ValuePart]:
    """Return the inputs, the tensors among them with these ports."""
    following = iter(ports)
    parts = list[InputPart | ValuePart]()
    for part in inputs:
        if isinstance(part, ValuePart):
            parts.append(part)
        else:
            parts.append(replace(part, port=next(following)))
    return parts


def _refuse_unknown_symbols(signature: Signature) -> None:
    """Refuse a relation with a symbol that no required input has.

    Raises:
        InvalidDocument: if there is one.
    """
    names = set[str]()
    for port in signature.inputs:
        if not port.optional:
            names |= {free.name for free in free_dims(port.dims or ())}
        if port.rest is not None:
            names.add(PRODUCT_OF_REST)
    for number, relation in enumerate(signature.where):
        missing = sorted(relation.symbols - names)
        if missing:
            message = f"{missing[0]} is not a free dim of a required input"
            raise InvalidDocument(("where", number), message)


def _refuse_unknown_outputs(signature: Signature, outputs: Sequence[OutputPart]) -> None:
    """Refuse an output without dims, unless it has the sizes of an input without dims.

    Raises:
        InvalidDocument: if there is one.
    """
    if any(port.dims is None for port in signature.inputs):
        return
    for part in outputs:
        if part.port.dims is None:
            message = "the dims are missing: only an input of any rank gives its own to an output"
            raise InvalidDocument(part.place, message)


def _at_a_rank(contract: Contract, signature: Signature, tensors: Sequence[InputPart]) -> Contract:
    """Return a contract of any rank with its ports at the rank of the stated example.

    Without one, `*` is one axis.

    Raises:
        InvalidDocument: if `*` is in one of several inputs.
    """
    part = tensors[0]
    if len(tensors) > 1 or part.port.rest is None:
        message = "* may be among the dims of a single input alone"
        raise InvalidDocument((*part.place, "dims"), message)
    sizes = part.sizes
    if sizes is None:
        sizes = (1,) * (len(part.port.dims or ()) + 1)
    call = Call((Argument(TensorSpec(part.port.dtype, sizes)),))
    return at_rank_of(replace(contract, any_rank=signature), call)


def _sizes_by_name(inputs: Iterable[InputPart | ValuePart], where: Where) -> dict[str, int]:
    """Return a size for each free dim: that of a stated example, or one that meets the relations.

    Raises:
        InvalidDocument: if no sizes do.
    """
    ranges = dict[str, Free]()
    sizes = dict[str, int]()
    for part in inputs:
        if not isinstance(part, InputPart) or part.port.optional:
            continue
        _refuse_other_rank(part)
        dims = part.port.dims or ()
        for axis, free in _free_axes(dims):
            ranges.setdefault(free.name, free)
            near = _EXAMPLE_BATCH if axis == 0 else _EXAMPLE_SIZE
            chosen = example_size(free, near)
            if part.sizes is not None:
                chosen = part.sizes[axis]
            sizes.setdefault(free.name, chosen)
    found = sizes_meeting(where, ranges, sizes)
    if found is None:
        raise InvalidDocument(("where",), "no sizes are found that meet these relations")
    return found


def _refuse_other_rank(part: InputPart) -> None:
    """Refuse an example with more or fewer sizes than there are dims.

    Raises:
        InvalidDocument: if it has.
    """
    if part.sizes is None or part.port.dims is None:
        return
    count, rank = len(part.sizes), len(part.port.dims)
    if count != rank:
        message = f"{count} sizes for {rank} dims"
        raise InvalidDocument((*part.place, "example"), message)


def _free_axes(dims: Shape) -> Iterable[tuple[int, Free]]:
    """Yield each free dim with its axis."""
    for axis, dim in enumerate(dims):
        for free in free_dims((dim,)):
            yield axis, free


def _call(inputs: Iterable[InputPart | ValuePart], sizes: Mapping[str, int]) -> Call:
    """Return the example: a call with every required input.

    Raises:
        InvalidDocument: if an argument is passed by position behind one that is passed by name.
    """
    parts = dict[str, list[tuple[KeyPath, Tree]]]()
    keywords = set[str]()
    for part in inputs:
        if part.keyword:
            keywords.add(part.argument)
        match part:
            case ValuePart(argument, value):
                parts.setdefault(argument, []).append(((), value))
            case InputPart(argument, path, port) if not port.optional:
                spec = _spec(port, part.sizes, sizes, part.place)
                below = replace(spec, below=part.below)
                parts.setdefault(argument, []).append((path, below))
    arguments = list[Argument]()
    for argument, items in parts.items():
        name = argument if argument in keywords else None
        if name is None and arguments and arguments[-1].name is not None:
            message = f"{argument} is passed by position behind {arguments[-1].name}, by keyword"
            raise InvalidDocument(("inputs",), message)
        arguments.append(Argument(_tree(items, ("inputs",)), name))
    return Call(tuple(arguments))


def _result(outputs: Sequence[OutputPart], sizes: Mapping[str, int]) -> Tree:
    """Return the result of the example."""
    items = list[tuple[KeyPath, Tree]]()
    for part in outputs:
        items.append((part.port.path, _spec(part.port, part.sizes, sizes, part.place)))
    return _tree(items, ("outputs",))


def _spec(
    port: Port, stated: tuple[int, ...] | None, sizes: Mapping[str, int], place: Place
) -> TensorSpec:
    """Return the tensor of a port in the example.

    Raises:
        InvalidDocument: if a size follows from nothing.
    """
    dtype = port.dtype
    if dtype == ANY_FLOAT:
        dtype = "float32"
    if port.dims is None:
        return TensorSpec(dtype, stated or _ANY_RANK_SIZES)
    chosen = list[int]()
    for axis, dim in enumerate(port.dims):
        size = _size(dim, sizes)
        if size is None and stated is not None and len(stated) == len(port.dims):
            size = stated[axis]
        if size is None:
            message = f"the size {dim} follows from no input"
            fix = 'add "example" with sizes, as in "2, 8"'
            raise InvalidDocument((*place, "dims", axis), f"{message}: {fix}")
        chosen.append(size)
    spec = TensorSpec(dtype, tuple(chosen))
    _refuse_example(port, spec, stated, place)
    return spec


def _refuse_example(
    port: Port, spec: TensorSpec, stated: tuple[int, ...] | None, place: Place
) -> None:
    """Refuse a tensor of the example that is too large, or is not what the port allows.

    Raises:
        InvalidDocument: if it is.
    """
    if prod(spec.sizes) > MAX_ELEMENTS:
        message = f"the example {spec} has more than {MAX_ELEMENTS:,} elements"
        raise InvalidDocument((*place, "dims"), message)
    if min(spec.sizes, default=0) < 0:
        message = f"the example {spec} has a negative size"
        raise InvalidDocument((*place, "dims"), message)
    if stated is None:
        return
    if stated != spec.sizes or accepts(port, spec) is False:
        shown = ", ".join(map(str, stated))
        message = f"{shown} does not meet {port} and the relations"
        raise InvalidDocument((*place, "example"), message)


def _size(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    """Return the size of a dim; None if it is unknown, or is about a dim without a size."""
    size = fixed_size(dim)
    if size is not None:
        return size
    expr = as_expr(dim)
    if expr is None or not symbols(expr) <= sizes.keys():
        return None
    return evaluate(expr, sizes)


def _tree(items: Sequence[tuple[KeyPath, Tree]], place: Place) -> Tree:
    """Return the tree with these parts at their paths; a missing item of a tuple is None.

    Raises:
        InvalidDocument: if two parts are in one place, or items and keys are mixed.
    """
    paths = [path for path, _ in items]
    if () in paths:
        if len(items) > 1:
            raise InvalidDocument(place, "several entries have the same name, or none")
        return items[0][1]
    inner = dict[int | str, list[tuple[KeyPath, Tree]]]()
    for (first, *rest), tree in items:
        inner.setdefault(first, []).append((tuple(rest), tree))
    trees = {step: _tree(parts, place) for step, parts in inner.items()}
    if all(isinstance(step, str) for step in trees):
        return TreeMapping(tuple((str(step), tree) for step, tree in trees.items()))
    numbers = [step for step in trees if isinstance(step, int)]
    if len(numbers) < len(trees):
        message = "names and numbers are mixed: a dict has names, and a tuple has numbers"
        raise InvalidDocument(place, message)
    if max(numbers) >= min(MAX_ITEMS, MAX_ABSENT + ABSENT_PER_PORT * len(numbers)):
        raise InvalidDocument(place, f"hardly any item up to [{max(numbers)}] is described")
    filled = [trees.get(number, Literal(None)) for number in range(max(numbers) + 1)]
    return TreeSequence("tuple", tuple(filled))
