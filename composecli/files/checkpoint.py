"""Pickled checkpoints: whether they are modules or weights, and the code that loading runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from composecli.core.dtypes import DTYPES
from composecli.core.pytree import TensorSpec, Tree, TreeMapping, leaves
from composecli.files.pickle import Constructed, Global, ParsedPickle, PickleDict
from composecli.files.pickle_tree import tree_of
from composecli.files.pickled_module import PickledClass, pickled_class

MAX_KEYS = 12
# The modules that pickles name in place of the script that was run.
_SCRIPT = ("__main__", "__mp_main__")

_LAYER_MODULE = re.compile(r"torch\.nn\.modules\.[a-z]+")
# Calling these only makes a container or a tensor of data in the file.
_CALLABLE = frozenset(
    (
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
    )
)
# Importing these runs nothing.
_INERT = frozenset(
    (
        *_CALLABLE,
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
        "torch.nn.functional.relu",
        "torch.nn.functional.gelu",
        "torch._C._nn.gelu",
        "torch.relu",
        "torch._C._VariableFunctions.relu",
        "torch._VariableFunctionsClass.relu",
        *(f"torch.{dtype.name}" for dtype in DTYPES),
        "torch.per_tensor_affine",
        "torch.per_channel_affine",
    )
)
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
    "_state_dict_pre_hooks",
)
# Attributes of an instance that would replace the code of its class.
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


class Content(StrEnum):
    """The kind of object in a checkpoint."""

    MODULE = "module"
    WEIGHTS = "weights"
    TENSOR = "tensor"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The result of a scan.

    `untrusted` lists imports and calls beyond torch.nn's own classes, `hooks` the places where code
    is attached to modules, and `keys` the first few names of the weights. `pickled` is the class of
    a module, unless torch has it, and `script_names` are the classes of the script that saved it.
    """

    content: Content
    untrusted: tuple[str, ...]
    hooks: tuple[str, ...]
    keys: tuple[str, ...]
    pickled: PickledClass | None = None
    script_names: tuple[str, ...] = ()


def scan_checkpoint(parsed: ParsedPickle) -> Checkpoint:
    """Scan a pickle without unpickling it."""
    imports = (f"it would import {name}" for name in parsed.imports if not is_inert(name))
    tree = tree_of(parsed.value)
    content = _content(parsed.value, tree)
    untrusted = (*imports, *_unsafe_calls(parsed))
    hooks = dict.fromkeys(_attached_code(parsed))
    names = (name.name for name in parsed.imports if name.module in _SCRIPT)
    script_names = tuple(dict.fromkeys(names))
    pickled = _own_class(parsed.value, content)
    return Checkpoint(content, untrusted, tuple(hooks), _keys(tree), pickled, script_names)


def _own_class(value: object, content: Content) -> PickledClass | None:
    """Return the class of a pickled module, None if torch itself has it."""
    pickled = pickled_class(value)
    if pickled is None or content is not Content.MODULE:
        return None
    if is_inert(Global(pickled.module, pickled.name)) or pickled.module.startswith("torch."):
        return None
    return pickled


def is_layer(name: Global) -> bool:
    """Return whether this is the name of a module class of torch.nn itself.

    The worker, which may import torch, also checks the class.
    """
    if not _LAYER_MODULE.fullmatch(name.module):
        return False
    return name.name[:1].isupper() and name.name.isidentifier()


def is_inert(name: Global) -> bool:
    """Return whether importing this, and using it as PyTorch does, runs no code of the file's."""
    is_storage = name.module in ("torch", "torch.storage") and name.name.endswith("Storage")
    return is_storage or is_layer(name) or str(name) in _INERT


def layers(parsed: ParsedPickle) -> Iterator[tuple[Global, tuple[str, ...]]]:
    """Yield the class of each layer that unpickling would create, and its attributes' names."""
    for constructed in parsed.constructed:
        function, state = constructed.function, constructed.state
        if isinstance(function, Global) and isinstance(state, PickleDict):
            names = tuple(str(key) for key, _ in state.items)
            yield function, names


def _unsafe_calls(parsed: ParsedPickle) -> Iterator[str]:
    """Yield each call that does more than make a container, a tensor or an empty layer."""
    for constructed in parsed.constructed:
        function = constructed.function
        if not isinstance(function, Global):
            yield "it would call the result of another call"
        elif is_layer(function):
            if not constructed.is_new or constructed.arguments != ():
                yield f"it would call {function} with arguments"
        elif is_inert(function) and str(function) not in _CALLABLE:
            yield f"it would call {function}"


def _content(value: object, tree: Tree) -> Content:
    """Classify an unpickled value by its state and by the tree of its tensors."""
    if isinstance(value, Constructed):
        state = value.state
        if isinstance(state, PickleDict) and state.get("_modules") is not None:
            return Content.MODULE
        if state is not None and not isinstance(tree, TreeMapping):
            return Content.MODULE
    if isinstance(tree, TensorSpec):
        return Content.TENSOR
    if not isinstance(tree, TreeMapping):
        return Content.OTHER
    has_tensor = next(leaves(tree), None) is not None
    if has_tensor:
        return Content.WEIGHTS
    return Content.OTHER


def _keys(tree: Tree) -> tuple[str, ...]:
    """Return the first keys of a state dict, for messages."""
    if not isinstance(tree, TreeMapping):
        return ()
    return tuple(key for key, _ in tree.entries[:MAX_KEYS])


def _submodules(root: object) -> Iterator[tuple[str, Constructed]]:
    """Yield the root module and each module below it once, by their dotted names."""
    visited = set[int]()
    stack = [("", root)]
    while stack:
        path, node = stack.pop()
        if not isinstance(node, Constructed) or id(node) in visited:
            continue
        visited.add(id(node))
        yield path, node
        for name, child in _children(node):
            child_path = f"{path}.{name}".strip(".")
            stack.append((child_path, child))


def _children(module: Constructed) -> Iterator[tuple[object, object]]:
    """Yield the submodules of a module by their names."""
    if not isinstance(module.state, PickleDict):
        return
    for key, value in module.state.items:
        if key == "_modules":
            yield from _items(value)


def _attached_code(parsed: ParsedPickle) -> Iterator[str]:
    """Yield each hook or override, by the name of the submodule that has it.

    A layer that another one keeps as a plain attribute is not a submodule, and goes by its class.
    """
    paths = {id(node): path or "the module" for path, node in _submodules(parsed.value)}
    for constructed in parsed.constructed:
        if not isinstance(constructed.state, PickleDict):
            continue
        name = paths.get(id(constructed), str(constructed.function))
        for key, value in constructed.state.items:
            if str(key) in _HOOKS and _items(value):
                yield f"{name}: {key}"
            if str(key) in _OVERRIDES:
                yield f"{name}: {key} is overridden"


def _items(node: object) -> list[tuple[object, object]]:
    """Return the entries of a dict, or of an object that is filled like one."""
    if isinstance(node, Constructed | PickleDict):
        return node.items
    return []
