"""The values in a TorchScript archive's pickles: whether each is one that PyTorch writes there.

PyTorch's C++ unpickler trusts its input. A function is a number on its stack, so that any number
can be called. The attributes of an object are slots, and code reads the slots of the class that it
was compiled for, whatever object is there. So only these values are known here, and each has to fit
the type of its attribute in the source.

Source of the format: `torch/csrc/jit/serialization/unpickler.cpp` and `pickler.cpp`, and
`obj_loader` in `import.cpp`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from composecli.core.dtypes import by_storage
from composecli.files.pickle import (
    Constructed,
    Global,
    Operation,
    Persistent,
    PickleDict,
    name_of,
)
from composecli.files.safety.allowlist import CLASSES
from composecli.files.torchscript_source import Definition, Program
from composecli.files.torchscript_types import NotPrinted, Signature, Type, read_type

# Values inside values: PyTorch frees them by recursion. Real models nest twenty deep.
MAX_VALUE_DEPTH = 500

# The opcodes that PyTorch's C++ pickler writes.
_OPCODES = frozenset(
    (
        "PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
        "LONG1", "BINFLOAT", "BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
        "EMPTY_LIST", "LIST", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "BINPUT",
        "LONG_BINPUT", "BINGET", "LONG_BINGET", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID",
    )
)  # fmt: skip
_PUTS = ("BINPUT", "LONG_BINPUT")
_LISTS = {
    "torch.jit._pickle.build_intlist": Type("int"),
    "torch.jit._pickle.build_doublelist": Type("float"),
    "torch.jit._pickle.build_boollist": Type("bool"),
    "torch.jit._pickle.build_tensorlist": Type("Tensor"),
}
_TAGGED = "torch.jit._pickle.restore_type_tag"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_QUANTIZED = "torch._utils._rebuild_qtensor"
_TENSORS = (_TENSOR, _QUANTIZED)
_DEVICE, _COMPLEX, _HOOKS = "torch.device", "builtins.complex", "collections.OrderedDict"
_FUNCTIONS = frozenset((*_LISTS, _TAGGED, *_TENSORS, _DEVICE, _COMPLEX, _HOOKS))
_PER_TENSOR = Global("torch", "per_tensor_affine")
_PER_CHANNEL = (
    Global("torch", "per_channel_affine"),
    Global("torch", "per_channel_affine_float_qparams"),
)
_PLAIN_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float,),
    "bool": (bool,),
    "str": (str,),
    "NoneType": (type(None),),
    "None": (type(None),),
    "number": (int, float, bool),
    "Scalar": (int, float, bool),
}
# A value with the type that it has to have, None if that is unknown, and how deep it is.
_Todo = tuple[object, Type | None, int]


class NotWritten(Exception):
    """A value that PyTorch does not write. The message says what is wrong with it."""


def check_operations(operations: Iterable[Operation]) -> None:
    """Check that each opcode is one that PyTorch's pickler writes, and uses the memo as it does.

    Raises:
        NotWritten: if not.
    """
    last = ""
    for number, operation in enumerate(operations):
        name = operation.name
        if name not in _OPCODES or (name == "PROTO") != (number == 0):
            raise NotWritten(f"an opcode that PyTorch does not write: {name}")
        # PyTorch allocates as many places as the largest number: at most one for each opcode.
        # `join` leaves some out. The number of a class would be stored where its object was meant.
        if name in _PUTS and (operation.argument > number or last == "NEWOBJ"):
            raise NotWritten("a place in the memo that PyTorch does not use")
        last = name


def check_values(value: object, program: Program, *, is_model: bool) -> None:
    """Check every value of a pickle; the value of `data.pkl` is a module of the program.

    Raises:
        NotWritten: if PyTorch does not write one, or it does not fit the type of its attribute.
    """
    if is_model and not isinstance(value, Constructed):
        raise NotWritten("it is not a module")
    _Checker(program).check(value)


def tagged_types(constructed: Iterable[Constructed]) -> tuple[str, ...]:
    """Return the types that tags of lists and dicts name: PyTorch compiles the classes in them."""
    texts = dict[str, None]()
    for node in constructed:
        match node:
            case Constructed(Global("torch.jit._pickle", _), (_, str(text))):
                texts[text] = None
    return tuple(texts)


def is_known(name: Global) -> bool:
    """Return whether PyTorch's unpickler knows a name, other than those of the archive's code."""
    if name.module == "torch" and by_storage(name.name) is not None:
        return True
    return name in (_PER_TENSOR, *_PER_CHANNEL) or str(name) in _FUNCTIONS


class _Checker:
    """Checks values and those inside them. The stack of Python is not used."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._todo = list[_Todo]()
        self._visited = set[tuple[int, Type | None]]()
        self._depth = 0

    def check(self, value: object) -> None:
        """Check a value and all those inside it.

        Raises:
            NotWritten: if one is wrong.
        """
        self._add(value, None)
        while self._todo:
            node, kind, self._depth = self._todo.pop()
            if self._depth > MAX_VALUE_DEPTH:
                raise NotWritten("values that are nested deeper than in any model")
            if isinstance(node, Constructed | PickleDict | tuple | list):
                if (id(node), kind) in self._visited:
                    continue
                self._visited.add((id(node), kind))
            self._check_one(node, kind)

    def _add(self, node: object, kind: Type | None) -> None:
        """Have a value checked that is inside the present one."""
        self._todo.append((node, kind, self._depth + 1))

    def _check_one(self, node: object, kind: Type | None) -> None:
        """Check one value against its type."""
        if kind is not None:
            kind = self._alternative(node, kind)
        if kind is None:
            kind = self._own_type(node)
        if kind.name.startswith("__torch__."):
            self._check_own(node, kind)
        elif kind.name in ("List", "Dict"):
            self._check_container(node, kind)
        elif kind.name == "Tuple":
            self._check_tuple(node, kind.arguments)
        elif kind.name in _PLAIN_TYPES:
            if type(node) not in _PLAIN_TYPES[kind.name]:
                raise _misfit(node, kind)
        elif node is not None or kind.name != "Tensor":
            self._check_made(node, kind)

    def _alternative(self, node: object, kind: Type) -> Type | None:
        """Return the type that a value has to have of those that an Optional or a Union allows.

        None if any type is allowed.
        """
        if kind.name not in ("Optional", "Union"):
            if kind.name in _KNOWN or kind.name.startswith("__torch__."):
                return kind
            return None
        if node is None:
            return Type("NoneType")
        own = self._own_type(node)
        if own in kind.arguments:
            return own
        for alternative in kind.arguments:
            if self._fits(node, alternative):
                return self._alternative(node, alternative)
        raise _misfit(node, kind)

    def _fits(self, node: object, kind: Type) -> bool:
        """Return whether a value may be of a type, as far as it tells without its lists."""
        if kind.name in ("Optional", "Union"):
            is_none = node is None and kind.name == "Optional"
            return is_none or any(self._fits(node, inner) for inner in kind.arguments)
        own = self._own_type(node)
        kinds = self._item_types(kind)
        if kinds is not None:
            return own.name == "Tuple" and self._each_fits(node, kinds)
        definition = self._program.get(kind.name)
        if definition is not None and definition.base in ("Interface", "ModuleInterface"):
            return own.name.startswith("__torch__.")
        is_any = kind.name not in _KNOWN and not kind.name.startswith("__torch__.")
        return is_any or own.name == kind.name

    def _item_types(self, kind: Type) -> tuple[Type, ...] | None:
        """Return the types in a tuple, named or not, and None for any other type."""
        if kind.name == "Tuple":
            return kind.arguments
        definition = self._program.get(kind.name)
        if definition is None or definition.base != "NamedTuple":
            return None
        return tuple(definition.attributes.values())

    def _each_fits(self, node: object, kinds: tuple[Type, ...]) -> bool:
        """Return whether the items of a tuple may be of these types."""
        if not isinstance(node, tuple) or len(node) != len(kinds):
            return False
        return all(map(self._fits, node, kinds))

    def _own_type(self, node: object) -> Type:
        """Return the type that a value has by itself; that of what is in it may be unknown.

        Raises:
            NotWritten: if PyTorch never writes it.
        """
        if isinstance(node, tuple):
            return Type("Tuple", tuple(Type("Any") for _ in node))
        if isinstance(node, list):
            return Type("List", (Type("Any"),))
        if isinstance(node, PickleDict):
            return Type("Dict", (Type("Any"), Type("Any")))
        if isinstance(node, Constructed):
            return self._made_type(node)
        for name, types in _PLAIN_TYPES.items():
            if type(node) in types:
                return Type(name)
        raise NotWritten(f"a {type(node).__name__} in the place of a value")

    def _made_type(self, node: Constructed) -> Type:
        """Return the type of a value that a function makes."""
        function = node.function
        if not isinstance(function, Global):
            raise NotWritten("it calls something that is not a function")
        name = str(function)
        if function.module.split(".")[0] == "__torch__":
            return Type(name)
        if node.is_new or node.state is not None or node.items:
            raise NotWritten(f"it fills the result of {name}")
        if name in _TENSORS:
            return Type("Tensor")
        if name in _LISTS:
            return Type("List", (_LISTS[name],))
        if name == _TAGGED:
            return _tag(node)
        if name == _DEVICE:
            return Type("Device")
        if name == _COMPLEX:
            return Type("complex")
        raise NotWritten(f"it calls {name}")

    def _check_made(self, node: object, kind: Type) -> None:
        """Check a tensor, a device or a complex number."""
        if not isinstance(node, Constructed) or self._made_type(node).name != kind.name:
            raise _misfit(node, kind)
        match kind.name, node.arguments:
            case "Tensor", _:
                self._check_tensor(node)
            case "Device", (str(),):
                pass
            case "complex", (float(), float()):
                pass
            case _:
                raise NotWritten(f"a {kind.name} with other arguments")

    def _check_container(self, node: object, kind: Type) -> None:
        """Check a list or a dict, and have what is in it checked."""
        if isinstance(node, Constructed):
            made = self._made_type(node)
            match node.arguments:
                case (inner, *_) if made.name == kind.name and len(made.arguments) > 0:
                    self._add(inner, made)
                    node = inner
                case _:
                    raise _misfit(node, kind)
        if isinstance(node, list) and kind.name == "List" and len(kind.arguments) == 1:
            for item in node:
                self._add(item, kind.arguments[0])
        elif isinstance(node, PickleDict) and kind.name == "Dict" and len(kind.arguments) == 2:
            for key, value in node.items:
                self._add(key, kind.arguments[0])
                self._add(value, kind.arguments[1])
        else:
            raise _misfit(node, kind)

    def _check_tuple(self, node: object, kinds: tuple[Type, ...]) -> None:
        """Check the length of a tuple, and have its items checked."""
        if not isinstance(node, tuple) or len(node) != len(kinds):
            raise _misfit(node, Type("Tuple", kinds))
        for item, kind in zip(node, kinds, strict=True):
            self._add(item, kind)

    def _check_own(self, node: object, kind: Type) -> None:
        """Check a value of a type of the archive's own code, or of an allowed extension."""
        definition = self._program.get(kind.name)
        if definition is not None and definition.base == "NamedTuple":
            self._check_tuple(node, tuple(definition.attributes.values()))
            return
        if not isinstance(node, Constructed) or not isinstance(node.function, Global):
            raise _misfit(node, kind)
        name = str(node.function)
        if definition is not None and definition.base == "Enum":
            if name != kind.name or node.is_new or not _is_member(node.arguments, definition):
                raise _misfit(node, kind)
            return
        own = self._program.get(name)
        if definition is not None and definition.base in ("Interface", "ModuleInterface"):
            if own is None or not _implements(own, definition):
                raise _misfit(node, kind)
        elif name != kind.name:
            raise _misfit(node, kind)
        self._check_object(node, name, own)

    def _check_object(self, node: Constructed, name: str, definition: Definition | None) -> None:
        """Check that an object has the attributes of its class, or a state that the class takes."""
        if not node.is_new or node.arguments != () or node.items:
            raise NotWritten(f"an object of {name} that is made in another way")
        if definition is None:
            if name not in CLASSES:
                raise NotWritten(f"an object of {name}, which the code does not define")
            self._add(node.state, None)
        elif definition.base not in ("", "Module"):
            raise NotWritten(f"an object of {name}, which is no class")
        elif "__getstate__" in definition.methods:
            setter = definition.methods.get("__setstate__")
            if setter is None or len(setter.parameters) != 2:
                raise NotWritten(f"a state of {name}, which takes none")
            self._add(node.state, setter.parameters[1])
        else:
            self._check_attributes(node, name, definition)

    def _check_attributes(self, node: Constructed, name: str, definition: Definition) -> None:
        """Check that an object has each attribute of its class once, and no others."""
        if not isinstance(node.state, PickleDict):
            raise NotWritten(f"an object of {name} without attributes")
        keys = [key for key, _ in node.state.items]
        if not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
            raise NotWritten(f"an object of {name} with an attribute twice")
        if set(keys) != set(definition.attributes):
            raise NotWritten(f"an object of {name} with other attributes than its class")
        for key, value in node.state.items:
            self._add(value, definition.attributes[str(key)])

    def _check_tensor(self, node: Constructed) -> None:
        """Check how a tensor is made; that it lies inside its record is checked elsewhere."""
        is_quantized = name_of(node.function) == _QUANTIZED
        match node.arguments:
            case (Persistent() as storage, int(), tuple(sizes), tuple(), *rest):
                if _is_quantized(storage) != is_quantized:
                    raise NotWritten("a tensor of another kind than its storage")
                if is_quantized:
                    self._check_quantizer(rest[:1], sizes)
                    rest = rest[1:]
                _check_end(rest)
            case _:
                raise NotWritten("a tensor that is not built from a storage")

    def _check_quantizer(self, arguments: list[object], sizes: tuple[object, ...]) -> None:
        """Check the scales and zero points of a quantized tensor: one each, or one a channel."""
        match arguments:
            case [(scheme, float(), int())] if scheme == _PER_TENSOR:
                return
            case [(scheme, scales, zero_points, int(axis))] if scheme in _PER_CHANNEL:
                if 0 <= axis < len(sizes):
                    channels = sizes[axis]
                    if _element_count(scales) == _element_count(zero_points) == channels:
                        self._add(scales, Type("Tensor"))
                        self._add(zero_points, Type("Tensor"))
                        return
        raise NotWritten("a quantized tensor whose scales do not fit its sizes")


