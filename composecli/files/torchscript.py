"""Facts in a TorchScript archive: example inputs, devices in its code, attributes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from composecli.core.dtypes import is_numeric
from composecli.core.pytree import (
    Argument,
    Call,
    Opaque,
    TensorSpec,
    TreeMapping,
    TreeSequence,
    leaves,
)
from composecli.files.archive import Archive, NotAnArchive
from composecli.files.pickle import (
    Constructed,
    Global,
    NotAPickle,
    ParsedPickle,
    Persistent,
    PickleDict,
)
from composecli.files.pickle_tree import tree_of
from composecli.files.safety.allowlist import CLASSES
from composecli.files.safety.refusals import Reason
from composecli.files.storage_bounds import find_out_of_bounds, record_sizes

PROVENANCE = "composecli.json"

_EXAMPLE = "traced_inputs.pkl"
_DEVICE = re.compile(r'torch\.device\("([a-z]+(?::\d+)?)"\)')
# Loading makes these without running anything.
_DATA = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\.jit\._pickle\.\w+|collections\.OrderedDict"
    r"|torch(\.storage)?\.\w+Storage"
    r"|torch\.(per_tensor_affine|per_channel_affine|device|Size)"
)
# The pickles that loading reads, with the folders of their tensors: the module, and the constants
# of its code.
_PICKLES = {"data.pkl": "data/", "constants.pkl": "constants/"}


def traced_example(archive: Archive) -> Call | None:
    """Return the inputs that `torch.jit.trace` stored for forward.

    None if there are none, or a probe cannot be made from them.
    """
    if _EXAMPLE not in archive.names:
        return None
    try:
        tree = tree_of(archive.pickle(_EXAMPLE).value)
    except (NotAPickle, NotAnArchive):
        return None
    if not isinstance(tree, TreeMapping):
        return None
    stored = dict(tree.entries).get("forward")
    if not isinstance(stored, TreeSequence):
        return None
    if any(isinstance(item, Opaque) for item in stored.items):
        return None
    specs = list[TensorSpec]()
    for item in stored.items:
        specs += (spec for _, spec in leaves(item))
    if not specs:
        return None
    if not all(is_numeric(spec.dtype) for spec in specs):
        return None
    arguments = [Argument(item) for item in stored.items]
    return Call(tuple(arguments))


def baked_devices(archive: Archive) -> tuple[str, ...]:
    """Return the devices that are constants in the code, including `cpu`.

    Raises:
        NotAnArchive: if the code is damaged.
    """
    devices = set[str]()
    for name in sorted(archive.names):
        if name.startswith("code/") and name.endswith(".py"):
            code = archive.read(name).decode("utf-8", "replace")
            devices.update(_DEVICE.findall(code))
    return tuple(sorted(devices))


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a submodule that is not itself a submodule.

    `records` are the members with its tensors: one, or several if it `is_list`. If it
    `hides_tensors`, it contains tensors in a way that is not understood here.
    """

    records: tuple[str, ...] = ()
    is_list: bool = False
    hides_tensors: bool = False


# By the submodule's dotted name, then the attribute's.
Attributes = dict[str, dict[str, Attribute]]


def attributes(archive: Archive) -> Attributes:
    """Return the attributes of each submodule: parameters, buffers, flags, lists and numbers."""
    try:
        root = archive.pickle("data.pkl").value
    except (NotAPickle, NotAnArchive):
        return {}
    by_module: Attributes = {}
    visited = set[int]()
    stack: list[tuple[str, object]] = [("", root)]
    while stack:
        module, node = stack.pop()
        if not isinstance(node, Constructed):
            continue
        if not isinstance(node.state, PickleDict):
            continue
        if id(node) in visited:
            continue
        visited.add(id(node))
        by_module[module] = {}
        for key, value in node.state.items:
            if _is_submodule(value):
                child = f"{module}.{key}".strip(".")
                stack.append((child, value))
            else:
                by_module[module][str(key)] = _attribute(value)
    return by_module


