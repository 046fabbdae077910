"""Pickled modules as data: the class of a module, and its state dict, from the parsed pickle.

Nothing is imported or called. A module of any class can be read this way, because the state of an
`nn.Module` has its tensors in `_parameters` and `_buffers` and its submodules in `_modules`.

Source: `torch/nn/modules/module.py` for the attributes and for the names in a state dict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from composecli.files.pickle import Constructed, Global, PickleDict

# More than any model has: a module that holds another one twice, thirty levels deep, has a billion.
MAX_TENSORS = 200_000
MAX_DEPTH = 200
MAX_NAME_LENGTH = 1000
MAX_SETTING = 2**63
MAX_SETTING_LENGTH = 60

# What `torch.compile` returns. It is pickled as a call with the compiled module.
_COMPILED = "torch._dynamo.eval_frame.OptimizedModule"
_COMPILED_ATTRIBUTE = "_orig_mod"
# Wrappers that hold the user's own module in this submodule.
_WRAPPED = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    _COMPILED: _COMPILED_ATTRIBUTE,
}
_FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_PARAMETER_FUNCTIONS = ("_rebuild_parameter", "_rebuild_parameter_with_state")


class Unreadable(Exception):
    """A pickled module whose tensors cannot be read as data. The message says which one."""


@dataclass(frozen=True, slots=True)
class PickledClass:
    """The class of a pickled module.

    `settings` are the attributes of the module that are numbers, texts, True or False, by name and
    as Python source: a class often stores the arguments of its constructor under their names.
    """

    module: str
    name: str
    settings: tuple[tuple[str, str], ...] = ()


def is_module(value: object) -> bool:
    """Return whether a value of a pickle is stored as an `nn.Module` is."""
    return isinstance(value, Constructed) and _submodules(value) is not None


def pickled_class(value: object) -> PickledClass | None:
    """Return the class of a pickled module, or of the module in a wrapper such as DataParallel.

    None if the value is not an object of a class.
    """
    module, _ = without_wrappers(value)
    if not isinstance(module, Constructed):
        return None
    name = _class_of(module)
    if name is None:
        return None
    return PickledClass(name.module, name.name, tuple(_settings(module)))


def without_wrappers(value: object) -> tuple[object, tuple[str, ...]]:
    """Return the module in wrappers, and the attributes that lead to it, such as `module`.

    A wrapper with hooks stays: they belong to the forward.
    """
    attributes = list[str]()
    while isinstance(value, Constructed) and len(attributes) < MAX_DEPTH:
        attribute = _WRAPPED.get(str(_class_of(value)))
        wrapped = _entry(_submodules(value), attribute)
        if attribute is None or wrapped is None or _has_hooks(value):
            break
        value = wrapped
        attributes.append(attribute)
    return value, tuple(attributes)


def _has_hooks(module: Constructed) -> bool:
    """Return whether a module has forward hooks."""
    tables = (_state_entry(module, name) for name in _FORWARD_HOOKS)
    return any(isinstance(table, PickleDict | Constructed) and table.items for table in tables)


def _submodules(value: Constructed) -> object:
    """Return the dict of the submodules of a module; None if an object is no module."""
    match value.function, value.arguments:
        case Global() as function, (inner, *_) if str(function) == _COMPILED:
            return PickleDict([(_COMPILED_ATTRIBUTE, inner)])
    return _state_entry(value, "_modules")


def _class_of(value: Constructed) -> Global | None:
    """Return the class of an object; older protocols name it as an argument of a function."""
    match value.function, value.arguments:
        case Global("copy_reg" | "copyreg", _), (Global() as name, *_):
            return name
        case Global() as name, _:
            return name
    return None


def _settings(module: Constructed) -> Iterator[tuple[str, str]]:
    """Yield the plain attributes of a module, as names and Python source."""
    if not isinstance(module.state, PickleDict):
        return
    for key, value in module.state.items:
        if not isinstance(key, str) or key.startswith("_") or not key.isidentifier():
            continue
        text = _literal(value)
        if text is not None:
            yield key, text


def _literal(value: object) -> str | None:
    """Return a plain value, or a short list or tuple of integers, as Python source."""
    if not _is_plain(value):
        return None
    text = repr(value)
    if len(text) > MAX_SETTING_LENGTH or "inf" in text or "nan" in text:
        return None
    return text


def _is_plain(value: object) -> bool:
    """Return whether a value is a short literal."""
    match value:
        case None | bool() | float():
            return True
        case int():
            return abs(value) < MAX_SETTING
        case str():
            return len(value) < MAX_SETTING_LENGTH and value.isprintable()
        case list() | tuple():
            are_integers = all(type(item) is int and abs(item) < MAX_SETTING for item in value)
            return len(value) < MAX_SETTING_LENGTH and are_integers
    return False


def state_nodes(root: object) -> dict[str, object]:
    """Return the nodes of a pickled module's parameters and persistent buffers, by name.

    The names are those of its state dict. A node need not be that of a tensor that is plain data.

    Raises:
        Unreadable: if the value is no module, or is not stored as one.
    """
    tensors = dict[str, object]()
    for path, module in _modules(root):
        for name, value in _own_tensors(module):
            full = f"{path}{name}"
            tensors[full] = _tensor_node(value)
            if len(tensors) > MAX_TENSORS:
                raise Unreadable(f"it has more than {MAX_TENSORS:,} tensors")
    return tensors


def submodule_count(root: object) -> int:
    """Return the number of submodules of a pickled module, each as often as it is held.

    Raises:
        Unreadable: if the value is no module.
    """
    return sum(1 for _ in _modules(root))


def training_flags(root: object) -> dict[str, bool]:
    """Return whether each submodule of a pickled module is in train mode, by its name.

    The names are those below the wrappers; that of the module itself is empty.

    Raises:
        Unreadable: if the value is no module.
    """
    _, attributes = without_wrappers(root)
    wrapper = "".join(f"{name}." for name in attributes)
    flags = dict[str, bool]()
    for prefix, module in _modules(root):
        training = _state_entry(module, "training")
        if prefix.startswith(wrapper) and isinstance(training, bool):
            flags[prefix.removeprefix(wrapper).removesuffix(".")] = training
    return flags


def _modules(root: object) -> Iterator[tuple[str, Constructed]]:
    """Yield the module and every submodule in order, with the prefix of their names.

    A submodule that is held twice comes twice, as in a state dict.

    Raises:
        Unreadable: if one of them is not a module, or they are nested too deep.
    """
    count = 0
    stack: list[tuple[str, int, object]] = [("", 0, root)]
    while stack:
        prefix, depth, module = stack.pop()
        count += 1
        if depth > MAX_DEPTH or len(prefix) > MAX_NAME_LENGTH or count > MAX_TENSORS:
            raise Unreadable("its submodules are nested deeper than in any model")
        if not isinstance(module, Constructed) or not is_module(module):
            place = prefix.rstrip(".") or "the object"
            raise Unreadable(f"{place} is not stored as an nn.Module is")
        yield prefix, module
        inner = list[tuple[str, int, object]]()
        for name, child in _pairs(_submodules(module)):
            if child is not None:
                inner.append((f"{prefix}{name}.", depth + 1, child))
        stack += reversed(inner)


def _own_tensors(module: Constructed) -> Iterator[tuple[str, object]]:
    """Yield the parameters of one module and its buffers, except those that are not saved."""
    for name, value in _pairs(_state_entry(module, "_parameters")):
        if value is not None:
            yield name, value
    left_out = _texts(_state_entry(module, "_non_persistent_buffers_set"))
    for name, value in _pairs(_state_entry(module, "_buffers")):
        if value is not None and name not in left_out:
            yield name, value


def _tensor_node(value: object) -> object:
    """Return the tensor in a parameter, or in one with attributes or a class of its own."""
    for _ in range(MAX_DEPTH):
        function, arguments = _call(value)
        if function.name in _PARAMETER_FUNCTIONS and arguments:
            value = arguments[0]
        elif function.name == "_rebuild_from_type_v2" and len(arguments) > 2:
            value = Constructed(arguments[0], arguments[2])
        else:
            break
    return value


_NOTHING = Global("", "")


def _call(value: object) -> tuple[Global, tuple[object, ...]]:
    """Return the function that makes a value and its arguments; a nameless one for others."""
    match value:
        case Constructed(Global() as function, tuple(arguments)):
            return function, arguments
    return _NOTHING, ()


def _state_entry(module: Constructed, key: str) -> object:
    """Return an attribute of a module, None if it has no such attribute."""
    state = module.state
    # An object with slots has two states, and that of the slots comes second.
    if isinstance(state, tuple) and state:
        state = state[0]
    return _entry(state, key)


def _entry(node: object, key: str | None) -> object:
    """Return the last value with a key in a dict, or in an object that is filled like one."""
    if key is None or not isinstance(node, PickleDict | Constructed):
        return None
    for name, value in reversed(node.items):
        if name == key:
            return value
    return None


def _pairs(node: object) -> Iterator[tuple[str, object]]:
    """Yield the entries of a dict of tensors or of modules.

    Raises:
        Unreadable: if it is not a dict, or a key is not a text.
    """
    if node is None:
        return
    if not isinstance(node, PickleDict | Constructed):
        raise Unreadable("its tensors or submodules are not in a dict")
    entries = dict[str, object]()
    for name, value in node.items:
        if not isinstance(name, str):
            raise Unreadable(f"the name of a tensor is a {type(name).__name__}")
        entries[name] = value
    yield from entries.items()


def _texts(node: object) -> frozenset[str]:
    """Return the texts in a set: protocol 2 makes it from a list, later protocols fill it."""
    match node:
        case Constructed(Global(_, "set"), (list(items),)):
            node = items
    if not isinstance(node, list):
        return frozenset()
    return frozenset(item for item in node if isinstance(item, str))