_KNOWN = ("List", "Dict", "Tuple", "Tensor", "Device", "complex", *_PLAIN_TYPES)


def _misfit(node: object, kind: Type) -> NotWritten:
    """Return the error for a value that is not of the type that it has to have."""
    found = type(node).__name__
    if isinstance(node, Constructed):
        found = name_of(node.function)
    return NotWritten(f"{found} in the place of {kind.name}")


def _tag(node: Constructed) -> Type:
    """Return the type in the tag of a list or dict."""
    match node.arguments:
        case (list() | PickleDict(), str(text)):
            try:
                kind = read_type(text)
            except NotPrinted as error:
                raise NotWritten(f"a type with {error}") from None
            if kind.name in ("List", "Dict"):
                return kind
    raise NotWritten("a tag that is not the type of a list or dict")


def _is_quantized(storage: Persistent) -> bool:
    """Return whether a storage is of a quantized dtype."""
    match storage.key:
        case ("storage", Global("torch", name), str(), str(), int()):
            dtype = by_storage(name)
            if dtype is not None:
                return dtype.name.startswith("q")
    raise NotWritten("a storage of a class that PyTorch does not know")


def _check_end(arguments: list[object]) -> None:
    """Check the last arguments of a tensor: whether it needs a gradient, hooks, and flags."""
    match arguments:
        case [bool(), Constructed(Global() as hooks, (), False, None, [])]:
            flags: object = PickleDict()
        case [bool(), Constructed(Global() as hooks, (), False, None, []), flags]:
            pass
        case _:
            raise NotWritten("a tensor with other arguments than PyTorch writes")
    match flags:
        case Constructed(Global("torch.jit._pickle", "restore_type_tag"), (tagged, _)):
            flags = tagged
    match flags:
        case PickleDict(items) if all(_is_flag(key, value) for key, value in items):
            if str(hooks) == _HOOKS:
                return
    raise NotWritten("a tensor with flags that PyTorch does not write")


