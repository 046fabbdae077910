"""Each kind of rejection leads to the repairs that answer it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composecli.core.facts import ArgumentFact, ModelFacts, Setting
from composecli.core.observations import ParameterOp, Rejected, Remedy
from composecli.core.pytree import Argument, Call, Literal, TensorSpec, call_leaves
from composecli.inference.candidates import Candidate
from composecli.inference.repairs import find_repairs
from tests.parsing import spec
from tests.unit.inference.builders import candidate, facts, layer, rejected


def suggested(
    tried: Candidate, observation: Rejected, model_facts: ModelFacts | None = None
) -> list[str]:
    """Return the calls of the repairs, the cheapest first."""
    repairs = list(find_repairs(tried, observation, model_facts or facts()))
    repairs.sort(key=lambda repair: repair[0])
    return [str(repaired.call) for _, repaired in repairs]


def test_mask_is_tried_as_bool_at_an_op_that_masks() -> None:
    observation = rejected(
        "aten::masked_fill", ("float32[2, 8, 4]", (0,)), ("int64[2, 8, 1]", (1,))
    )
    tried = candidate("int64[2, 8]", "int64[2, 8]")
    assert "int64[2, 8], bool[2, 8]" in suggested(tried, observation)[:8]


@pytest.mark.parametrize(
    ("op", "factor", "wanted"),
    [
        ("pixel_shuffle", 2, "float32[2, 4, 64, 64]"),
        ("pixel_unshuffle", 3, "float32[2, 3, 66, 66]"),
        ("channel_shuffle", 5, "float32[2, 5, 64, 64]"),
    ],
)
def test_axes_that_an_op_divides_become_multiples_first(op: str, factor: int, wanted: str) -> None:
    image = "float32[2, 3, 64, 64]"
    observation = rejected(f"aten::{op}", (image, (0,)), numbers=(factor,))
    assert suggested(candidate(image), observation)[0] == wanted


@pytest.mark.parametrize("factor", [0, 2**40])
def test_a_factor_that_no_image_has_makes_none_larger(factor: int) -> None:
    image = "float32[2, 3, 64, 64]"
    shuffled = rejected("aten::pixel_shuffle", (image, (0,)), numbers=(factor,))
    other = rejected("aten::pixel_shuffle", (image, (0,)))
    assert suggested(candidate(image), shuffled)[1:] == suggested(candidate(image), other)


def test_ids_are_lowered_below_the_rows_of_the_failing_embedding() -> None:
    tried = Candidate(Call((Argument(TensorSpec("int64", (2, 8), below=100)),)))
    observation = rejected("aten::embedding", ("float32[7, 4]", ()), ("int64[2]", (0,)))
    observation = replace(observation, remedies=(Remedy.ZEROS,))
    _, first = next(iter(find_repairs(tried, observation, facts())))
    assert next(call_leaves(first.call))[1].below == 7


def test_settings_of_a_library_are_proposed() -> None:
    model_facts = facts(settings=(Setting("image_size", (384,)),))
    calls = suggested(candidate("float32[2, 3, 64, 64]"), rejected(None), model_facts)
    assert "float32[2, 3, 384, 384]" in calls[:8]


@pytest.mark.parametrize(
    ("tried", "op", "weight", "wanted"),
    [
        ("float32[2, 3]", "addmm", "float32[10, 5]", "float32[2, 10]"),
        ("float32[2, 3, 8, 8]", "convolution", "float32[4, 6, 3, 3]", "float32[2, 6, 8, 8]"),
        ("float32[2, 3]", "embedding", "float32[50, 8]", "int64[2, 8]"),
        ("float32[2, 3, 8]", "native_batch_norm", "float32[5]", "float32[2, 5, 8]"),
    ],
)
def test_input_that_a_weight_implies_is_the_first_repair(
    tried: str, op: str, weight: str, wanted: str
) -> None:
    parameter_op = ParameterOp(op, spec(tried), "weight", spec(weight), inputs=(0,))
    observation = replace(rejected(f"aten::{op}"), parameter_ops=(parameter_op,))
    cost, first = next(iter(find_repairs(candidate(tried), observation, facts())))
    assert (cost, str(first.call)) == (0, wanted)


def test_optional_argument_is_added_only_if_the_models_own_code_fails() -> None:
    arguments = (
        ArgumentFact("input_ids", "Tensor", required=True),
        ArgumentFact("attention_mask", "Tensor", required=False),
    )
    model_facts = facts(layer("Embedding", (50, 8)), arguments=arguments)
    with_mask = "int64[2, 8], int64[2, 8]"
    tried = candidate("int64[2, 8]")
    assert with_mask in suggested(tried, rejected(None), model_facts)
    assert with_mask not in suggested(tried, rejected("aten::add"), model_facts)


def test_zero_is_the_most_expensive_number() -> None:
    arguments = (ArgumentFact("rate", "int", required=True),)
    tried = Candidate(Call((Argument(Literal(1)),)))
    cost_by_value = dict[object, int]()
    for cost, repaired in find_repairs(tried, rejected(None), facts(arguments=arguments)):
        value = repaired.call.arguments[0].value
        if isinstance(value, Literal):
            cost_by_value[value.value] = cost
    assert cost_by_value[0] == max(cost_by_value.values())
    assert cost_by_value[16000] < cost_by_value[0]


def test_batch_of_one_is_the_last_repair() -> None:
    assert suggested(candidate("float32[2, 3]"), rejected(None))[-1] == "float32[1, 3]"
