"""The table of `inspect`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from composecli.report.inspect_table import MAX_LAYER_ROWS
from composecli.workers.protocol import LayerRow
from tests.unit.report.rendering import rendered
from tests.unit.report.reports import INSPECT


def test_a_model_is_described() -> None:
    facts = replace(INSPECT.facts, trainable=12)
    text = rendered(replace(INSPECT, facts=facts, file_size=1234))
    for line in (
        "a.pt  (TorchScript archive)",
        "parameters: 18, 6 of them frozen",
        "weights: 72 B in memory, 1.2 kB file",
        "dtypes: float32",
        "devices: cpu; training state: train",
        "shared: one.weight = other.weight",
        "portability: holds cpu",
    ):
        assert line in text.splitlines()


def test_quiet_leaves_the_contract_and_the_finding() -> None:
    text = rendered(INSPECT, quiet=True)
    assert "contract:" in text
    assert "error[CC203]" in text
    assert "parameters:" not in text


def test_a_portable_model_is_called_so() -> None:
    assert "no device dependencies found" in rendered(replace(INSPECT, portability=()))


def layers(*depths: int) -> tuple[LayerRow, ...]:
    return tuple(LayerRow(depth, f"layer{n}", "ReLU", "", 0) for n, depth in enumerate(depths))


@pytest.mark.parametrize(
    ("depths", "shown"),
    [
        ((0, 1, 1), 3),
        ((0, *(1, 2, 2) * 20), 21),
        ((0, *(1,) * 100), MAX_LAYER_ROWS),
    ],
)
def test_as_many_levels_of_layers_are_shown_as_fit(depths: tuple[int, ...], shown: int) -> None:
    text = rendered(replace(INSPECT, layers=layers(*depths)))
    assert text.count("(ReLU)") == shown
    hidden = len(depths) - shown
    assert (f"and {hidden} deeper layers" in text) == (hidden > 0)


@pytest.mark.parametrize(
    "provenance",
    ["no JSON", "[]", "{}", '{"mode": 1, "seed": 0, "inputs": [{}]}', '"mode"', "null"],
)
def test_a_provenance_may_be_anything(provenance: str) -> None:
    text = rendered(replace(INSPECT, provenance=provenance))
    assert text.endswith("provenance: present but unreadable\n")


def test_a_provenance_names_the_inputs_that_the_file_claims() -> None:
    inputs = [{"name": "a\x1b.pt", "sha256": "0" * 64}]
    provenance = json.dumps({"mode": "sequential", "seed": 7, "inputs": inputs})
    first, second = rendered(replace(INSPECT, provenance=provenance)).splitlines()[-2:]
    assert first == "provenance: joined sequential by composecli, seed 7 (as the file states)"
    assert second == f"  a\ufffd.pt  sha256 {'0' * 15}…"
