"""Tensors in a parsed pickle: their dtypes and sizes, without their storages."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.core.dtypes import DType, by_name, by_storage
from composecli.core.pytree import Literal, Opaque, TensorSpec, Tree, TreeMapping, TreeSequence
from composecli.files.pickle import Constructed, Global, Persistent, PickleDict, name_of

_REBUILD = "torch._utils._rebuild_"
MAX_DEPTH = 64
MAX_NODES = 100_000


def tree_of(node: object) -> Tree:
    """Return the tensors and containers that unpickling `node` would create."""
    return _Reader().read(node, 0)


def dtype_of(storage_class: object, arguments: tuple[object, ...]) -> DType | None:
    """Return the dtype of a tensor: that of its storage class, or the one in its arguments.

    `arguments` are those behind the strides. For dtypes without a storage class in torch, the
    storage is untyped and the third of them is the dtype:

        _rebuild_tensor_v3(storage, offset, sizes, strides, requires_grad, hooks, torch.uint16)
    """
    if not isinstance(storage_class, Global):
        return None
    dtype = by_storage(storage_class.name)
    if dtype is not None:
        return dtype
    match arguments:
        case (_, _, Global("torch", name), *_):
            return by_name(name)
    return None


@dataclass
class _Reader:
    """Counts nodes while it reads: lists that contain each other are an endless tree."""

    nodes: int = 0

    def read(self, node: object, depth: int) -> Tree:
        """Return the tree of a node that is `depth` levels below the root."""
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            return Opaque("more nesting than any model has")
        if node is None or isinstance(node, bool | int | float | str):
            return Literal(node)
        if isinstance(node, tuple):
            return TreeSequence("tuple", self._items(node, depth))
        if isinstance(node, list):
            return TreeSequence("list", self._items(node, depth))
        if isinstance(node, PickleDict):
            return self._mapping(node.items, depth)
        if isinstance(node, Constructed):
            return self._constructed(node, depth)
        return Opaque(type(node).__name__)

    def _items(self, node: tuple[object, ...] | list[object], depth: int) -> tuple[Tree, ...]:
        """Return the trees of the items, one level deeper."""
        trees = [self.read(item, depth + 1) for item in node]
        return tuple(trees)

    def _mapping(self, items: list[tuple[object, object]], depth: int) -> Tree:
        """Return a mapping whose keys are texts, as messages show them."""
        entries = list[tuple[str, Tree]]()
        for key, value in items:
            entries.append((name_of(key), self.read(value, depth + 1)))
        return TreeMapping(tuple(entries))

    def _constructed(self, node: Constructed, depth: int) -> Tree:
        """Return the tree of a tensor, parameter or known container; opaque for others."""
        function, arguments = node.function, node.arguments
        if not isinstance(function, Global):
            return Opaque("object")
        if not isinstance(arguments, tuple):
            return Opaque(str(function))
        match function.module, function.name:
            case "torch._utils", (
                "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" | "_rebuild_qtensor"
            ):
                return _tensor(arguments)
            case "torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state":
                if not arguments or not _is_tensor(arguments[0]):
                    return Opaque("Parameter")
                return self.read(arguments[0], depth + 1)
            case "collections", "OrderedDict":
                return self._mapping(node.items, depth)
            # TorchScript wraps containers to record the types of their elements.
            case _, "restore_type_tag" if arguments:
                return self.read(arguments[0], depth + 1)
        return Opaque(str(function))


def _is_tensor(node: object) -> bool:
    """Return whether a node is a tensor or a parameter, and no container of them."""
    return isinstance(node, Constructed) and name_of(node.function).startswith(_REBUILD)


def _tensor(arguments: tuple[object, ...]) -> Tree:
    """Return the spec of a tensor from the arguments of its rebuild function."""
    match arguments:
        case (Persistent(("storage", storage_class, *_)), _, tuple(sizes), _, *rest):
            dtype = dtype_of(storage_class, tuple(rest))
            are_integers = all(isinstance(size, int) for size in sizes)
            if dtype is not None and are_integers:
                numbers = [int(str(size)) for size in sizes]
                return TensorSpec(dtype.name, tuple(numbers))
    return Opaque("Tensor")
