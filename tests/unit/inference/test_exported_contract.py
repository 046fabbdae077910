"""Dims of an exported program start at 1 if the model accepts 1."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composecli.core.contract import Contract, Evidence, EvidenceKind
from composecli.core.pytree import Call, Tree
from composecli.inference.exported_contract import confirm_exported
from tests.parsing import port, spec
from tests.unit.inference.builders import accepted, call, prober, sizes

EXPORTED = Contract(
    (replace(port("float32[N>=2, T>=2, H>=4]"), path=(0,)),),
    (port("float32[N>=2, T>=2]"),),
    call("float32[2, 8, 16]"),
    spec("float32[2, 8]"),
    (Evidence(EvidenceKind.EXPORTED),),
)


@pytest.mark.parametrize(
    ("smallest", "text", "detail"),
    [
        ((1, 1), "float32[N, T, H>=4] -> float32[N, T]", "cpu at float32[2, 8, 16]; N, T took 1"),
        (
            (1, 2),
            "float32[N, T>=2, H>=4] -> float32[N, T>=2]",
            "cpu at float32[2, 8, 16]; N took 1",
        ),
        ((2, 2), "float32[N>=2, T>=2, H>=4] -> float32[N>=2, T>=2]", "cpu at float32[2, 8, 16]"),
    ],
)
def test_lower_bound_of_export_is_replaced_by_what_the_model_accepts(
    smallest: tuple[int, int], text: str, detail: str
) -> None:
    def forward(tried: Call) -> Tree | None:
        batch, length, _ = sizes(tried)
        return spec("float32[2, 8]") if batch >= smallest[0] and length >= smallest[1] else None

    counted = prober(forward)
    contract = confirm_exported(EXPORTED, accepted("float32[2, 8]"), counted)
    assert str(contract) == text
    assert contract.evidence[-1] == Evidence(EvidenceKind.PROBED, detail)
    assert counted.count == 2
