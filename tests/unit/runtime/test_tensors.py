"""Values for specs, and trees for results."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch

from composecli.core.pytree import (
    Argument,
    Call,
    Literal,
    Opaque,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
)
from composecli.runtime.tensors import (
    Maker,
    Values,
    dtype_of,
    identity_of,
    is_integer,
    spec_of,
    storage_of,
    tensors_in,
    tree_of,
    zeros_like,
)

X = TensorSpec("float32", (2, 3))
IDS = TensorSpec("int64", (50,), below=100)


class Point(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


def call(*values: Tree, **named: Tree) -> Call:
    positional = [Argument(value) for value in values]
    return Call((*positional, *(Argument(value, name) for name, value in named.items())))


def made(tree: Tree, *, device: str = "cpu", seed: int = 0) -> Any:
    return Maker(device, seed, []).call(call(tree)).positional[0]


def test_arguments_are_made_by_position_and_by_name() -> None:
    values = Maker("cpu", 0, []).call(call(X, Literal(3), mask=TensorSpec("bool", (2,))))
    assert [spec_of(values.positional[0]), values.positional[1]] == [X, 3]
    assert values.named["mask"].dtype is torch.bool
    assert len(values.flat()) == 3


def test_the_same_seed_makes_the_same_values() -> None:
    assert torch.equal(made(X, seed=1), made(X, seed=1))
    assert not torch.equal(made(X, seed=1), made(X, seed=2))


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "complex64", "int64", "uint8", "bool"]
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_values_have_the_dtype_sizes_and_device_of_their_spec(dtype: str, device: str) -> None:
    spec = TensorSpec(dtype, (4, 1))
    tensor = made(spec, device=device)
    assert spec_of(tensor) == spec
    assert tensor.device.type == device


def test_ids_come_from_the_upper_half_of_a_vocabulary_and_from_all_of_a_small_one() -> None:
    ids = made(IDS)
    assert int(ids.min()) >= 50
    assert int(ids.max()) < 100
    assert set(made(TensorSpec("int64", (50,), below=2)).tolist()) == {0, 1}


def test_a_sample_is_used_only_at_its_own_sizes() -> None:
    sample = torch.full((2, 3), 7.0)
    maker = Maker("cpu", 0, [sample])
    same, other = TensorSpec("float32", (2, 3), sample=0), TensorSpec("float32", (2, 4), sample=0)
    values = maker.call(call(same, other))
    assert torch.equal(values.positional[0], sample)
    assert values.positional[1].shape == (2, 4)


def test_structures_are_made_as_they_are_described() -> None:
    tree = TreeMapping((("a", TreeSequence("list", (X, Literal(None)))), ("b", Literal("text"))))
    value = made(tree)
    assert value["a"][1] is None
    assert value["b"] == "text"
    assert isinstance(value["a"], list)
    assert isinstance(made(TreeSequence("tuple", (X,))), tuple)


def test_no_value_is_made_for_an_object_of_a_library() -> None:
    with pytest.raises(TypeError, match="cannot create a value for a DynamicCache"):
        made(Opaque("DynamicCache"))


@pytest.mark.parametrize("name", ["float23", "nn", ""])
def test_an_unknown_dtype_is_an_error(name: str) -> None:
    with pytest.raises(TypeError, match="torch has no dtype"):
        dtype_of(name)


@pytest.mark.parametrize(
    ("value", "tree"),
    [
        (torch.ones(2, 3), X),
        (torch.ones(2, 3, device="meta"), X),
        (None, Literal(None)),
        (True, Literal(True)),
        ((torch.ones(2, 3), 4), TreeSequence("tuple", (X, Literal(4)))),
        ([torch.ones(2, 3)], TreeSequence("list", (X,))),
        (Point(torch.ones(2, 3), torch.ones(2, 3)), TreeSequence("tuple", (X, X), ("x", "y"))),
        ({"a": torch.ones(2, 3)}, TreeMapping((("a", X),))),
        ({1: 2.0}, TreeMapping((("1", Literal(2.0)),))),
        (OrderedDict(a=1), TreeMapping((("a", Literal(1)),), "OrderedDict")),
        ({1, 2}, Opaque("set")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_results_become_trees(value: Any, tree: Tree) -> None:
    assert tree_of(value) == tree


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_has_no_sizes() -> None:
    nested = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])
    assert tree_of([nested]) == TreeSequence("list", (Opaque("nested tensor"),))


def test_a_result_that_contains_itself_has_an_end() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "Opaque(type_name='list')" in repr(tree_of(endless))


def test_zeros_keep_the_structure_and_everything_but_tensors() -> None:
    one = torch.ones(2)
    values = Values((one, [one, 3]), {"point": Point(one, one), "flag": True})
    zeros = zeros_like(values)
    assert isinstance(zeros, Values)
    assert isinstance(zeros.named["point"], Point)
    assert zeros.positional[1][1] == 3
    assert zeros.named["flag"] is True
    assert [int(tensor.sum()) for tensor in tensors_in(zeros)] == [0, 0, 0, 0]
    assert int(one.sum()) == 2


def test_tensors_are_found_in_order() -> None:
    first, second, third = torch.ones(1), torch.ones(2), torch.ones(3)
    assert tensors_in({"a": first, "b": ([second], 4, "text", third)}) == [first, second, third]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_views_share_a_storage_and_only_equal_views_are_the_same_tensor(device: str) -> None:
    tensor = torch.ones(4, 4, device=device)
    assert storage_of(tensor) == storage_of(tensor[1:]) == storage_of(tensor.t())
    assert storage_of(tensor) != storage_of(torch.ones(4, 4, device=device))
    assert identity_of(tensor) == identity_of(tensor.view(4, 4))
    assert identity_of(tensor) != identity_of(tensor[1:])
    assert identity_of(tensor) != identity_of(tensor.t())


def test_a_sparse_tensor_is_identified_by_itself() -> None:
    sparse = torch.eye(3).to_sparse()
    assert identity_of(sparse) == identity_of(sparse)
    assert identity_of(sparse) != identity_of(torch.eye(3).to_sparse())


@pytest.mark.parametrize(("value", "expected"), [(3, True), (True, False), (3.0, False)])
def test_booleans_are_not_integers(value: object, expected: bool) -> None:
    assert is_integer(value) is expected