def _is_flag(key: object, value: object) -> bool:
    """Return whether this is a flag of a tensor: that it is a view of conjugated values, or so."""
    return key in ("conj", "neg") and type(value) is bool


def _element_count(node: object) -> int | None:
    """Return how many elements a tensor of one dimension has."""
    match node:
        case Constructed(Global() as function, (_, _, (int(count),), *_)):
            if str(function) == _TENSOR:
                return count
    return None


def _is_member(value: object, definition: Definition) -> bool:
    """Return whether a value is that of a member of an enum: 1 is not True here."""
    return any(type(member) is type(value) and member == value for member in definition.members)


def _implements(definition: Definition, interface: Definition) -> bool:
    """Return whether a class has the methods of an interface, with the same signatures."""
    for name, expected in interface.methods.items():
        found = definition.methods.get(name)
        if found is None or not _overrides(found, expected):
            return False
    return True


def _overrides(found: Signature, expected: Signature) -> bool:
    """Return whether a method takes what another takes, and returns what that returns.

    The first parameter of each is `self`.
    """
    taken = found.parameters[1:]
    given = expected.parameters[1:]
    if len(taken) != len(given) or not _is_within(found.returns, expected.returns):
        return False
    return all(map(_is_within, given, taken))


def _is_within(kind: Type | None, outer: Type | None) -> bool:
    """Return whether each value of a type is one of another that is the same or has it inside."""
    if kind == outer:
        return True
    if kind is None or outer is None:
        return False
    if outer.name not in ("Optional", "Union"):
        return outer.name == "Any"
    if kind.name in ("None", "NoneType") and outer.name == "Optional":
        return True
    return any(_is_within(kind, inner) for inner in outer.arguments)
