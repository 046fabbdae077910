"""The layout of a torch.export archive (.pt2): its members, and the JSON objects that are read.

    archive_format, archive_version, byteorder, .data/...   written by PyTorch's archive writer
    models/<name>.json                                      the program, an `ExportedProgram`
    data/weights/<name>_weights_config.json                 the index of parameters and buffers
    data/weights/weight_<number>                            their bytes
    data/constants/<name>_constants_config.json             the index of constants
    data/constants/tensor_<number>                          their bytes
    data/sample_inputs/<name>.pt                            example inputs, a checkpoint

Sources: `torch/csrc/export/pt2_archive_constants.h` for the members, and
`torch/_export/serde/schema.py`, major version 8, for the objects. The types below name the keys
that composecli reads. Nothing has checked the JSON of a file against them, so readers must expect
the errors of other shapes: `MALFORMED`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NotRequired, TypedDict

from composecli.core.dtypes import DType, by_schema_code
from composecli.files.archive import Archive

SCHEMA_MAJOR = 8

# Errors of reading JSON that has another shape than the schema's.
MALFORMED = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    RecursionError,
    StopIteration,
)

_NAME = r"[\w.-]+"
_PROGRAM = re.compile(rf"models/{_NAME}\.json")
_TENSOR_FOLDERS = ("data/weights/", "data/constants/")
_INDEX_NAME = re.compile(rf"{_NAME}_config\.json")
_TENSOR_RECORD = re.compile(r"data/(weights|constants)/(weight|tensor)_\d+")
_SAMPLE_INPUTS = re.compile(rf"data/sample_inputs/{_NAME}\.pt")
_OTHER_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|version"
    r"|\.data/(version|serialization_id)|\.(format_version|storage_alignment)"
    rf"|data/(weights|constants)/{_NAME}|extra/.+"
)
_RECORD_NAME = re.compile(_NAME)
# Prefixes of records that are pickled objects, of an extension or opaque to torch.export.
_OBJECT_PREFIXES = ("opaque_obj_", "custom_obj_")


class SchemaVersion(TypedDict):
    """Readers of another major version must not read the program."""

    major: int


class SymExprHint(TypedDict):
    """The value that an expression had when the program was exported."""

    as_int: NotRequired[int]


class SymExpr(TypedDict):
    """An expression as sympy's `srepr` prints it."""

    expr_str: str
    hint: NotRequired[SymExprHint | None]


class SymInt(TypedDict):
    """A size: one of the two keys."""

    as_int: NotRequired[int]
    as_expr: NotRequired[SymExpr]


class TensorMeta(TypedDict):
    """The description of a tensor; `dtype` is a `ScalarType` code."""

    dtype: int
    sizes: list[SymInt]
    strides: list[SymInt]
    storage_offset: SymInt
    requires_grad: bool


class RangeConstraint(TypedDict):
    """The least and the largest value of a symbol, None if unbounded."""

    min_val: int | None
    max_val: int | None


class Graph(TypedDict):
    """The ops of a program, in order, and the description of each value by name."""

    nodes: list[dict[str, Any]]
    tensor_values: dict[str, TensorMeta]


class GraphSignature(TypedDict):
    """The inputs and outputs of the graph; each is an object with one key, its kind."""

    input_specs: list[dict[str, Any]]
    output_specs: list[dict[str, Any]]


class ModuleCallSignature(TypedDict):
    """The structure of a call: pytree specs, each a JSON text."""

    in_spec: str
    out_spec: str
    forward_arg_names: NotRequired[list[str] | None]


class ModuleCallEntry(TypedDict):
    """A call of a submodule; the first entry is the whole model's."""

    signature: ModuleCallSignature


class GraphModule(TypedDict):
    """A graph and its signatures."""

    graph: Graph
    signature: GraphSignature
    module_call_graph: list[ModuleCallEntry]


class ExportedProgram(TypedDict):
    """The content of `models/<name>.json`."""

    graph_module: GraphModule
    range_constraints: dict[str, RangeConstraint]
    schema_version: SchemaVersion
    guards_code: NotRequired[list[str]]


