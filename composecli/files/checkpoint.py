"""Pickled checkpoints: whether they are modules or weights, and the code that loading runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

from composecli.core.dtypes import DTYPES, by_storage
from composecli.files.activations import ACTIVATIONS
from composecli.files.checkpoint_entries import (
    ANY_MODEL,
    Entry,
    Selector,
    children,
    entry_at,
    find_modules,
    find_state_dicts,
    is_tensor,
    items_of,
)
from composecli.files.library_classes import (
    PARTIAL,
    Libraries,
    is_enum_member,
    is_granted,
    is_named_tuple,
    is_plain_partial,
    libraries_in,
    library_of,
    may_be_partial,
)
from composecli.files.module_states import is_marked_buffer, state_problems
from composecli.files.pickle import (
    Constructed,
    Global,
    ParsedPickle,
    PickleDict,
    marks_above,
    name_of,
    reachable,
)
from composecli.files.pickled_module import PickledClass, is_module, pickled_class, without_wrappers
from composecli.files.weight_hooks import WEIGHT_HOOKS, is_weight_hook

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
# The globals that a pickle of tensors, numbers and texts names.
_DATA = frozenset(
    (
        *_CALLABLE,
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
        *(f"torch.{dtype.name}" for dtype in DTYPES),
        "torch.per_tensor_affine",
        "torch.per_channel_affine",
    )
)
# Importing these runs nothing.
_INERT = frozenset(
    (
        *_DATA,
        *ACTIVATIONS,
        *WEIGHT_HOOKS,
        # Those of a buffer; see `is_marked_buffer`.
        "torch.Tensor",
        "torch._tensor._rebuild_from_type_v2",
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
    SEVERAL = "several modules"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class FoundModule:
    """A module in a checkpoint: its key, and its class unless torch has it."""

    key: str
    pickled: PickledClass | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The result of a scan.

    `untrusted` lists imports and calls beyond torch.nn's own classes, `hooks` the places where code
    is attached to modules, and `keys` the first few entries. All are about the part that would be
    loaded: of the weights only tensors are, and never an object beside them. `weights` are the
    first few names in the first state dict.

    `pickled` is the class of the module, or of the first one, unless torch has it; `script_names`
    are the classes of the script that saved the file. It would load with the classes of
    `libraries`, if there are any.
    """

    content: Content
    untrusted: tuple[str, ...]
    hooks: tuple[str, ...]
    keys: tuple[str, ...]
    modules: tuple[FoundModule, ...] = ()
    weights: tuple[str, ...] = ()
    pickled: PickledClass | None = None
    script_names: tuple[str, ...] = ()
    libraries: Libraries = ()


def scan_checkpoint(parsed: ParsedPickle, selector: Selector = ANY_MODEL) -> Checkpoint:
    """Scan a pickle without unpickling it."""
    content = _content(parsed.value, selector)
    keys = tuple(name for name, _ in children(parsed.value)[:MAX_KEYS])
    found = find_modules(parsed.value)
    modules = tuple(FoundModule(entry.key, _own_class(entry.node)) for entry in found)
    if content is Content.WEIGHTS:
        return Checkpoint(content, (), (), keys, modules, _weights(parsed.value))
    module = chosen_module(parsed.value, selector.key)
    if module is None:
        module = next(iter(found), Entry((), parsed.value))
    part = reachable(module.node)
    untrusted = _untrusted(part, selector.libraries)
    libraries = libraries_in(part.imports)
    if not untrusted or _untrusted(part, libraries):
        libraries = ()
    attached = [*_attached_code(part), *state_problems(part.constructed, selector.libraries)]
    hooks = tuple(dict.fromkeys(attached))
    # All classes of the script are needed if the file is trusted, whatever part is meant.
    names = (name.name for name in parsed.imports if name.module in _SCRIPT)
    script_names = tuple(dict.fromkeys(names))
    pickled = _own_class(module.node)
    return Checkpoint(
        content, untrusted, hooks, keys, modules, (), pickled, script_names, libraries
    )


