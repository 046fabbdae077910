"""What a TorchScript archive says of itself: its stored example inputs, devices in its code, its attributes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
_DEVICE = re.compile(r'torch\.device\("([a-z]+(?::\d+)?)"\)')


def traced_example(archive: Archive) -> Call | None:
    """The inputs that `torch.jit.trace` stored for forward; None where there are none that a probe can be made of."""
    if "traced_inputs.pkl" not in archive.names:
        return None
    try:
        tree = tree_of(archive.pickle("traced_inputs.pkl").value)
    except (NotAPickle, NotAnArchive):
        return None
    stored = dict(tree.entries).get("forward") if isinstance(tree, TreeMapping) else None
    if not isinstance(stored, TreeSequence) or not stored.items:
        return None
    call = Call(tuple(Argument(item) for item in stored.items))
    plain = all(not isinstance(item, Opaque) for item in stored.items)
    some = any(isinstance(spec, TensorSpec) for item in stored.items for _, spec in leaves(item))
    return call if plain and some else None


def baked_devices(archive: Archive) -> tuple[str, ...]:
    """The devices that the code names as constants, `cpu` among them.

    Raises:
        NotAnArchive: the code is damaged.
    """
    found = set[str]()
    for name in archive.names:
        if name.startswith("code/") and name.endswith(".py"):
            found.update(_DEVICE.findall(archive.read(name).decode("utf-8", "replace")))
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class Attribute:
    """What a submodule holds beside its submodules: a tensor in a record, a list of those, or something else.

    `hidden`: it holds tensors in another way.
    """

    records: tuple[str, ...] = ()
    listed: bool = False
    hidden: bool = False


Attributes = dict[str, dict[str, Attribute]]


def attributes(archive: Archive) -> Attributes:
    """The attributes of each submodule that are no submodules: parameters, buffers, flags, lists and numbers."""
    try:
        root = archive.pickle("data.pkl").value
    except (NotAPickle, NotAnArchive):
        return {}
    found: Attributes = {}
    todo, seen = [("", root)], set[int]()
    while todo:
        name, node = todo.pop()
        if (
            not isinstance(node, Constructed)
            or not isinstance(node.state, PickleDict)
            or id(node) in seen
        ):
            continue
        seen.add(id(node))
        inner = [(str(key), value) for key, value in node.state.items]
        found[name] = {key: _attribute(value) for key, value in inner if not _is_submodule(value)}
        todo += [
            (f"{name}.{key}".strip("."), value) for key, value in inner if _is_submodule(value)
        ]
    return found


def _attribute(node: object) -> Attribute:
    record = _record_of(node)
    if record is not None:
        return Attribute((record,))
    match node:
        case Constructed(Global("torch.jit._pickle", "build_tensorlist"), (list(items),)):
            records = tuple(record for record in map(_record_of, items) if record is not None)
            return (
                Attribute(records, listed=True)
                if len(records) == len(items)
                else Attribute(hidden=True)
            )
    return Attribute(hidden=_holds_tensors(node))


def _holds_tensors(node: object) -> bool:
    todo, seen = [node], set[int]()
    while todo:
        inner = todo.pop()
        if isinstance(inner, Persistent):
            return True
        if id(inner) not in seen:
            seen.add(id(inner))
            todo += _inside(inner)
    return False


def _inside(node: object) -> Iterator[object]:
    if isinstance(node, tuple | list):
        yield from node
    elif isinstance(node, PickleDict):
        yield from (item for pair in node.items for item in pair)
    elif isinstance(node, Constructed):
        yield from (node.arguments, node.state, *(item for pair in node.items for item in pair))


def _record_of(node: object) -> str | None:
    match node:
        case Constructed(
            Global("torch._utils", "_rebuild_tensor_v2"),
            (Persistent(("storage", _, str(key), *_)), *_),
        ):
            return f"data/{key}"
    return None


def _is_submodule(node: object) -> bool:
    return (
        isinstance(node, Constructed)
        and isinstance(node.maker, Global)
        and node.maker.module.startswith("__torch__")
    )


# What the archive's own reader makes without running anything; `__torch__` classes are scanned when they are compiled.
_DATA = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\.jit\._pickle\.\w+|collections\.OrderedDict|torch(\.storage)?\.\w+Storage|"
    r"torch\.(per_tensor_affine|per_channel_affine|device|Size)"
)
_PICKLES = {"data.pkl": "data/", "constants.pkl": "constants/"}


def pickles(archive: Archive) -> dict[str, ParsedPickle]:
    """What loading unpickles: the module, and the constants of its code."""
    return {member: archive.pickle(member) for member in _PICKLES}


def classes(walked: Mapping[str, ParsedPickle]) -> tuple[Global, ...]:
    """The classes of the archive's own code that loading would make objects of."""
    found = (name for pickle in walked.values() for name in pickle.imports)
    return tuple(dict.fromkeys(name for name in found if name.module.startswith("__torch__")))


def unsafe(archive: Archive, walked: Mapping[str, ParsedPickle]) -> Iterator[Reason]:
    """What speaks against loading, but for the code, which is scanned where it can be compiled."""
    if "model.json" in archive.names:
        yield Reason("model.json makes PyTorch read it as an archive from before 1.4")
    for member, pickle in walked.items():
        for name in pickle.imports:
            if name.module.startswith("__torch__"):
                native = name.module.startswith("__torch__.torch.classes.")
                if native and str(name) not in CLASSES:
                    yield Reason(f"it makes an object of the extension {name}")
                elif member == "constants.pkl" and not native:
                    yield Reason(f"it makes a constant of the class {name}")
            elif not _DATA.fullmatch(str(name)):
                yield Reason(f"{member} names {name}")


def record_problems(archive: Archive, walked: Mapping[str, ParsedPickle]) -> Iterator[str]:
    """Tensors that do not fit their records."""
    for member, pickle in walked.items():
        yield from find_out_of_bounds(pickle, record_sizes(archive, _PICKLES[member]))


def provenance(archive: Archive) -> str | None:
    """What `join` wrote into the archive of where it comes from, as JSON text."""
    name = f"extra/{PROVENANCE}"
    if name not in archive.names:
        return None
    try:
        return archive.read(name).decode("utf-8", "replace")
    except NotAnArchive:
        return None
