"""Pickles with a value that is hard to write out, in each place where a reader looks at one."""

from __future__ import annotations

from collections.abc import Callable

from tests.safety.fixtures import text

# Opcodes of a value: lists that hold the next one twice, 60 levels deep; the same of dicts and of
# objects; an integer of 5,000 digits; an object whose function is the result of another call, 1,200
# times; and a list that holds itself.
VALUES = {
    "shared lists": b"]q\x00" + b"0]h\x00ah\x00aq\x00" * 60,
    "shared dicts": b"}q\x00" + b"0}K\x00h\x00sK\x01h\x00sq\x00" * 60,
    "shared objects": b"cbuiltins\nset\nq\x01)Rq\x00" + b"0h\x01h\x00h\x00\x86Rq\x00" * 60,
    "a long integer": b"\x8b" + (2100).to_bytes(4, "little") + b"\x7f" * 2100,
    "a deep object": b"cbuiltins\nset\n)R" + b")R" * 1200,
    "an endless list": b"]q\x00h\x00a",
}
LINEAR = b"ctorch.nn.modules.linear\nLinear\n)\x81"
ORDERED_DICT = b"ccollections\nOrderedDict\n"
MODULES = text("_modules") + b"}"
BUFFERS = text("_buffers") + b"}"
STORAGE = text("storage") + b"ctorch\nFloatStorage\n"
REFERENCE = b"(" + STORAGE + text("0") + text("cpu") + b"K\x10tQ"


def tensor(
    reference: bytes = REFERENCE, offset: bytes = b"K\x00", sizes: bytes = b"K\x04\x85"
) -> bytes:
    """Return the opcodes of a tensor, from those of its storage, its offset and its sizes."""
    numbers = offset + sizes + b"K\x01\x85\x89" + ORDERED_DICT + b")R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + numbers + b"tR"


# Opcodes of a pickle, from those of a value in it.
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "a function": lambda value: value + b")R",
    "a class": lambda value: value + b")\x81",
    "a function beside a weight": lambda value: (
        b"}" + text("w") + tensor() + b"s" + text("a") + value + b")Rs"
    ),
    "a key": lambda value: b"}" + text("w") + tensor() + b"s" + value + b"K\x01s",
    "an attribute": lambda value: LINEAR + b"}" + MODULES + b"s" + value + b"K\x01sb",
    "the name of a submodule": lambda value: LINEAR + b"}" + MODULES + value + b"K\x01ssb",
    "the name of a parameter": lambda value: (
        LINEAR + b"}(" + MODULES + text("_parameters") + b"}" + value + tensor() + b"sub"
    ),
    "the value of an attribute": lambda value: (
        LINEAR + b"}(" + MODULES + text("foo") + value + b"ub"
    ),
    "the hooks": lambda value: LINEAR + b"}(" + MODULES + text("_forward_hooks") + value + b"ub",
    "the buffers that are not saved": lambda value: (
        LINEAR
        + b"}("
        + MODULES
        + BUFFERS
        + text("_non_persistent_buffers_set")
        + b"cbuiltins\nset\n"
        + value
        + b"\x85Rub"
    ),
    "a state": lambda value: LINEAR + value + b"b",
    "the arguments of a dict": lambda value: ORDERED_DICT + value + b"R",
    "the pairs of a dict": lambda value: ORDERED_DICT + value + b"\x85R",
    "the arguments of a tensor": lambda value: (
        b"ctorch._utils\n_rebuild_tensor_v2\n" + value + b"R"
    ),
    "a parameter": lambda value: b"ctorch._utils\n_rebuild_parameter\n" + value + b"\x85R",
    "a tensor with a class": lambda value: (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(" + value + b"NNNtR"
    ),
    "a reference": lambda value: value + b"Q",
    "the key of a storage": lambda value: b"(" + STORAGE + value + text("cpu") + b"K\x01tQ",
    "the device of a storage": lambda value: b"(" + STORAGE + text("0") + value + b"K\x10tQ",
    "the length of a storage": lambda value: tensor(
        b"(" + STORAGE + text("0") + text("cpu") + value + b"tQ"
    ),
    "the sizes of a tensor": lambda value: tensor(sizes=value + b"\x85"),
    "the offset of a tensor": lambda value: tensor(offset=value),
    "an attribute of TorchScript": lambda value: b"c__torch__\nModel\n)\x81}" + value + b"K\x01sb",
    "a value of TorchScript": lambda value: (
        b"c__torch__\nModel\n)\x81}" + text("training") + value + b"sb"
    ),
    "a list of TorchScript": lambda value: (
        b"ctorch.jit._pickle\nrestore_type_tag\n" + value + text("List[int]") + b"\x86R"
    ),
    "the type of a list": lambda value: (
        b"ctorch.jit._pickle\nrestore_type_tag\n]" + value + b"\x86R"
    ),
    "the module of an import": lambda value: value + text("a") + b"\x93",
    "an item of a set": lambda value: b"cbuiltins\nset\n]\x85R(" + value + b"\x90",
    "the versions of a state dict": lambda value: (
        ORDERED_DICT + b")R" + text("w") + tensor() + b"s}" + text("_metadata") + value + b"sb"
    ),
    "the class of an old object": lambda value: (
        b"ccopy_reg\n_reconstructor\n" + value + b"\x85R}" + MODULES + b"sb"
    ),
}

LISTS = b"]q\x00(" + b"]" * 6000 + b"e"
EMPTY_MODULE = LINEAR + b"}" + MODULES + b"sb"
# Of a dict with many entries: the opcodes of a value that they share, and of one entry.
SHARED = {
    "parameters of one list": (LISTS, b"ctorch._utils\n_rebuild_parameter\nh\x00\x85R"),
    "tensors with the same flags": (LISTS, tensor()[:-2] + b"h\x00tR"),
    "dicts with parameters of one list": (
        LISTS,
        b"}" + text("w") + b"ctorch._utils\n_rebuild_parameter\nh\x00\x85Rs",
    ),
    "modules with the same submodules": (
        b"}q\x00(" + b"".join(text(str(name)) + EMPTY_MODULE for name in range(200)) + b"u",
        LINEAR + b"}" + text("_modules") + b"h\x00sb",
    ),
    "modules of another class": (b"N", b"clibrary\nNet\n)\x81}" + MODULES + b"sb"),
}


def pickle_of_many(name: str) -> bytes:
    """Return a pickle of a dict with 400 entries that share a large value."""
    shared, entry = SHARED[name]
    entries = b"".join(text(f"w{number}") + entry for number in range(400))
    return b"\x80\x02}" + text("shared") + shared + b"s(" + entries + b"u."


def pickle_with(value: str, place: str) -> bytes:
    """Return the pickle with a value in a place."""
    return b"\x80\x02" + PLACES[place](VALUES[value]) + b"."