class PayloadMeta(TypedDict):
    """Where a tensor is: `path_name` is a member next to the index."""

    path_name: str
    use_pickle: bool
    tensor_meta: TensorMeta | None


class IndexEntry(NamedTuple):
    """One entry of an index: the tensor's name in the model, and its folder in the archive."""

    name: str
    folder: str
    payload: PayloadMeta

    @property
    def is_plain(self) -> bool:
        """Whether its record has the bytes of a tensor, and not a pickled object."""
        if not isinstance(self.payload, dict) or self.payload.get("use_pickle") is True:
            return False
        return isinstance(self.payload.get("tensor_meta"), dict)

    @property
    def record(self) -> str:
        """The member with its bytes."""
        return f"{self.folder}{self.payload.get('path_name')}"


class Geometry(NamedTuple):
    """Where the elements of a tensor are in its storage, counted in elements."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


def looks_exported(names: frozenset[str]) -> bool:
    """Return whether these are the members of a torch.export archive, of any layout."""
    has_marker = "archive_format" in names or "serialized_exported_program.json" in names
    return has_marker and any(name.endswith(".json") for name in names)


def is_known_member(name: str) -> bool:
    """Return whether `torch.export.save` writes a member with such a name."""
    patterns = (_PROGRAM, _SAMPLE_INPUTS, _OTHER_MEMBERS)
    return any(pattern.fullmatch(name) for pattern in patterns)


def is_program(name: str) -> bool:
    """Return whether this member is a program."""
    return _PROGRAM.fullmatch(name) is not None


def is_sample_inputs(name: str) -> bool:
    """Return whether this member is a checkpoint with example inputs."""
    return _SAMPLE_INPUTS.fullmatch(name) is not None


def is_tensor_record(name: str) -> bool:
    """Return whether this member has the bytes of a tensor, by its name."""
    return _TENSOR_RECORD.fullmatch(name) is not None


def is_record_name(path_name: object) -> bool:
    """Return whether a payload's path is a name in the folder of its index."""
    return _RECORD_NAME.fullmatch(str(path_name)) is not None


def is_object_record(path_name: object) -> bool:
    """Return whether a payload's path is one of a pickled object."""
    return str(path_name).startswith(_OBJECT_PREFIXES)


def program_members(archive: Archive) -> tuple[str, ...]:
    """Return the members that are programs; an export of one model writes one."""
    return tuple(sorted(filter(is_program, archive.names)))


def index_entries(archive: Archive) -> Iterator[IndexEntry]:
    """Yield the entries of all indices of weights and constants.

    Raises:
        NotAnArchive: if an index is damaged or not JSON.
    """
    for folder in _TENSOR_FOLDERS:
        for member in sorted(archive.names):
            if not member.startswith(folder):
                continue
            name = member.removeprefix(folder)
            if _INDEX_NAME.fullmatch(name):
                yield from _entries_of(folder, archive.json(member))


def _entries_of(folder: str, index: Any) -> Iterator[IndexEntry]:
    """Yield the entries under `config`; an index of another form has none."""
    entries = index.get("config") if isinstance(index, dict) else None
    if isinstance(entries, dict):
        for name, payload in entries.items():
            yield IndexEntry(name, folder, payload)


def dtype_of(meta: TensorMeta) -> DType:
    """Return the dtype of a tensor.

    Raises:
        KeyError: if the schema has no such code.
    """
    dtype = by_schema_code(meta["dtype"])
    if dtype is None:
        raise KeyError(meta["dtype"])
    return dtype


def geometry_of(meta: TensorMeta) -> Geometry:
    """Return the geometry of a stored tensor; a symbolic size is a KeyError."""
    sizes = tuple(size["as_int"] for size in meta["sizes"])
    strides = tuple(stride["as_int"] for stride in meta["strides"])
    return Geometry(sizes, strides, meta["storage_offset"]["as_int"])


def parse_floats(value: Any) -> Any:
    """Return a float, or lists of floats, as numbers.

    JSON has no infinities: torch.export writes "Infinity", "-Infinity" and "NaN" as text.

    Raises:
        ValueError: if a text is not a number.
    """
    if isinstance(value, list):
        return [parse_floats(item) for item in value]
    if isinstance(value, str):
        return float(value)
    return value
