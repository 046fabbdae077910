"""The inputs and outputs of exported programs: lifted tensors, arguments and mutations."""

from __future__ import annotations

from typing import Any, cast

import pytest
from torch.utils._pytree import tree_structure

from composecli.runtime.pt2.nodes import Unsupported
from composecli.runtime.pt2.schema import InputSpec, OutputSpec
from composecli.runtime.pt2.signature import (
    LiftedTensor,
    Mutation,
    argument_names,
    keyword_names,
    lifted_tensors,
    mutations,
    user_inputs,
    user_outputs,
)


def inputs(*specs: dict[str, Any]) -> list[InputSpec]:
    return [cast(InputSpec, spec) for spec in specs]


def outputs(*specs: dict[str, Any]) -> list[OutputSpec]:
    return [cast(OutputSpec, spec) for spec in specs]


WEIGHT = {"parameter": {"arg": {"name": "p_weight"}, "parameter_name": "fc.inner.weight"}}
BUFFER = {"buffer": {"arg": {"name": "b_count"}, "buffer_name": "count", "persistent": True}}
CONSTANT = {"tensor_constant": {"arg": {"name": "c_table"}, "tensor_constant_name": "table"}}
X = {"user_input": {"arg": {"as_tensor": {"name": "x"}}}}
SIZE = {"user_input": {"arg": {"as_sym_int": {"as_name": "n"}}}}
NUMBER = {"user_input": {"arg": {"as_int": 3}}}
FLAG = {"constant_input": {"name": "flag", "value": {"as_bool": True}}}
RESULT = {"user_output": {"arg": {"as_tensor": {"name": "add"}}}}


def test_lifted_tensors_have_the_paths_that_they_had_in_the_model() -> None:
    assert list(lifted_tensors(inputs(WEIGHT, BUFFER, CONSTANT, X, FLAG))) == [
        LiftedTensor("p_weight", "fc.inner", "weight", parameter=True),
        LiftedTensor("b_count", "", "count", parameter=False),
        LiftedTensor("c_table", "", "table", parameter=False),
    ]


@pytest.mark.parametrize("kind", ["custom_obj", "token"])
def test_an_input_of_another_kind_is_named(kind: str) -> None:
    with pytest.raises(Unsupported, match=f"^an input of the kind {kind}$"):
        list(lifted_tensors(inputs(X, {kind: {"arg": {"name": "obj"}}})))


def test_inputs_of_the_user_are_named_in_order() -> None:
    assert list(user_inputs(inputs(WEIGHT, X, SIZE, FLAG))) == ["x", "n", "flag"]


def test_constants_without_a_name_are_kept_apart() -> None:
    names = list(user_inputs(inputs(NUMBER, X, NUMBER)))
    assert len(set(names)) == 3
    assert names[1] == "x"


def test_buffers_are_written_before_inputs() -> None:
    changed = outputs(
        {"user_input_mutation": {"arg": {"name": "relu"}, "user_input_name": "x"}},
        {"buffer_mutation": {"arg": {"name": "add"}, "buffer_name": "count"}},
        RESULT,
    )
    assert list(mutations(inputs(BUFFER, X), changed)) == [
        Mutation("b_count", "add"),
        Mutation("x", "relu"),
    ]
    assert user_outputs(changed) == [{"as_tensor": {"name": "add"}}]


@pytest.mark.parametrize("kind", ["loss_output", "gradient_to_parameter", "token"])
def test_an_output_of_another_kind_is_named(kind: str) -> None:
    with pytest.raises(Unsupported, match=f"^an output of the kind {kind}$"):
        list(mutations([], outputs(RESULT, {kind: {"arg": {"name": "loss"}}})))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x", "y", "mask"], ["x", "y", "mask"]),
        (["x"], ["x", "input 1", "mask"]),
        ([], ["input 0", "input 1", "mask"]),
    ],
)
def test_arguments_without_a_name_are_numbered(names: list[str], expected: list[str]) -> None:
    spec = tree_structure(((1, [2, 3]), {"mask": 4}))
    assert list(argument_names(spec, names)) == expected
    assert keyword_names(spec) == ["mask"]
