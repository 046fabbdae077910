"""Tensors in a walked pickle: their dtypes and sizes, without their storages."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.core.pytree import Literal, Opaque, TensorSpec, Tree, TreeMapping, TreeSequence
from composecli.files.pickle import Constructed, Global, Persistent, PickleDict

STORAGE_DTYPES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}  # fmt: skip
DEEPEST = 64
MOST_NODES = 1_000_000


def tree_of(node: object) -> Tree:
    """The tensors and containers that unpickling `node` would give."""
    return _Reader().tree(node, 0)


@dataclass
class _Reader:
    """Counts nodes as it goes: a few that hold each other twice are a tree without end."""

    nodes: int = 0

    def tree(self, node: object, depth: int) -> Tree:
        self.nodes += 1
        if depth > DEEPEST or self.nodes > MOST_NODES:
            return Opaque("a nest larger than any model takes")
        if node is None or isinstance(node, bool | int | float | str):
            return Literal(node)
        if isinstance(node, tuple | list):
            items = tuple(self.tree(item, depth + 1) for item in node)
            return TreeSequence("tuple" if isinstance(node, tuple) else "list", items)
        if isinstance(node, PickleDict):
            return self._entries(node.items, depth)
        if isinstance(node, Constructed):
            return self._made(node, depth)
        return Opaque(type(node).__name__)

    def _entries(self, items: list[tuple[object, object]], depth: int) -> Tree:
        return TreeMapping(tuple((str(key), self.tree(value, depth + 1)) for key, value in items))

    def _made(self, node: Constructed, depth: int) -> Tree:
        arguments = node.arguments
        if isinstance(node.maker, Global) and isinstance(arguments, tuple):
            match node.maker.module, node.maker.name:
                case "torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor":
                    return _tensor(arguments)
                case "torch._utils", "_rebuild_parameter":
                    return self.tree(arguments[0], depth + 1) if arguments else Opaque("Parameter")
                case "collections", "OrderedDict":
                    return self._entries(node.items, depth)
        tagged = isinstance(node.maker, Global) and node.maker.name == "restore_type_tag"
        if tagged and isinstance(arguments, tuple) and arguments:
            return self.tree(arguments[0], depth + 1)
        return Opaque(str(node.maker) if isinstance(node.maker, Global) else "object")


def _tensor(arguments: tuple[object, ...]) -> Tree:
    match arguments:
        case (Persistent(("storage", Global(_, storage), *_)), _, tuple(sizes), *_) if all(
            isinstance(size, int) for size in sizes
        ):
            dtype = STORAGE_DTYPES.get(storage)
            if dtype is not None:
                return TensorSpec(dtype, tuple(int(str(size)) for size in sizes))
    return Opaque("Tensor")