def _untrusted(part: ParsedPickle, libraries: Libraries) -> tuple[str, ...]:
    """Return the imports and calls of a module beyond torch.nn's classes and these libraries'."""
    imports = list[str]()
    for name in part.imports:
        if not is_inert(name) and not is_granted(name, libraries):
            imports.append(f"it would import {name}")
    return (*imports, *unsafe_calls(part, libraries))


def _weights(value: object) -> tuple[str, ...]:
    """Return the first few names in the first state dict of a checkpoint."""
    for entry in find_state_dicts(value)[:1]:
        return tuple(name for name, _ in children(entry.node)[:MAX_KEYS])
    return ()


def _own_class(module: object) -> PickledClass | None:
    """Return the class of a pickled module, None if torch itself has it."""
    pickled = pickled_class(module)
    if pickled is None:
        return None
    if is_inert(Global(pickled.module, pickled.name)) or pickled.module.startswith("torch."):
        return None
    return pickled


def chosen_module(value: object, key: str | None) -> Entry | None:
    """Return the module of a checkpoint: the whole of it, the entry at a key, or the only one.

    It is without its wrappers. None if there is none, or if it has to be chosen by its key.
    """
    entry = _chosen_entry(value, key)
    if entry is None:
        return None
    node, attributes = without_wrappers(entry.node)
    return Entry(entry.path, node, attributes)


def _chosen_entry(value: object, key: str | None) -> Entry | None:
    """Return the entry with the module of a checkpoint; see `chosen_module`."""
    root = Entry((), value)
    if is_module(value) or _is_object(value):
        return root
    if key is not None:
        entry = entry_at(value, key)
        if entry is not None and is_module(entry.node):
            return entry
        return None
    modules = find_modules(value)
    if len(modules) == 1:
        return modules[0]
    return None


def is_plain(node: object) -> bool:
    """Return whether a node is only data: tensors, numbers, texts, and containers of them."""
    return is_plain_part(reachable(node))


def is_plain_part(part: ParsedPickle) -> bool:
    """Return whether everything in a part of a pickle is only data; see `is_plain`."""
    if not all(_is_storage(name) or str(name) in _DATA for name in part.imports):
        return False
    problems = chain(unsafe_calls(part), state_problems(part.constructed))
    return next(problems, None) is None


def foreign_names(root: object) -> dict[int, str]:
    """Return a global that unpickling each node imports, by the node's id; see `is_inert`.

    A node without an entry imports only torch.nn's classes and data.
    """
    return marks_above(root, _foreign_name)


def not_plain(root: object) -> dict[int, str]:
    """Return why each node is more than data, by its id; see `is_plain`.

    It is the global that unpickling it imports, or "a call".
    """
    marks = marks_above(root, _more_than_data)
    if marks:
        marks |= foreign_names(root)
    return marks


def why_not_plain(node: object, marks: Mapping[int, str]) -> str | None:
    """Return why a node is more than data, None if it is not.

    `marks` are those of `not_plain`. The node may be a call that is made of nodes with marks.
    """
    if isinstance(node, Constructed) and id(node) not in marks:
        parts = (node.function, node.arguments)
        found = [marks[id(part)] for part in parts if id(part) in marks]
        return next(iter(found), _more_than_data(node))
    return marks.get(id(node))


def _foreign_name(node: object) -> str | None:
    """Return the name of a global that is not inert, None for any other node."""
    if isinstance(node, Global) and not is_inert(node):
        return str(node)
    return None


def _more_than_data(node: object) -> str | None:
    """Return "a call" for a node that is more than data by itself."""
    match node:
        case Global():
            part = ParsedPickle(node, (node,))
        case Constructed():
            part = ParsedPickle(node, (), (node,))
        case _:
            return None
    if is_plain_part(part):
        return None
    return "a call"


def has_quantized(node: object) -> bool:
    """Return whether a node holds a quantized tensor."""
    return any(name.name == "_rebuild_qtensor" for name in reachable(node).imports)


def is_layer(name: Global) -> bool:
    """Return whether this is the name of a module class of torch.nn itself.

    The worker, which may import torch, also checks the class.
    """
    if not _LAYER_MODULE.fullmatch(name.module):
        return False
    return name.name[:1].isupper() and name.name.isidentifier()


