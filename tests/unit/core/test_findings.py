"""Findings: the verdict that follows from them, and the text of their sides."""

from __future__ import annotations

import pytest

from composecli.core.bridge import Flatten
from composecli.core.findings import Finding, Fix, Side, Verdict, change_first_error, verdict_of
from composecli.core.rules import Rule, Severity


def _finding(rule: Rule, *, bridge: bool = False) -> Finding:
    return Finding(rule, "", fix=Fix("", bridge=(Flatten(1),)) if bridge else None)


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ((), Verdict.COMPATIBLE),
        ((_finding(Rule.FITS_ONLY_AT_SOME_SIZES),), Verdict.COMPATIBLE),
        ((_finding(Rule.COMPARISON_AND_PROBE_DISAGREE),), Verdict.UNKNOWN),
        (
            (_finding(Rule.COMPARISON_AND_PROBE_DISAGREE), _finding(Rule.FITS_ONLY_AT_SOME_SIZES)),
            Verdict.UNKNOWN,
        ),
        ((_finding(Rule.SIZE_DIFFERS),), Verdict.INCOMPATIBLE),
        ((_finding(Rule.SIZE_DIFFERS, bridge=True),), Verdict.BRIDGEABLE),
        (
            (_finding(Rule.SIZE_DIFFERS, bridge=True), _finding(Rule.DTYPE_DIFFERS)),
            Verdict.INCOMPATIBLE,
        ),
        (
            (_finding(Rule.SIZE_DIFFERS), _finding(Rule.COMPARISON_AND_PROBE_DISAGREE)),
            Verdict.INCOMPATIBLE,
        ),
    ],
)
def test_the_verdict_follows_from_the_findings(
    findings: tuple[Finding, ...], verdict: Verdict
) -> None:
    assert verdict_of(findings) is verdict


@pytest.mark.parametrize(
    ("side", "text"),
    [
        (Side("a.pt", "x", "float32", ("N", "5")), "float32[N, 5]"),
        (Side("a.pt", "x", "float32", ()), "float32[]"),
        (Side("a.pt", "x", "float32"), "float32[*]"),
        (Side("a.pt", "2 outputs"), ""),
        (Side("a.pt", "its input", "", ()), "not known"),
    ],
)
def test_a_side_is_shown_as_its_port(side: Side, text: str) -> None:
    assert side.text == text


def test_a_finding_has_the_code_and_severity_of_its_rule() -> None:
    finding = _finding(Rule.SIZE_DIFFERS)
    assert (finding.code, finding.severity) == ("CC203", Severity.ERROR)


def test_only_the_first_error_is_changed() -> None:
    note = Finding(Rule.FITS_ONLY_AT_SOME_SIZES, "a note")
    error = Finding(Rule.SIZE_DIFFERS, "an error", notes=("a fact",))
    changed = change_first_error((note, error, error), lambda found: found.noted("another"))
    assert [finding.notes for finding in changed] == [(), ("a fact", "another"), ("a fact",)]


def test_findings_without_an_error_are_left_as_they_are() -> None:
    notes = (Finding(Rule.FITS_ONLY_AT_SOME_SIZES, "a note"),)
    assert change_first_error(notes, lambda found: found.noted("another")) == notes
