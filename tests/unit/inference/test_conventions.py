"""Names of arguments and documented settings suggest tensors, in an order of likelihood."""

from __future__ import annotations

import pytest

from composecli.core.facts import ModelFacts, Setting
from composecli.core.pytree import Literal
from composecli.inference.conventions import (
    ids,
    images,
    lengths,
    literal_values,
    spatial_sizes,
    tensors_by_name,
    usual_tensors,
)
from tests.unit.inference.builders import facts, layer

WORDS = facts(layer("Embedding", (50, 8)))


@pytest.mark.parametrize(
    ("name", "model_facts", "expected"),
    [
        ("input_ids", WORDS, ["int64[2, 8]"]),
        ("input_ids", facts(), []),
        ("attention_mask", facts(), ["int64[2, 8]", "bool[2, 8]"]),
        ("pixel_mask", facts(), ["int64[2, 64, 64]"]),
        ("bbox", facts(), ["int64[2, 8, 4]"]),
        ("timestep", facts(), ["int64[2]", "float32[2]"]),
        ("waveform", facts(), ["float32[2, 4000]"]),
        ("hidden_states", facts(), []),
    ],
)
def test_name_of_an_argument_suggests_a_tensor(
    name: str, model_facts: ModelFacts, expected: list[str]
) -> None:
    assert list(map(str, tensors_by_name(name, model_facts))) == expected


def test_ids_are_below_the_rows_of_the_first_embedding() -> None:
    assert ids(WORDS).below == 50
    assert ids(facts()).below == 2


def test_positions_are_below_the_length() -> None:
    (positions,) = tensors_by_name("position_ids", WORDS)
    assert positions.below == positions.sizes[1]


@pytest.mark.parametrize(
    ("type_name", "first"), [("int", Literal(1)), ("Bool", Literal(False)), ("str", Literal(""))]
)
def test_literals_are_proposed_for_their_types(type_name: str, first: Literal) -> None:
    assert literal_values(type_name)[0] == first


def test_no_literal_is_proposed_for_a_tensor() -> None:
    assert literal_values("Tensor") == []


def test_inputs_of_layers_come_before_usual_ranks() -> None:
    tensors = list(map(str, usual_tensors(facts(layer("Linear", (5, 10))))))
    assert tensors[:3] == ["float32[2, 10]", "float32[2, 8, 10]", "float32[2, 3]"]


def test_documented_spectrograms_are_proposed_with_either_axis_first() -> None:
    settings = (Setting("max_length", (1024,)), Setting("num_mel_bins", (128,)))
    tensors = list(map(str, usual_tensors(facts(settings=settings))))
    assert tensors[:2] == ["float32[2, 1024, 128]", "float32[2, 128, 1024]"]


def test_only_layers_of_images_suggest_images() -> None:
    model_facts = facts(layer("Linear", (5, 10)), layer("Conv2d", (8, 1, 3, 3)))
    assert list(map(str, images(model_facts))) == ["float32[2, 1, 64, 64]"]


def test_documented_sizes_come_before_usual_ones() -> None:
    settings = (Setting("image_size", (96,)), Setting("max_source_positions", (1500,)))
    model_facts = facts(settings=settings)
    assert next(spatial_sizes(model_facts)) == (96, 96)
    assert next(lengths(model_facts)) == 3000
    assert next(spatial_sizes(facts())) == (224, 224)
