"""The tables of `check` and `join`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composecli.commands.results import CheckReport, JoinReport
from composecli.core.blueprint import Mode
from composecli.core.findings import Verdict
from tests.unit.report.rendering import rendered
from tests.unit.report.reports import CHECK, FINDING, SEAM, WRITTEN

BRIDGED = JoinReport(CHECK, WRITTEN, (0,))
SHARED_FIX = replace(CHECK, seams=(replace(SEAM, findings=(FINDING, FINDING)),))


def test_the_verdict_is_the_last_line_of_a_check() -> None:
    assert rendered(CHECK).splitlines()[-1] == "verdict: bridgeable"
    strict = replace(CHECK, strict=True)
    assert rendered(strict).splitlines()[-1] == "verdict: bridgeable (every size required)"


def test_a_quiet_check_is_its_findings_and_the_verdict() -> None:
    lines = rendered(CHECK, quiet=True).splitlines()
    assert lines[0] == "error[CC203]: feature width differs"
    assert lines[-1] == "verdict: bridgeable"
    assert not any("contract" in line for line in lines)


def test_a_fix_that_findings_share_is_printed_once() -> None:
    text = rendered(SHARED_FIX)
    assert text.count("feature width differs") == 2
    assert text.count("help: composecli join") == 1


def test_a_bridged_seam_has_no_error_left() -> None:
    text = rendered(BRIDGED)
    assert "bridged[CC203]" in text
    assert "help:" not in text.partition("verdict:")[0]
    assert "verdict: bridgeable, bridged as requested" in text


def test_a_join_lists_its_bridges_checks_and_digest() -> None:
    lines = rendered(BRIDGED).splitlines()
    assert "wrote both.pt  (10 B)" in lines
    assert "  bridge: Linear(5 -> 3) along axis 1, 18 parameters, untrained" in lines
    assert "  verified: outputs: equal" in lines
    assert lines[-1] == f"  sha256: {'0' * 64}"


def test_a_refused_join_writes_nothing() -> None:
    assert rendered(JoinReport(CHECK, None)).splitlines()[-1] == "no file was written"


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (replace(CHECK, device="meta"), "example: x -> y, explored on meta, run on cpu"),
        (replace(CHECK, device="cuda:1"), "example: x -> y, on cuda:1"),
        (replace(CHECK, result=None), "example: x, on cpu"),
        (replace(CHECK, interrupted=True), "interrupted: this is what is known so far"),
        (CHECK, "isolation: a memory limit"),
    ],
)
def test_a_check_states(report: CheckReport, line: str) -> None:
    assert line in rendered(report).splitlines()


def test_the_headers_of_parallel_models_name_no_direction() -> None:
    parallel = rendered(replace(CHECK, mode=Mode.PARALLEL))
    assert "gives" not in parallel
    assert "beside" in parallel


def test_a_seam_without_ports_names_its_models() -> None:
    text = rendered(replace(CHECK, seams=(replace(SEAM, rows=(), verdict=Verdict.UNKNOWN),)))
    row = next(line for line in text.splitlines() if line.strip().startswith("a.pt"))
    assert row.split() == ["a.pt", "b.pt", "unknown"]
