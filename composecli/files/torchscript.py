"""What a TorchScript archive says of itself: its stored example inputs, devices in its code, its attributes."""

from __future__ import annotations

import re

from composecli.files.pickle import Global, Made, NotAPickle, Pairs, walk
from composecli.files.tensors import tree_of
from composecli.files.zip import Archive, NotAnArchive
from composecli.trees import Argument, Call, Entries, Items, Other, TensorSpec, leaves

PROVENANCE = "composecli.json"
_DEVICE = re.compile(r'torch\.device\("([a-z]+(?::\d+)?)"\)')


def traced_example(archive: Archive) -> Call | None:
    """The inputs that `torch.jit.trace` stored for forward; None where there are none that a probe can be made of."""
    if "traced_inputs.pkl" not in archive.names:
        return None
    try:
        tree = tree_of(walk(archive.read("traced_inputs.pkl")).value)
    except (NotAPickle, NotAnArchive):
        return None
    stored = dict(tree.entries).get("forward") if isinstance(tree, Entries) else None
    if not isinstance(stored, Items) or not stored.items:
        return None
    call = Call(tuple(Argument(item) for item in stored.items))
    plain = all(not isinstance(item, Other) for item in stored.items)
    some = any(isinstance(spec, TensorSpec) for item in stored.items for _, spec in leaves(item))
    return call if plain and some else None


def baked_devices(archive: Archive) -> tuple[str, ...]:
    """The devices that the code names as constants, `cpu` among them."""
    found = set[str]()
    for name in archive.names:
        if name.startswith("code/") and name.endswith(".py"):
            try:
                found.update(_DEVICE.findall(archive.read(name).decode("utf-8", "replace")))
            except NotAnArchive:
                continue
    return tuple(sorted(found))


def attributes(archive: Archive) -> dict[str, tuple[str, ...]]:
    """The attributes of each submodule that are no submodules: parameters, buffers, flags, lists and numbers."""
    try:
        root = walk(archive.read("data.pkl")).value
    except (NotAPickle, NotAnArchive):
        return {}
    found = dict[str, tuple[str, ...]]()
    todo, seen = [("", root)], set[int]()
    while todo:
        name, node = todo.pop()
        if not isinstance(node, Made) or not isinstance(node.state, Pairs) or id(node) in seen:
            continue
        seen.add(id(node))
        inner = [(str(key), value) for key, value in node.state.items]
        found[name] = tuple(key for key, value in inner if not _is_submodule(value))
        todo += [(f"{name}.{key}".strip("."), value) for key, value in inner if _is_submodule(value)]
    return found


def _is_submodule(node: object) -> bool:
    return isinstance(node, Made) and isinstance(node.maker, Global) and node.maker.module.startswith("__torch__")


def provenance(archive: Archive) -> str | None:
    """What `join` wrote into the archive of where it comes from, as JSON text."""
    name = f"extra/{PROVENANCE}"
    if name not in archive.names:
        return None
    try:
        return archive.read(name).decode("utf-8", "replace")
    except NotAnArchive:
        return None
