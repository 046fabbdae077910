"""Reading pytree specs, without the imports that `treespec_loads` makes for enums and factories."""

from __future__ import annotations

import builtins
from collections import OrderedDict, defaultdict, deque
from typing import Any

from torch import Size
from torch.utils._pytree import TreeSpec, treespec_leaf

from composecli.files.safety.pt2_structure import DEFAULT_DICT, FACTORIES, PROTOCOL
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
    children = [_read(child) for child in node["children_spec"]]
    if kind == DEFAULT_DICT:
        factory, keys = _default_dict(node["context"])
        return TreeSpec(defaultdict, [factory, keys], children)
    container = _container(kind)
    context = parse_json(node["context"])
    return TreeSpec(container, context, children)


def _default_dict(context: object) -> tuple[type[Any], list[Any]]:
    """Return the factory of a defaultdict, which is a type of Python's own, and its keys."""
    match context:
        case {"default_factory_name": str(name), "dict_context": list(keys)} if name in FACTORIES:
            return getattr(builtins, name), keys
    raise Unsupported("a defaultdict of another kind")


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
