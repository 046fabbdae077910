"""Contract documents: contracts as plain data, which people write, review and keep.

    {
      "version": 1,
      "inputs": [{"name": "ids", "dtype": "int64", "dims": ["N", "T<=512"], "below": 30522}],
      "outputs": [{"name": "logits", "dtype": "float32", "dims": ["N", "T", "4"]}],
      "where": ["N*T % 4 == 0"]
    }

Dims and relations have the texts that they have on every screen. The name of a port is its place:
`ids` and `batch.mask` are inside arguments, `logits` is an entry of a dict, `[0]` an item of a
tuple, and a single output without a name is the whole result. `*` among the dims of the only input
stands for any number of axes. An input with a `value` is a plain value. `example` has the sizes of
a tensor that was accepted or returned; without it, they follow from the dims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from composecli.core.contract import Contract, Port
from composecli.core.contract_parts import (
    InputPart,
    OutputPart,
    ValuePart,
    argument_and_path,
    assemble,
)
from composecli.core.dims import REST, Dim, parse_dim
from composecli.core.documents import Entry, InvalidDocument, Place, entry_of, nearest
from composecli.core.dtypes import ANY_FLOAT, DTYPES, is_numeric
from composecli.core.limits import MAX_SIZE, read_integer
from composecli.core.pytree import (
    KeyPath,
    Literal,
    TensorSpec,
    call_leaves,
    leaves,
    parse_port_name,
    port_name,
)
from composecli.core.relations import parse_relation

T = TypeVar("T")

VERSION = 1
SCHEMA_ID = "urn:composecli:contract:1"
MAX_PORTS = 10_000
# PyTorch computes with at most 64 axes.
MAX_RANK = 64
MAX_DEPTH = 64

_TOP_KEYS = ("$schema", "version", "inputs", "outputs", "where")
_OUTPUT_KEYS = ("name", "dtype", "dims", "example")
_INPUT_KEYS = (*_OUTPUT_KEYS, "below", "optional", "keyword")
_VALUE_KEYS = ("name", "value", "keyword")
# The bound of integers that are no ids.
_DEFAULT_BELOW = TensorSpec("", ()).below


def as_document(contract: Contract) -> dict[str, Any]:
    """Return the contract as plain data; keys are left out if they have their default."""
    return {
        "$schema": SCHEMA_ID,
        "version": VERSION,
        "inputs": list(_input_entries(contract)),
        "outputs": list(_output_entries(contract)),
        "where": [str(relation) for relation in contract.general.where],
    }


def _input_entries(contract: Contract) -> Iterator[dict[str, Any]]:
    """Yield an entry for each input and each plain value, in the order of the arguments."""
    specs = dict(call_leaves(contract.example))
    ports = {port.path: port for port in contract.general.inputs}
    for number, argument in enumerate(contract.example.arguments):
        keyword: dict[str, Any] = {}
        if argument.name is not None:
            keyword = {"keyword": True}
        if isinstance(argument.value, Literal):
            name = argument.name or f"input {number}"
            yield {"name": name, "value": argument.value.value, **keyword}
        for path, spec in leaves(argument.value, (number,)):
            entry = _port_entry(ports[path], spec) | keyword
            if spec.below != _DEFAULT_BELOW:
                entry["below"] = spec.below
            yield entry
    for port in contract.general.inputs:
        if port.path not in specs:
            yield _port_entry(port, None) | {"optional": True, "keyword": True}


def _output_entries(contract: Contract) -> Iterator[dict[str, Any]]:
    """Yield an entry for each output. Its name is its place in the result."""
    specs = dict(leaves(contract.result))
    for port in contract.general.outputs:
        entry = _port_entry(port, specs[port.path])
        del entry["name"]
        if port.path:
            entry["name"] = port_name(port.path)
        yield entry


def _port_entry(port: Port, spec: TensorSpec | None) -> dict[str, Any]:
    """Return the keys that inputs and outputs share."""
    entry: dict[str, Any] = {"name": port.name, "dtype": port.dtype}
    if port.dims is not None:
        entry["dims"] = list(port.axis_texts)
    if spec is not None:
        entry["example"] = ", ".join(map(str, spec.sizes))
    return entry


def parse_document(data: Any, source: str) -> Contract:
    """Return the contract of a document; `source` is its origin, such as a file.

    Raises:
        InvalidDocument: if it is not such a document.
    """
    top = entry_of(data)
    top.allow(_TOP_KEYS)
    version = top.integer("version", VERSION)
    if version != VERSION:
        message = f"this composecli reads version {VERSION}, not {version}"
        raise InvalidDocument(("version",), message)
    inputs = tuple(_read_input(number, entry) for number, entry in _ports(top, "inputs"))
    outputs = tuple(_read_output(entry) for _, entry in _ports(top, "outputs"))
    where = tuple(_parsed(parse_relation, text, place) for place, text in top.texts("where"))
    return assemble(inputs, outputs, where, source)


def _ports(top: Entry, key: str) -> Iterator[tuple[int, Entry]]:
    """Yield the numbered entries of a list of ports."""
    entries = list(top.entries(key))
    if not entries:
        raise InvalidDocument((key,), f"a contract has at least one entry in {key}")
    if len(entries) > MAX_PORTS:
        raise InvalidDocument((key,), f"at most {MAX_PORTS:,} are read, not {len(entries):,}")
    yield from enumerate(entries)


def _read_input(number: int, entry: Entry) -> InputPart | ValuePart:
    """Return an input, or a plain value."""
    is_value = "value" in entry.values
    entry.allow(_VALUE_KEYS if is_value else _INPUT_KEYS)
    name = entry.text("name", f"input {number}")
    argument, path = _parsed(argument_and_path, name, (*entry.place, "name"))
    _refuse_deep(entry, path)
    keyword = entry.flag("keyword")
    if is_value:
        return ValuePart(argument, _plain_value(entry), keyword)
    return InputPart(
        argument,
        path,
        _read_port(entry, name, path),
        _read_sizes(entry),
        _read_below(entry),
        keyword,
        entry.place,
    )


def _read_below(entry: Entry) -> int:
    """Return the bound of the integers of an example."""
    below = entry.integer("below", _DEFAULT_BELOW)
    if not 1 <= below <= MAX_SIZE:
        message = f"a number from 1 to {MAX_SIZE} is expected, not {below}"
        raise InvalidDocument((*entry.place, "below"), message)
    return below


def _plain_value(entry: Entry) -> Literal:
    """Return the plain value of an argument."""
    value = entry.values["value"]
    if value is None or isinstance(value, bool | int | float | str):
        return Literal(value)
    message = "a number, a string, true, false or null is expected"
    raise InvalidDocument((*entry.place, "value"), message)


def _read_output(entry: Entry) -> OutputPart:
    """Return an output."""
    entry.allow(_OUTPUT_KEYS)
    name = entry.text("name", "")
    path = _parsed(parse_port_name, name, (*entry.place, "name"))
    _refuse_deep(entry, path)
    port = _read_port(entry, name, path)
    if port.rest is not None:
        message = "* may be among the dims of a single input alone"
        raise InvalidDocument((*entry.place, "dims"), message)
    return OutputPart(port, _read_sizes(entry), entry.place)


def _refuse_deep(entry: Entry, path: KeyPath) -> None:
    """Refuse a port that is nested very deeply.

    Raises:
        InvalidDocument: if it is.
    """
    if len(path) > MAX_DEPTH:
        message = f"at most {MAX_DEPTH} levels are read, not {len(path):,}"
        raise InvalidDocument((*entry.place, "name"), message)


def _read_port(entry: Entry, name: str, path: KeyPath) -> Port:
    """Return the port of an entry."""
    dtype, optional = _read_dtype(entry), entry.flag("optional")
    if "dims" not in entry.values:
        return Port(name, path, dtype, None, optional)
    dims = list[Dim]()
    rest: int | None = None
    for axis, (place, text) in enumerate(entry.texts("dims")):
        if text.strip() != REST:
            dims.append(_parsed(parse_dim, text, place))
        elif rest is None:
            rest = axis
        else:
            raise InvalidDocument(place, "* can stand only once among the dims")
    if len(dims) > MAX_RANK:
        message = f"a tensor has at most {MAX_RANK} axes, not {len(dims):,}"
        raise InvalidDocument((*entry.place, "dims"), message)
    return Port(name, path, dtype, tuple(dims), optional, rest)


def _read_dtype(entry: Entry) -> str:
    """Return the dtype of a port: that of a tensor, or any float."""
    dtype = entry.text("dtype")
    if is_numeric(dtype) or dtype == ANY_FLOAT:
        return dtype
    names = [known.name for known in DTYPES if is_numeric(known.name)]
    suggestion = nearest(dtype.removeprefix("torch."), names)
    raise InvalidDocument((*entry.place, "dtype"), f"there is no dtype {dtype}{suggestion}")


def _read_sizes(entry: Entry) -> tuple[int, ...] | None:
    """Return the sizes of an example, such as `2, 3, 64, 64`; None if there is none."""
    if "example" not in entry.values:
        return None
    text, place = entry.text("example").strip(), (*entry.place, "example")
    if not text:
        return ()
    sizes = tuple(_parsed(read_integer, part.strip(), place) for part in text.split(","))
    if not all(0 <= size <= MAX_SIZE for size in sizes):
        raise InvalidDocument(place, f"a size is from 0 to {MAX_SIZE:,}")
    if len(sizes) > MAX_RANK:
        raise InvalidDocument(place, f"a tensor has at most {MAX_RANK} axes, not {len(sizes):,}")
    return sizes


def _parsed(parse: Callable[[str], T], text: str, place: Place) -> T:
    """Return a text as it is parsed; a mistake in it has this place."""
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidDocument(place, str(error)) from None
