"""What a pickled checkpoint holds: a module, weights alone, or something else; and what loading it would run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from composecli.core.pytree import TensorSpec, TreeMapping, leaves
from composecli.files.pickle import Constructed, Global, ParsedPickle, PickleDict
from composecli.files.pickle_tree import tree_of
from composecli.files.storage_bounds import DTYPE_SIZES

_LAYER = re.compile(r"torch\.nn\.modules\.[a-z]+")
# What unpickling may call, and does nothing but make a container or a tensor of what is there.
_CALLABLE = frozenset(
    [
        "collections.OrderedDict",
        "__builtin__.set",
        "builtins.set",
        "torch.Size",
        "torch.device",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_qtensor",
        "torch.serialization._get_layout",
    ]
)
_INERT = _CALLABLE | frozenset(
    [
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
        "torch.nn.functional.relu",
        "torch.nn.functional.gelu",
        "torch._C._nn.gelu",
        "torch.relu",
        "torch._C._VariableFunctions.relu",
        "torch._VariableFunctionsClass.relu",
        *(f"torch.{dtype}" for dtype in DTYPE_SIZES),
        "torch.per_tensor_affine",
        "torch.per_channel_affine",
    ]
)
_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_state_dict_pre_hooks",
)  # fmt: skip
_OVERRIDES = frozenset(
    (
        "forward",
        "__call__",
        "_call_impl",
        "__class__",
        "__dict__",
        "__setstate__",
        "__getstate__",
        "__reduce__",
        "__reduce_ex__",
        "__getattr__",
        "__setattr__",
        "__del__",
        "train",
        "eval",
        "state_dict",
    )
)


class Holds(StrEnum):
    MODULE = "module"
    WEIGHTS = "weights"
    TENSOR = "tensor"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`untrusted` names what unpickling would import or call beyond torch.nn's own; `hooks` where code is attached."""

    holds: Holds
    untrusted: tuple[str, ...]
    hooks: tuple[str, ...]
    keys: tuple[str, ...]


def judge(walked: ParsedPickle) -> Checkpoint:
    return Checkpoint(
        _holds(walked.value),
        (
            *(f"it would import {name}" for name in walked.imports if not is_inert(name)),
            *_calls(walked),
        ),
        tuple(dict.fromkeys(_hooked(walked))),
        _keys(walked.value),
    )


def is_layer(name: Global) -> bool:
    """Whether it is one of torch.nn's own module classes, by its name; the worker asks the class itself."""
    return (
        bool(_LAYER.fullmatch(name.module)) and name.name[:1].isupper() and name.name.isidentifier()
    )


def is_inert(name: Global) -> bool:
    """Whether importing it and letting a checkpoint use it runs nothing of a stranger's."""
    storage = name.module in ("torch", "torch.storage") and name.name.endswith("Storage")
    return is_layer(name) or storage or str(name) in _INERT


def _calls(walked: ParsedPickle) -> Iterator[str]:
    """What unpickling would call, where that is more than making a container, a tensor or an empty layer."""
    for made in walked.made:
        name = made.maker
        if not isinstance(name, Global):
            yield "it would call what another call gave"
        elif is_layer(name):
            if not made.new or made.arguments != ():
                yield f"it would call {name} with arguments"
        elif is_inert(name) and str(name) not in _CALLABLE:
            yield f"it would call {name}"


def layers(walked: ParsedPickle) -> Iterator[tuple[Global, tuple[str, ...]]]:
    """The class of each layer that unpickling would make, and the attributes that it would be given."""
    for made in walked.made:
        if isinstance(made.maker, Global) and isinstance(made.state, PickleDict):
            yield made.maker, tuple(str(key) for key, _ in made.state.items)


def _holds(value: object) -> Holds:
    if (
        isinstance(value, Constructed)
        and isinstance(value.state, PickleDict)
        and value.state.get("_modules") is not None
    ):
        return Holds.MODULE
    if (
        isinstance(value, Constructed)
        and value.state is not None
        and not isinstance(_tree(value), TreeMapping)
    ):
        return Holds.MODULE
    tree = _tree(value)
    if isinstance(tree, TensorSpec):
        return Holds.TENSOR
    if isinstance(tree, TreeMapping) and next(leaves(tree), None) is not None:
        return Holds.WEIGHTS
    return Holds.OTHER


def _tree(value: object) -> object:
    return tree_of(value)


def _keys(value: object) -> tuple[str, ...]:
    tree = tree_of(value)
    return tuple(key for key, _ in tree.entries[:12]) if isinstance(tree, TreeMapping) else ()


def _submodules(value: object) -> Iterator[tuple[str, Constructed]]:
    """Each module below a value, once, by the name that it has there."""
    seen, todo = set[int](), [("", value)]
    while todo:
        path, node = todo.pop()
        if not isinstance(node, Constructed) or id(node) in seen:
            continue
        seen.add(id(node))
        yield path, node
        if isinstance(node.state, PickleDict):
            children = [
                child
                for key, held in node.state.items
                if key == "_modules"
                for child in _items(held)
            ]
            todo += [(f"{path}.{child}".strip("."), module) for child, module in children]


def _hooked(walked: ParsedPickle) -> Iterator[str]:
    """Each place where a hook or an override is attached: by the name of the submodule, or by the class of what is none
    (a layer that another one keeps as an attribute)."""
    named = {id(node): path or "the module" for path, node in _submodules(walked.value)}
    for made in walked.made:
        name = named.get(id(made), str(made.maker))
        for key, held in made.state.items if isinstance(made.state, PickleDict) else ():
            if str(key) in _HOOKS and _filled(held):
                yield f"{name}: {key}"
            if str(key) in _OVERRIDES:
                yield f"{name}: {key} is overridden"


def _filled(node: object) -> bool:
    return bool(_items(node))


def _items(node: object) -> list[tuple[object, object]]:
    return node.items if isinstance(node, Constructed | PickleDict) else []
