"""The first candidates follow the names and types of arguments, and other sizes the rank."""

from __future__ import annotations

import pytest

from composecli.core.facts import ArgumentFact, LayerFact, ModelFacts, NamedSizes, Setting
from composecli.inference.candidates import Candidate, initial_candidates, other_sizes, with_tensors
from tests.parsing import spec
from tests.unit.inference.builders import call, candidate, facts, layer


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([("input_ids", "Tensor")], "int64[2, 8]"),
        ([("input_ids", "Tensor"), ("attention_mask", "Tensor")], "int64[2, 8], int64[2, 8]"),
        ([("ids", "Tensor"), ("timestep", "Tensor")], "int64[2, 8], int64[2]"),
        ([("wave", "Tensor"), ("rate", "int")], "float32[2, 4000]"),
        ([("items", "List[Tensor]")], "int64[2, 8], int64[2, 8]"),
    ],
)
def test_names_and_types_determine_the_first_candidate(
    arguments: list[tuple[str, str]], wanted: str
) -> None:
    words = LayerFact("words", "Embedding", (NamedSizes("weight", "float32", (50, 8)),))
    found = tuple(ArgumentFact(name, kind, required=True) for name, kind in arguments)
    model_facts = ModelFacts("M", found, "eval", (words,), 400, 400, 0, ("float32",), (), ())
    assert str(next(iter(initial_candidates(model_facts))).call) == wanted


def test_float_tensors_are_proposed_for_a_float_annotation() -> None:
    arguments = (ArgumentFact("input_ids", "torch.FloatTensor", required=True),)
    model_facts = facts(layer("Embedding", (50, 8)), arguments=arguments)
    assert all("int64" not in str(first.call) for first in initial_candidates(model_facts))


def test_states_of_a_recurrent_layer_are_proposed_batch_second_then_first() -> None:
    weights = (
        NamedSizes("weight_ih_l0", "float32", (12, 10)),
        NamedSizes("weight_hh_l0", "float32", (12, 3)),
    )
    arguments = tuple(ArgumentFact(name, "Tensor", required=True) for name in ("x", "h"))
    model_facts = facts(LayerFact("gru", "GRU", weights), arguments=arguments)
    calls = [str(first.call) for first in initial_candidates(model_facts)]
    assert calls[:2] == [
        "float32[8, 2, 10], float32[1, 2, 3]",
        "float32[2, 8, 10], float32[1, 2, 3]",
    ]


@pytest.mark.parametrize(
    ("text", "settings", "wanted"),
    [
        ("float32[2, 3, 64, 64]", (), "float32[2, 3, 224, 224]"),
        ("float32[2, 3, 64, 64]", (Setting("img_size", (96, 160)),), "float32[2, 3, 96, 160]"),
        (
            "float32[2, 3, 16, 64, 64]",
            (Setting("num_frames", (12,)),),
            "float32[2, 3, 12, 224, 224]",
        ),
        ("int64[2, 8]", (), "int64[2, 16]"),
        ("float32[8]", (Setting("context_length", (77,)),), "float32[77]"),
    ],
)
def test_usual_size_of_the_rank_is_tried_first(
    text: str, settings: tuple[Setting, ...], wanted: str
) -> None:
    resized = other_sizes(candidate(text), (0,), facts(settings=settings))
    assert str(next(resized).call) == wanted


def test_ids_are_never_longer_than_attention_can_afford() -> None:
    resized = other_sizes(candidate("int64[2, 8]"), (0,), facts())
    lengths = [spec(str(other.call)).sizes[1] for other in resized]
    assert max(lengths) == 1024


def test_equal_inputs_are_resized_together_before_alone() -> None:
    resized = other_sizes(candidate("int64[2, 8]", "int64[2, 8]"), (0,), facts())
    assert str(next(resized).call) == "int64[2, 16], int64[2, 16]"
    assert str(next(resized).call) == "int64[2, 16], int64[2, 8]"


def test_axes_of_a_tensor_are_no_longer_fixed_when_its_rank_changes() -> None:
    fixed = Candidate(call("float32[2, 3]", "float32[2, 5]"), fixed_axes=(((0,), 1), ((1,), 1)))
    changed = with_tensors(fixed, {(0,): spec("float32[2, 3, 4]"), (1,): spec("float32[2, 7]")})
    assert changed.fixed_axes == (((1,), 1),)