def is_inert(name: Global) -> bool:
    """Return whether importing this, and using it as PyTorch does, runs no code of the file's."""
    return _is_storage(name) or is_layer(name) or str(name) in _INERT


def _is_storage(name: Global) -> bool:
    """Return whether this is the name of a storage class."""
    if name.module not in ("torch", "torch.storage"):
        return False
    return name.name in ("UntypedStorage", "TypedStorage") or by_storage(name.name) is not None


def layers(parsed: ParsedPickle) -> Iterator[tuple[Global, PickleDict]]:
    """Yield the class of each layer that unpickling would create, and its attributes.

    A state that is no dict is refused, see `module_states`.
    """
    for constructed in parsed.constructed:
        function, state = constructed.function, constructed.state
        if isinstance(function, Global) and isinstance(state, PickleDict):
            yield function, state


def unsafe_calls(parsed: ParsedPickle, libraries: Libraries = ()) -> Iterator[str]:
    """Yield each call that does more than make a container, a tensor or an empty layer.

    Layers may be of these libraries, too, which also have enums and partials of layers.
    """
    for constructed in parsed.constructed:
        function = constructed.function
        if not isinstance(function, Global):
            yield "it would call the result of another call"
        elif function == PARTIAL and is_granted(function, libraries):
            if not is_plain_partial(constructed) or not _may_be_partial(constructed):
                yield f"it would call {function}"
        elif is_layer(function) or library_of(function, libraries) is not None:
            is_member = not is_layer(function) and is_enum_member(constructed)
            is_empty = constructed.is_new and constructed.arguments == ()
            if not is_empty and not is_member and not is_named_tuple(constructed):
                yield f"it would call {function} with arguments"
        elif _is_only_named(function, libraries) and not _makes_data(constructed):
            yield f"it would call {function}"


def _makes_data(constructed: Constructed) -> bool:
    """Return whether an object is a tensor that is marked as a buffer, or a hook of torch."""
    return is_marked_buffer(constructed) or is_weight_hook(constructed)


def _is_only_named(function: Global, libraries: Libraries) -> bool:
    """Return whether a function may be referred to, but not called."""
    if is_granted(function, libraries):
        return True
    return is_inert(function) and str(function) not in _CALLABLE


def _may_be_partial(constructed: Constructed) -> bool:
    """Return whether a partial is one of a layer of torch.nn, or of an activation."""
    match constructed.arguments:
        case (Global() as name,):
            return is_layer(name) or may_be_partial(name)
    return False


def _content(value: object, selector: Selector) -> Content:
    """Classify the part of a checkpoint that is meant. The tensors of a module are weights, too."""
    modules = find_modules(value)
    has_weights = bool(find_state_dicts(value))
    if selector.weights and (has_weights or modules):
        return Content.WEIGHTS
    if is_module(value) or _is_object(value):
        return Content.MODULE
    if has_weights and not modules:
        return Content.WEIGHTS
    if chosen_module(value, selector.key) is not None:
        return Content.MODULE
    if modules:
        return Content.SEVERAL
    if is_tensor(value):
        return Content.TENSOR
    return Content.OTHER


def _is_object(value: object) -> bool:
    """Return whether a value is an object of some class with a state, and no dict or tensor."""
    if not isinstance(value, Constructed) or value.state is None:
        return False
    return items_of(value) is None and not is_tensor(value)


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
            child_path = f"{path}.{name_of(name)}".strip(".")
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
        name = paths.get(id(constructed), name_of(constructed.function))
        for key, value in constructed.state.items:
            attribute = name_of(key)
            if attribute in _HOOKS and _are_unknown_hooks(value):
                yield f"{name}: {attribute}"
            if attribute in _OVERRIDES:
                yield f"{name}: {attribute} is overridden"


def _are_unknown_hooks(hooks: object) -> bool:
    """Return whether there are hooks in a dict that are not torch's own."""
    return any(not is_weight_hook(hook) for _, hook in _items(hooks))


def _items(node: object) -> list[tuple[object, object]]:
    """Return the entries of a dict, or of an object that is filled like one."""
    if isinstance(node, Constructed | PickleDict):
        return node.items
    return []
