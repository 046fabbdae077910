"""Tensors in a parsed pickle."""

from __future__ import annotations

import torch

from composecli.core.pytree import Literal, Opaque, TensorSpec, TreeMapping, TreeSequence
from composecli.files.pickle import Constructed, Global, Persistent, parse
from composecli.files.pickle_tree import MAX_DEPTH, tree_of
from tests.unit.files.pickles import data_pkl


def test_tensors_are_read_with_their_sizes() -> None:
    held = {"a": torch.zeros(2, 3), "b": [torch.zeros(4, dtype=torch.int64), 5]}
    assert tree_of(parse(data_pkl(held)).value) == TreeMapping(
        (
            ("a", TensorSpec("float32", (2, 3))),
            ("b", TreeSequence("list", (TensorSpec("int64", (4,)), Literal(5)))),
        )
    )


def rebuild(function: str, storage: str, *arguments: object) -> Constructed:
    reference = Persistent(("storage", Global("torch", storage), "0", "cpu", 6))
    return Constructed(Global("torch._utils", function), (reference, 0, (2, 3), (3, 1), *arguments))


def test_the_dtype_is_in_the_storage_class_or_in_the_arguments() -> None:
    typed = rebuild("_rebuild_tensor_v2", "HalfStorage", False, None)
    untyped = rebuild(
        "_rebuild_tensor_v3", "UntypedStorage", False, None, Global("torch", "uint16")
    )
    unknown = rebuild("_rebuild_tensor_v2", "UntypedStorage", False, None)
    assert tree_of(typed) == TensorSpec("float16", (2, 3))
    assert tree_of(untyped) == TensorSpec("uint16", (2, 3))
    assert tree_of(unknown) == Opaque("Tensor")


def test_parameters_and_tagged_containers_are_unwrapped() -> None:
    tensor = rebuild("_rebuild_tensor_v2", "FloatStorage")
    parameter = Constructed(Global("torch._utils", "_rebuild_parameter"), (tensor, True, None))
    tagged = Constructed(Global("torch.jit._pickle", "restore_type_tag"), ([tensor], "List"))
    assert tree_of(parameter) == TensorSpec("float32", (2, 3))
    assert tree_of(tagged) == TreeSequence("list", (TensorSpec("float32", (2, 3)),))


def test_an_endless_tree_is_cut_off() -> None:
    endless: list[object] = []
    endless.append(endless)
    tree = tree_of(endless)
    for _ in range(MAX_DEPTH + 1):
        assert isinstance(tree, TreeSequence)
        tree = tree.items[0]
    assert isinstance(tree, Opaque)
