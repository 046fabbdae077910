"""A model without parameters that keeps every shape has a contract without dims."""

from __future__ import annotations

from dataclasses import replace

from composecli.core.observations import Accepted
from composecli.core.pytree import Call, Tree, call_leaves
from composecli.inference.hints import Hints
from composecli.inference.shape_preserving import shape_preserving_contract
from tests.parsing import spec
from tests.unit.inference.builders import Forward, call, candidate, facts, prober, sizes

TRIED = call("float32[2, 3]")


def identity(tried: Call) -> Tree | None:
    ((_, tensor),) = call_leaves(tried)
    return tensor


def contract_text(forward: Forward, hints: Hints) -> str | None:
    """Return the contract as text; None if the model does not accept every rank."""
    result = forward(TRIED)
    assert result is not None
    contract = shape_preserving_contract(TRIED, Accepted((result,), "cpu"), hints, prober(forward))
    return None if contract is None else str(contract)


def test_activation_accepts_every_rank_and_float_dtype() -> None:
    assert contract_text(identity, Hints(facts())) == "float[*] -> float[*]"


def test_model_of_one_float_dtype_keeps_it() -> None:
    def only_float32(tried: Call) -> Tree | None:
        return identity(tried) if "float32" in str(tried) else None

    assert contract_text(only_float32, Hints(facts())) == "float32[*] -> float32[*]"


def test_comparison_has_another_output_dtype() -> None:
    def is_positive(tried: Call) -> Tree | None:
        ((_, tensor),) = call_leaves(tried)
        return replace(tensor, dtype="bool")

    assert contract_text(is_positive, Hints(facts())) == "float32[*] -> bool[*]"


def test_model_that_rejects_a_rank_has_dims() -> None:
    def image_only(tried: Call) -> Tree | None:
        return identity(tried) if len(sizes(tried)) in (2, 4) else None

    assert contract_text(image_only, Hints(facts())) is None


def test_model_that_changes_sizes_has_dims() -> None:
    def first_row(tried: Call) -> Tree | None:
        ((_, tensor),) = call_leaves(tried)
        return replace(tensor, sizes=tensor.sizes[1:])

    assert contract_text(first_row, Hints(facts())) is None


def test_model_with_parameters_is_not_probed() -> None:
    counted = prober(identity)
    hints = Hints(facts(parameters=10))
    accepted = Accepted((spec("float32[2, 3]"),), "cpu")
    assert shape_preserving_contract(TRIED, accepted, hints, counted) is None
    assert counted.count == 0


def test_stated_dims_are_kept() -> None:
    assert contract_text(identity, Hints(facts(), stated=candidate("float32[2, 3]"))) is None