def _attribute(node: object) -> Attribute:
    """Return the records of an attribute that is a tensor or a list of tensors."""
    record = _record_of(node)
    if record is not None:
        return Attribute((record,))
    match node:
        case Constructed(Global("torch.jit._pickle", "build_tensorlist"), (list(items),)):
            records = list[str]()
            for item in items:
                record = _record_of(item)
                if record is None:
                    return Attribute(hides_tensors=True)
                records.append(record)
            return Attribute(tuple(records), is_list=True)
    return Attribute(hides_tensors=_contains_tensors(node))


def _contains_tensors(root: object) -> bool:
    """Return whether a tensor's storage is anywhere below a node."""
    visited = set[int]()
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Persistent):
            return True
        if id(node) not in visited:
            visited.add(id(node))
            stack += _children(node)
    return False


def _children(node: object) -> Iterator[object]:
    """Yield the nodes directly below a node, keys of dicts included."""
    if isinstance(node, tuple | list):
        yield from node
    elif isinstance(node, PickleDict):
        for pair in node.items:
            yield from pair
    elif isinstance(node, Constructed):
        yield node.arguments
        yield node.state
        for pair in node.items:
            yield from pair


def _record_of(node: object) -> str | None:
    """Return the record of a node that is a tensor."""
    match node:
        case Constructed(
            Global("torch._utils", "_rebuild_tensor_v2"),
            (Persistent(("storage", _, str(key), *_)), *_),
        ):
            return f"data/{key}"
    return None


def _is_submodule(node: object) -> bool:
    """Return whether a node is an object of a class in the archive's own code."""
    if not isinstance(node, Constructed):
        return False
    if not isinstance(node.function, Global):
        return False
    return node.function.module.startswith("__torch__")


def pickles(archive: Archive) -> dict[str, ParsedPickle]:
    """Return the pickles that loading reads, by member.

    Raises:
        NotAnArchive: if one is missing or damaged.
        NotAPickle: if one is not a pickle that PyTorch could have written.
    """
    return {member: archive.pickle(member) for member in _PICKLES}


def classes(parsed: Mapping[str, ParsedPickle]) -> tuple[Global, ...]:
    """Return the classes of the archive's own code that loading would create objects of."""
    names = dict[Global, None]()
    for pickle in parsed.values():
        for name in pickle.imports:
            if name.module.startswith("__torch__"):
                names[name] = None
    return tuple(names)


def unsafe_parts(archive: Archive, parsed: Mapping[str, ParsedPickle]) -> Iterator[Reason]:
    """Yield the reasons not to load the archive, except for its code.

    The runtime scans the code, since only torch can compile it.
    """
    if "model.json" in archive.names:
        yield Reason("model.json makes PyTorch read it as an archive from before 1.4")
    for member, pickle in parsed.items():
        for name in pickle.imports:
            if name.module.startswith("__torch__"):
                yield from _check_class(member, name)
            elif not _DATA.fullmatch(str(name)):
                yield Reason(f"{member} names {name}")


def _check_class(member: str, name: Global) -> Iterator[Reason]:
    """Yield a reason for a class of an unknown extension, or for any class of a constant."""
    is_extension = name.module.startswith("__torch__.torch.classes.")
    if is_extension:
        if str(name) not in CLASSES:
            yield Reason(f"it makes an object of the extension {name}")
    elif member == "constants.pkl":
        yield Reason(f"it makes a constant of the class {name}")


def record_problems(archive: Archive, parsed: Mapping[str, ParsedPickle]) -> Iterator[str]:
    """Yield a message for each tensor that does not fit its record."""
    for member, pickle in parsed.items():
        yield from find_out_of_bounds(pickle, record_sizes(archive, _PICKLES[member]))


def provenance(archive: Archive) -> str | None:
    """Return the JSON text about its origin that `join` wrote into the archive, None if absent."""
    name = f"extra/{PROVENANCE}"
    if name not in archive.names:
        return None
    try:
        return archive.read(name).decode("utf-8", "replace")
    except NotAnArchive:
        return None
