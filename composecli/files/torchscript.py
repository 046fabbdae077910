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
    name_of,
)
from composecli.files.pickle_tree import tree_of
from composecli.files.safety.allowlist import CLASSES
from composecli.files.safety.refusals import Reason
from composecli.files.storage_bounds import find_out_of_bounds, record_sizes
from composecli.files.torchscript_debug import check_debug_pickle
from composecli.files.torchscript_source import Program, read_program
from composecli.files.torchscript_types import NotPrinted
from composecli.files.torchscript_values import (
    NotWritten,
    check_operations,
    check_values,
    is_known,
    tagged_types,
)

PROVENANCE = "composecli.json"

_EXAMPLE = "traced_inputs.pkl"
_DEVICE = re.compile(r'torch\.device\("([a-z]+(?::\d+)?)"\)')
# The pickles of the module and of the constants of its code, with the folders of their tensors. The
# records of the example inputs are empty.
_PICKLES = {"data.pkl": "data/", "constants.pkl": "constants/"}
_OWN_NAME = re.compile(r"__torch__(?:\.\w+)+", re.ASCII)
_HOOKS = re.compile(rb"__forward_(?:pre_)?hooks__ = \[.*\w.*\]")
_CODE = re.compile(r"code/((?:[A-Za-z_]\w*/)*[A-Za-z_]\w*)\.py(\.debug_pkl)?", re.ASCII)


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
                child = f"{module}.{name_of(key)}".strip(".")
                stack.append((child, value))
            else:
                by_module[module][name_of(key)] = _attribute(value)
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
    """Return the pickles that are read, by member: those of loading, and the example inputs.

    Raises:
        NotAnArchive: if one is missing or damaged.
        NotAPickle: if one is not a pickle that PyTorch could have written.
    """
    members = [*_PICKLES]
    if _EXAMPLE in archive.names:
        members.append(_EXAMPLE)
    return {member: archive.pickle(member) for member in members}


def classes(parsed: Mapping[str, ParsedPickle]) -> tuple[Global, ...]:
    """Return the classes of the archive's own code that loading would compile.

    They are those that the pickles name, and those in the types of lists and dicts.
    """
    names = dict[Global, None]()
    for pickle in parsed.values():
        for name in pickle.imports:
            if name.module.split(".")[0] == "__torch__":
                names[name] = None
        for text in tagged_types(pickle.constructed):
            for qualified in _OWN_NAME.findall(text):
                module, _, last = qualified.rpartition(".")
                names[Global(module, last)] = None
    return tuple(names)


def stored_integers(archive: Archive) -> dict[str, frozenset[int]]:
    """Return the integers that objects of the archive's own classes have, by attribute name.

    Raises:
        NotAnArchive: if its pickle is missing or damaged.
        NotAPickle: if it is not a pickle that PyTorch could have written.
    """
    stored = dict[str, set[int]]()
    for node in archive.pickle("data.pkl").constructed:
        if isinstance(node.state, PickleDict):
            for key, value in node.state.items:
                if type(value) is int:
                    stored.setdefault(name_of(key), set()).add(value)
    return {name: frozenset(numbers) for name, numbers in stored.items()}


def has_hooks(archive: Archive) -> bool:
    """Return whether a class in the archive's code has hooks of its forward."""
    names = (name for name in archive.names if _CODE.fullmatch(name))
    return any(_HOOKS.search(archive.read(name)) for name in names)


def check_debug_pickles(archive: Archive) -> Iterator[Reason]:
    """Yield a reason for each map to the original source that is more than plain data."""
    for name in sorted(archive.names):
        if name.endswith(".debug_pkl"):
            try:
                check_debug_pickle(archive.read(name))
            except NotWritten as error:
                yield Reason(f"{name} is not as PyTorch writes it: {error}")


def unsafe_parts(archive: Archive, parsed: Mapping[str, ParsedPickle]) -> Iterator[Reason]:
    """Yield the reasons not to load the archive, except for the ops that its code uses.

    The runtime scans those, since only torch can compile the code. What torch evaluates and trusts
    while it does so is checked here.
    """
    if "model.json" in archive.names:
        yield Reason("model.json makes PyTorch read it as an archive from before 1.4")
    reasons = tuple(unknown_names(parsed))
    yield from reasons
    try:
        program = read_program(_sources(archive))
    except NotPrinted as error:
        yield Reason(f"its code is not as PyTorch writes it: {error}")
        return
    if not reasons:
        yield from _unknown_values(archive, parsed, program)


def unknown_names(parsed: Mapping[str, ParsedPickle]) -> Iterator[Reason]:
    """Yield a reason for each name that PyTorch's unpickler does not know, or that is a risk."""
    for member, pickle in parsed.items():
        for name in pickle.imports:
            if name.module.split(".")[0] == "__torch__":
                yield from _check_class(member, name)
            elif not is_known(name):
                yield Reason(f"{member} names {name}")


def _sources(archive: Archive) -> dict[str, bytes]:
    """Return the sources in the archive by their modules: `__torch__.models` and so on.

    Raises:
        NotPrinted: if there is a member among them that PyTorch does not write.
    """
    sources = dict[str, bytes]()
    for name in sorted(archive.names):
        if name.startswith("code/"):
            match = _CODE.fullmatch(name)
            if match is None:
                raise NotPrinted(f"a member named {name}")
            if match[2] is None:
                sources[match[1].replace("/", ".")] = archive.read(name)
    return sources


def _unknown_values(
    archive: Archive, parsed: Mapping[str, ParsedPickle], program: Program
) -> Iterator[Reason]:
    """Yield a reason for each pickle with a value that PyTorch does not write."""
    for member, pickle in parsed.items():
        try:
            check_operations(archive.operations(member))
            check_values(pickle.value, program, is_model=member == "data.pkl")
        except NotWritten as error:
            yield Reason(f"{member} is not as PyTorch writes it: {error}")


def _check_class(member: str, name: Global) -> Iterator[Reason]:
    """Yield a reason for a class of an unknown extension, or for any class of a constant."""
    is_extension = name.module.startswith("__torch__.torch.classes.")
    if is_extension:
        if str(name) not in CLASSES:
            yield Reason(f"it makes an object of the extension {name}")
    elif member != "data.pkl":
        yield Reason(f"it makes a constant of the class {name}")


def record_problems(archive: Archive, parsed: Mapping[str, ParsedPickle]) -> Iterator[str]:
    """Yield a message for each tensor that does not fit its record."""
    for member, folder in _PICKLES.items():
        yield from find_out_of_bounds(parsed[member], record_sizes(archive, folder))


def provenance(archive: Archive) -> str | None:
    """Return the JSON text about its origin that `join` wrote into the archive, None if absent."""
    name = f"extra/{PROVENANCE}"
    if name not in archive.names:
        return None
    try:
        return archive.read(name).decode("utf-8", "replace")
    except NotAnArchive:
        return None
