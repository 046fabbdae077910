"""One accepted call is generalized to a contract."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composecli.core.contract import Contract, Evidence, EvidenceKind
from composecli.core.facts import LayerFact, NamedSizes
from composecli.core.observations import Accepted, ParameterOp
from composecli.core.pytree import Call, TensorSpec, Tree, call_leaves
from composecli.inference.candidates import Candidate
from composecli.inference.generalize import generalize
from composecli.inference.hints import Hints
from tests.parsing import port, spec
from tests.unit.inference.builders import Forward, call, candidate, facts, layer, prober, sizes


def generalized(
    tried: Candidate, forward: Forward, hints: Hints, *parameter_ops: ParameterOp
) -> Contract:
    """Return the contract of a model that is written as a function."""
    result = forward(tried.call)
    assert result is not None
    accepted = Accepted((result,), "cpu", parameter_ops)
    return generalize(tried, accepted, hints, prober(forward))


def embed(tried: Call) -> Tree | None:
    """Return what an embedding of width 3 does."""
    ((_, ids),) = call_leaves(tried)
    if len(ids.sizes) != 2:
        return None
    return TensorSpec("float32", (*ids.sizes, 3))


def test_ids_are_limited_to_the_rows_of_the_embedding_that_they_index() -> None:
    table = ParameterOp("embedding", spec("int64[2, 8]"), "w", spec("float32[100, 3]"), inputs=(0,))
    hints = Hints(facts(layer("Embedding", (100, 3)), parameters=300))
    contract = generalized(candidate("int64[2, 8]"), embed, hints, table)
    assert str(contract) == "int64[N, T] -> float32[N, T, 3]"
    assert "x holds ids below 100" in str(contract.evidence[-1])
    assert next(call_leaves(contract.example))[1].below == 100


def test_axis_that_a_weight_fixes_is_fixed_without_a_search() -> None:
    def linear(tried: Call) -> Tree | None:
        *others, width = sizes(tried)
        return TensorSpec("float32", (*others, 5)) if width == 10 else None

    tried = "float32[2, 10]"
    weight = ParameterOp("addmm", spec(tried), "w", spec("float32[10, 5]"), inputs=(0,))
    contract = generalized(candidate(tried), linear, Hints(facts(parameters=50)), weight)
    assert str(contract) == "float32[N, 10] -> float32[N, 5]"


def test_length_of_a_table_of_positions_is_found() -> None:
    def positions(tried: Call) -> Tree | None:
        return embed(tried) if sizes(tried)[1] <= 510 else None

    table = LayerFact("positions", "Embedding", (NamedSizes("weight", "float32", (512, 3)),))
    hints = Hints(facts(table, parameters=10))
    contract = generalized(candidate("int64[2, 8]"), positions, hints)
    assert str(contract) == "int64[N, T<=510] -> float32[N, T<=510, 3]"


def test_recorded_contract_of_an_exported_program_is_confirmed() -> None:
    recorded = Contract(
        (replace(port("int64[N>=2, 8]"), path=(0,)),),
        (port("float32[N>=2, 8, 3]"),),
        call("int64[2, 8]"),
        spec("float32[2, 8, 3]"),
        (Evidence(EvidenceKind.EXPORTED),),
    )
    hints = Hints(facts(), exported=recorded)
    contract = generalized(Candidate(recorded.example), embed, hints)
    assert str(contract) == "int64[N, 8] -> float32[N, 8, 3]"


@pytest.mark.parametrize(("unread", "dim"), [(12_000_000_000, "T<=512"), (0, "T")])
def test_length_is_tried_if_the_weights_of_a_large_model_are_not_read(
    unread: int, dim: str
) -> None:
    def positions(tried: Call) -> Tree | None:
        return embed(tried) if sizes(tried)[1] <= 512 else None

    table = LayerFact("positions", "Embedding", (NamedSizes("weight", "float32", (512, 3)),))
    large = replace(facts(table), parameters=3_000_000_000, size=12_000_000_000)
    tried = candidate("int64[2, 8]")
    accepted = Accepted((spec("float32[2, 8, 3]"),), "cpu", unread=unread)
    contract = generalize(tried, accepted, Hints(large), prober(positions))
    assert str(contract) == f"int64[N, {dim}] -> float32[N, {dim}, 3]"
