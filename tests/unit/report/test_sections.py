"""Sections that several tables share."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from composecli.report.screen import Screen
from composecli.report.sections import format_bytes, print_isolation, print_model
from composecli.workers.protocol import Sandbox
from tests.unit.report.reports import MODEL, SANDBOX


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_550_000, "1.6 MB"),
        (2_000_000_000, "2.0 GB"),
        (5_000_000_000_000, "5000.0 GB"),
    ],
)
def test_a_size_is_shown_in_decimal_units(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("sandbox", "text"),
    [
        (SANDBOX, "isolation: a memory limit\n"),
        (replace(SANDBOX, unavailable=()), ""),
        (Sandbox((), ("Landlock",)), ""),
        (None, ""),
    ],
)
def test_only_a_sandbox_with_gaps_is_mentioned(sandbox: Sandbox | None, text: str) -> None:
    file = io.StringIO()
    print_isolation(Screen(file), sandbox)
    assert file.getvalue() == text


@pytest.mark.parametrize(("probes", "text"), [(1, "(1 probe)"), (7, "(7 probes)")])
def test_a_missing_contract_states_the_number_of_probes(probes: int, text: str) -> None:
    file = io.StringIO()
    print_model(Screen(file), replace(MODEL, contract=None, probes=probes))
    assert f"contract: not found {text}" in file.getvalue()
