"""Optional arguments become ports if they must be as long as the ids."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composecli.core.contract import Contract
from composecli.core.facts import ArgumentFact
from composecli.core.pytree import Call, Tree, call_leaves
from composecli.inference.hints import Hints
from composecli.inference.optional_inputs import optional_inputs
from tests.parsing import port, spec
from tests.unit.inference.builders import call, candidate, facts, layer, prober

ARGUMENTS = (
    ArgumentFact("input_ids", "Tensor", required=True),
    ArgumentFact("attention_mask", "Tensor", required=False),
    ArgumentFact("hidden_states", "Tensor", required=False),
)
HINTS = Hints(facts(layer("Embedding", (50, 8)), arguments=ARGUMENTS))


def contract(text: str, example: str) -> Contract:
    """Return a contract with one input."""
    ids = replace(port(text), path=(0,))
    return Contract((ids,), (), call(example), spec("float32[2, 8]"), ())


def with_mask(tried: Call) -> Tree | None:
    """Accept ids with a mask of the same sizes."""
    tensors = [tensor.sizes for _, tensor in call_leaves(tried)]
    return spec("float32[2, 8]") if len(set(tensors)) == 1 else None


def test_mask_of_the_length_of_the_ids_is_an_optional_port() -> None:
    found = list(optional_inputs(contract("int64[N, T]", "int64[2, 8]"), HINTS, prober(with_mask)))
    assert [(one.name, one.path, str(one)) for one in found] == [
        ("attention_mask", (1,), "int64[N, T] optional")
    ]


@pytest.mark.parametrize("accepts", [True, False])
def test_argument_that_accepts_any_length_or_none_is_not_a_port(accepts: bool) -> None:
    def forward(tried: Call) -> Tree | None:
        return spec("float32[2, 8]") if accepts else None

    found = optional_inputs(contract("int64[N, T]", "int64[2, 8]"), HINTS, prober(forward))
    assert list(found) == []


@pytest.mark.parametrize(
    ("text", "example"), [("float32[N, 8]", "float32[2, 8]"), ("int64[N]", "int64[2]")]
)
def test_only_ids_have_optional_inputs(text: str, example: str) -> None:
    counted = prober(with_mask)
    assert list(optional_inputs(contract(text, example), HINTS, counted)) == []
    assert counted.count == 0


def test_stated_inputs_have_no_optional_inputs() -> None:
    hints = Hints(HINTS.facts, stated=candidate("int64[2, 8]"))
    found = optional_inputs(contract("int64[N, T]", "int64[2, 8]"), hints, prober(with_mask))
    assert list(found) == []
