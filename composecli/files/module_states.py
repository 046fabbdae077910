"""What the state of an object in a pickle may be: only what `torch.save` writes for torch.nn.

Loading puts a state into the attributes of an object, whatever the state is: a dict, a list of
pairs, or a tuple for an object with slots. An attribute can replace a method of the class, and a
state of a tensor moves it in its storage. So each state here has one form.

Source: `torch/_weights_only_unpickler.py` for what BUILD does, and `torch/nn/modules/module.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from composecli.core.dtypes import by_name
from composecli.files.library_classes import Libraries, is_named_tuple, library_of
from composecli.files.pickle import Constructed, Global, PickleDict, name_of

_ORDERED_DICT = "collections.OrderedDict"
# The names that make tensors, sets, sizes and devices start so.
_MAKERS = (
    "torch._utils.",
    "torch.serialization.",
    "torch.Size",
    "torch.device",
    "builtins.",
    "__builtin__.",
)
_TABLES = ("_parameters", "_buffers", "_modules")
# The only attribute of torch.nn's classes that is a function.
_FUNCTION_KEYS = ("activation",)
_COMPILED = "_compiled_call_impl"
# `torch.jit.script` leaves it on the module that it compiles.
_MARK_OF_SCRIPTING = "__overloads__"
_WITH_CLASS = "torch._tensor._rebuild_from_type_v2"
_BUFFER_MARKS = ("persistent", "_is_buffer")
_WITH_STATE = "torch._utils._rebuild_parameter_with_state"


def state_problems(
    constructed: tuple[Constructed, ...], libraries: Libraries = ()
) -> Iterator[str]:
    """Yield a message for each object whose state, or whose items, have another form.

    The objects are those of torch.nn's classes, of these libraries' classes, and of the functions
    that make tensors. Any other class is refused for its name.
    """
    for node in constructed:
        name = name_of(node.function)
        if name.startswith("torch.nn.modules."):
            yield from _layer_problems(node, name)
        elif isinstance(node.function, Global) and library_of(node.function, libraries):
            if node.is_new and not is_named_tuple(node):
                yield from _layer_problems(node, name, has_functions=True)
        elif name == _ORDERED_DICT:
            yield from _ordered_dict_problems(node)
        elif name.startswith(_MAKERS) and (node.state is not None or node.items or node.is_new):
            yield f"{name} is filled with a state"
        if name == _WITH_STATE:
            yield from _parameter_problems(node)


def is_marked_buffer(constructed: Constructed) -> bool:
    """Return whether a tensor is made as `torch.nn.Buffer` makes one: with two flags on it."""
    match constructed.function, constructed.arguments:
        case Global() as function, (
            Global() as maker,
            Global() as kind,
            tuple(),
            PickleDict() as marks,
        ):
            names = (str(function), str(maker), str(kind))
            if names != (_WITH_CLASS, "torch._utils._rebuild_tensor_v2", "torch.Tensor"):
                return False
            is_plain = (
                constructed.state is None and not constructed.items and not constructed.is_new
            )
            return is_plain and all(
                key in _BUFFER_MARKS and isinstance(value, bool) for key, value in marks.items
            )
    return False


def _layer_problems(layer: Constructed, name: str, *, has_functions: bool = False) -> Iterator[str]:
    """Yield a message for each part of a layer's state that torch.nn does not write.

    A layer that `has_functions` may keep any of those that its library is trusted with.
    """
    if not isinstance(layer.state, PickleDict) or layer.items:
        yield f"{name}: its state is not a dict"
        return
    keys = [key for key, _ in layer.state.items]
    if not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        yield f"{name}: its state has an attribute twice"
        return
    values = [value for _, value in layer.state.items]
    for key, value in zip(map(str, keys), values, strict=True):
        if key == _MARK_OF_SCRIPTING and isinstance(value, PickleDict):
            continue
        if key.startswith("__") or (key == _COMPILED and value is not None):
            yield f"{name}: {key} is overridden"
        elif key in _TABLES and not _is_table(value):
            yield f"{name}: {key} is not a dict"
        elif _is_function(value) and key not in _FUNCTION_KEYS and not has_functions:
            yield f"{name}: {key} is a function"


def _is_table(value: object) -> bool:
    """Return whether a value is a dict with texts as keys, in one of the forms that it may have.

    What is no object is left to the loader, which looks at the module that torch has made.
    """
    if not isinstance(value, PickleDict | Constructed):
        return True
    if not isinstance(value, PickleDict):
        if not isinstance(value, Constructed) or name_of(value.function) != _ORDERED_DICT:
            return False
        if value.arguments != () or value.state is not None:
            return False
    keys = [key for key, _ in value.items]
    return all(isinstance(key, str) for key in keys) and len(set(keys)) == len(keys)


def _is_function(value: object) -> bool:
    """Return whether a value is a function or a class, and no dtype."""
    return isinstance(value, Global) and (value.module != "torch" or by_name(value.name) is None)


def _ordered_dict_problems(node: Constructed) -> Iterator[str]:
    """Yield a message if an OrderedDict has another attribute than that of a state dict."""
    match node.state:
        case None:
            return
        case PickleDict([("_metadata", Constructed() | PickleDict())]):
            return
    yield "an OrderedDict has attributes of its own"


def _parameter_problems(node: Constructed) -> Iterator[str]:
    """Yield a message if the attributes of a parameter are more than named data."""
    match node.arguments:
        case (_, _, _, PickleDict(items)) if _are_data(items):
            return
        case (_, _, _, (PickleDict(items), None)) if _are_data(items):
            return
    yield "a parameter has attributes that are not data"


def _are_data(items: list[tuple[object, object]]) -> bool:
    """Return whether these are attributes of a parameter with numbers, texts and containers."""
    for key, value in items:
        if not isinstance(key, str) or key.startswith("__") or _is_function(value):
            return False
    return True
