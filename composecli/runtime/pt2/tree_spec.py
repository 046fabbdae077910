"""Reading pytree specs, without the imports that `treespec_loads` makes for enums and factories."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

from torch import Size
from torch.utils._pytree import TreeSpec, treespec_leaf

from composecli.files.safety.pt2_structure import PROTOCOL
from composecli.files.strict_json import parse_json
from composecli.runtime.pt2.nodes import Unsupported

_CONTAINERS: dict[str, type[Any]] = {
    "builtins.tuple": tuple,
    "builtins.list": list,
    "builtins.dict": dict,
    "collections.OrderedDict": OrderedDict,
    "collections.deque": deque,
    "torch.Size": Size,
}
# PyTorch writes these if it traced the module with torch.fx; a caller passes the plain ones.
_IMMUTABLE = "torch.fx.immutable_collections.immutable_"


def read_spec(text: str) -> TreeSpec:
    """Return the spec that a JSON text states.

    Raises:
        Unsupported: if it has another container than those of Python.
        KeyError, TypeError, ValueError: if it is not the JSON of a spec.
    """
    protocol, root = parse_json(text)
    if protocol != PROTOCOL:
        raise Unsupported("another version of a structure")
    return _read(root)


def _read(node: dict[str, Any]) -> TreeSpec:
    """Return the spec of a node and those below it."""
    kind = node["type"]
    if kind is None:
        return treespec_leaf()
    container = _container(kind)
    context = parse_json(node["context"])
    children = [_read(child) for child in node["children_spec"]]
    return TreeSpec(container, context, children)


def _container(kind: str) -> type[Any]:
    """Return the class of a container by the name that PyTorch registered it with."""
    if kind.startswith(_IMMUTABLE):
        from torch.fx import immutable_collections

        name = kind.rpartition(".")[2]
        if name in ("immutable_list", "immutable_dict"):
            container: type[Any] = getattr(immutable_collections, name)
            return container
    if kind not in _CONTAINERS:
        raise Unsupported(f"a structure of the type {kind}")
    return _CONTAINERS[kind]
