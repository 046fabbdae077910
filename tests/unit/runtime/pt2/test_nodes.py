"""Ops of exported programs, read from JSON and run on values by name."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from composecli.runtime.pt2.nodes import (
    ArgumentReader,
    Environment,
    Unsupported,
    names_in,
    read_nodes,
)
from composecli.runtime.pt2.schema import Argument, Node

POSITIONAL, KEYWORD = 1, 2


def argument(value: Any, name: str = "self", kind: int | None = POSITIONAL) -> dict[str, Any]:
    return {"name": name, "arg": value, "kind": kind}


def tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


def node(target: str, inputs: list[Any], outputs: list[Any]) -> Node:
    return cast(Node, {"target": target, "inputs": inputs, "outputs": outputs})


def run(nodes: list[Node], values: Environment, *kept: str) -> Environment:
    for call in read_nodes(nodes, "cpu", set(kept)):
        call.run(values)
    return values


def test_values_are_removed_after_their_last_use() -> None:
    nodes = [
        node("torch.ops.aten.relu.default", [argument(tensor("x"))], [tensor("a")]),
        node("torch.ops.aten.neg.default", [argument(tensor("a"))], [tensor("b")]),
        node(
            "torch.ops.aten.add.Tensor",
            [argument(tensor("a")), argument(tensor("b"), "other")], [tensor("c")],
        ),
        node("torch.ops.aten.abs.default", [argument(tensor("c"))], [tensor("unused")]),
    ]  # fmt: skip
    calls = list(read_nodes(nodes, "cpu", {"c"}))
    assert [call.last_used for call in calls] == [("x",), (), ("a", "b"), ("unused",)]
    assert run(nodes, {"x": torch.ones(2)}, "c").keys() == {"c"}


def test_an_argument_is_passed_by_position_or_by_keyword() -> None:
    softmax = node(
        "torch.ops.aten.sum.dim_IntList",
        [
            argument(tensor("x")),
            argument({"as_ints": [1]}, "dim"),
            argument({"as_scalar_type": 8}, "dtype", KEYWORD),
        ],
        [tensor("y")],
    )
    y = run([softmax], {"x": torch.ones(2, 3)}, "y")["y"]
    assert torch.equal(y, torch.full((2,), 3.0, dtype=torch.float64))


def test_several_results_and_lists_of_results_get_their_names() -> None:
    nodes = [
        node(
            "torch.ops.aten.topk.default",
            [argument(tensor("x")), argument({"as_int": 2}, "k")], [tensor("top"), tensor("where")],
        ),
        node(
            "torch.ops.aten.split.Tensor",
            [argument(tensor("x")), argument({"as_int": 2}, "split_size")],
            [{"as_tensors": [{"name": "one"}, {"name": "two"}]}],
        ),
    ]  # fmt: skip
    values = run(nodes, {"x": torch.tensor([3.0, 1.0, 2.0])}, "top", "where", "one", "two")
    results = {name: values[name].tolist() for name in ("top", "where", "one", "two")}
    assert results == {"top": [3, 2], "where": [0, 2], "one": [3, 1], "two": [2]}


def test_sizes_are_computed_by_python_functions() -> None:
    size = node(
        "torch.ops.aten.sym_size.int",
        [argument(tensor("x")), argument({"as_int": 0}, "dim")], [{"as_sym_int": {"as_name": "n"}}],
    )  # fmt: skip
    double = node(
        "_operator.mul",
        [argument({"as_sym_int": {"as_name": "n"}}, "a"), argument({"as_int": 2}, "b")],
        [{"as_sym_int": {"as_name": "m"}}],
    )
    assert run([size, double], {"x": torch.ones(5)}, "m")["m"] == 10


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"as_none": True}, None),
        ({"as_int": 3}, 3),
        ({"as_floats": [1.5, 2.0]}, [1.5, 2.0]),
        ({"as_string": "mean"}, "mean"),
        ({"as_int_lists": [[1], [2, 3]]}, [[1], [2, 3]]),
        ({"as_complex": {"real": 1.0, "imag": -2.0}}, 1 - 2j),
        ({"as_scalar_type": 7}, torch.float32),
        ({"as_scalar_type": 28}, torch.uint16),
        ({"as_memory_format": 2}, torch.channels_last),
        ({"as_layout": 7}, torch.strided),
        ({"as_device": {"type": "cuda", "index": 1}}, torch.device("cpu")),
        ({"as_tensor": {"name": "x"}}, "the value of x"),
        ({"as_optional_tensor": {"as_tensor": {"name": "x"}}}, "the value of x"),
        ({"as_optional_tensor": {"as_none": True}}, None),
        ({"as_sym_int": {"as_name": "n"}}, 5),
        ({"as_sym_int": {"as_int": 4}}, 4),
        ({"as_sym_ints": [{"as_name": "n"}, {"as_int": 4}]}, [5, 4]),
        ({"as_sym_float": {"as_float": 0.5}}, 0.5),
        ({"as_sym_bool": {"as_bool": False}}, False),
        ({"as_tensors": [{"name": "x"}, {"name": "x"}]}, ["the value of x"] * 2),
        (
            {"as_optional_tensors": [{"as_none": True}, {"as_tensor": {"name": "x"}}]},
            [None, "the value of x"],
        ),
    ],
)
def test_arguments_of_every_kind_are_read(value: Any, expected: object) -> None:
    getter = ArgumentReader("cpu").read(cast(Argument, value))
    assert getter({"x": "the value of x", "n": 5}) == expected


@pytest.mark.parametrize(
    "value",
    [
        {"as_graph": {"name": "true_graph", "graph": {}}},
        {"as_custom_obj": {"name": "obj", "class_fqn": "__torch__.X"}},
        {"as_scalar_type": 99},
        {"as_memory_format": 9},
        {"as_layout": 2},
        {"as_operator": "torch.ops.aten.add"},
    ],
)
def test_other_kinds_of_arguments_are_named(value: dict[str, Any]) -> None:
    (kind,) = value
    with pytest.raises(Unsupported, match=f"^an argument of the kind {kind}$"):
        ArgumentReader("cpu").read(cast(Argument, value))


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        ("torch.ops.higher_order.cond", POSITIONAL, "the op torch.ops.higher_order.cond"),
        ("builtins.eval", POSITIONAL, "the op builtins.eval"),
        ("torch.ops.aten.relu", POSITIONAL, "the op torch.ops.aten.relu"),
        ("torch.ops.aten.relu.default", None, "arguments of an older schema"),
    ],
)
def test_ops_that_only_torch_export_runs_are_named(
    target: str, kind: int | None, message: str
) -> None:
    with pytest.raises(Unsupported, match=f"^{message}$"):
        list(read_nodes([node(target, [argument(tensor("x"), kind=kind)], [])], "cpu", set()))


def test_names_are_found_at_any_depth() -> None:
    json = [tensor("a"), {"as_tensors": [{"name": "b"}]}, {"as_sym_int": {"as_name": "c"}}, 3, None]
    assert list(names_in(json)) == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["Infinity", "-Infinity", "NaN"])
@pytest.mark.parametrize("symbolic", [False, True])
def test_a_float_that_json_cannot_hold_is_read_from_its_text(text: str, symbolic: bool) -> None:
    value: dict[str, Any] = {"as_float": text}
    if symbolic:
        value = {"as_sym_float": value}
    fill = argument(value, "value")
    inputs = [argument(tensor("x")), argument(tensor("mask"), "mask"), fill]
    masked = node("torch.ops.aten.masked_fill.Scalar", inputs, [tensor("out")])
    values = {"x": torch.zeros(2), "mask": torch.tensor([True, False])}
    result = run([masked], values, "out")["out"]
    expected = torch.tensor([float(text), 0.0])
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result.nan_to_num(), expected.nan_to_num())
