"""What a pickled checkpoint holds: a module, weights alone, or something else; and what loading it would run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from composecli.files.pickle import Global, Made, Pairs, Walked
from composecli.files.tensors import tree_of
from composecli.trees import Entries, TensorSpec, leaves

_LAYER = re.compile(r"torch\.nn\.modules\.[a-z]+")
_INERT = frozenset(
    [
        "collections.OrderedDict",
        "__builtin__.set",
        "builtins.set",
        "torch.Size",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor",
        "torch.serialization._get_layout",
        "torch.nn.functional.relu",
        "torch.nn.functional.gelu",
        "torch._C._nn.gelu",
        "torch.relu",
        "torch._C._VariableFunctions.relu",
        "torch._VariableFunctionsClass.relu",
        "torch.float32",
        "torch.float64",
        "torch.float16",
        "torch.bfloat16",
        "torch.int64",
    ]
)
_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_state_dict_pre_hooks",
)  # fmt: skip
_OVERRIDES = frozenset(
    ("forward", "__call__", "_call_impl", "__class__", "__setstate__", "train", "eval", "state_dict")
)


class Holds(StrEnum):
    MODULE = "module"
    WEIGHTS = "weights"
    TENSOR = "tensor"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`untrusted` names what unpickling would import beyond torch.nn's own; `hooks` where code is attached."""

    holds: Holds
    untrusted: tuple[str, ...]
    hooks: tuple[str, ...]
    keys: tuple[str, ...]


def judge(walked: Walked) -> Checkpoint:
    return Checkpoint(
        _holds(walked.value),
        tuple(str(name) for name in walked.imports if not is_inert(name)),
        tuple(_hooked(walked.value)),
        _keys(walked.value),
    )


def is_layer(name: Global) -> bool:
    """Whether it is one of torch.nn's own module classes, by its name; the worker asks the class itself."""
    return bool(_LAYER.fullmatch(name.module)) and name.name[:1].isupper() and name.name.isidentifier()


def is_inert(name: Global) -> bool:
    """Whether importing it and letting a checkpoint use it runs nothing of a stranger's."""
    storage = name.module in ("torch", "torch.storage") and name.name.endswith("Storage")
    return is_layer(name) or storage or str(name) in _INERT


def _holds(value: object) -> Holds:
    if isinstance(value, Made) and isinstance(value.state, Pairs) and value.state.get("_modules") is not None:
        return Holds.MODULE
    if isinstance(value, Made) and value.state is not None and not isinstance(_tree(value), Entries):
        return Holds.MODULE
    tree = _tree(value)
    if isinstance(tree, TensorSpec):
        return Holds.TENSOR
    if isinstance(tree, Entries) and next(leaves(tree), None) is not None:
        return Holds.WEIGHTS
    return Holds.OTHER


def _tree(value: object) -> object:
    return tree_of(value)


def _keys(value: object) -> tuple[str, ...]:
    tree = tree_of(value)
    return tuple(key for key, _ in tree.entries[:12]) if isinstance(tree, Entries) else ()


def _hooked(value: object) -> Iterator[str]:
    """Each place below a module where a hook or an override is attached, once."""
    seen, todo = set[int](), [("", value)]
    while todo:
        name, node = todo.pop()
        if not isinstance(node, Made) or id(node) in seen or not isinstance(node.state, Pairs):
            continue
        seen.add(id(node))
        for key, held in node.state.items:
            if key in _HOOKS and _filled(held):
                yield f"{name or 'the module'}: {key}"
            if key in _OVERRIDES:
                yield f"{name or 'the module'}: {key} is overridden"
            if key == "_modules":
                todo += [(f"{name}.{child}".strip("."), module) for child, module in _items(held)]


def _filled(node: object) -> bool:
    return bool(_items(node))


def _items(node: object) -> list[tuple[object, object]]:
    return node.items if isinstance(node, Made | Pairs) else []
