"""Comparing: every difference is found, and what is said of other sizes is true of them."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from composecli.compose.compare import ConsumerPort, ProducerPort, compare
from composecli.compose.propagate import propagate
from composecli.core.bridge import Flatten
from composecli.core.contract import Port
from composecli.core.dims import Fixed, Free
from composecli.core.findings import Finding, Fix, Verdict, verdict_of
from composecli.core.pytree import TensorSpec
from composecli.core.rules import Rule
from tests.reading import lines, port, spec


@pytest.mark.parametrize("line", lines("verdicts.txt"))
def test_a_pair_of_ports_has_these_findings(line: str) -> None:
    found, given_port, taken, plain, strict = (part.strip() for part in line.split("|"))
    offer, ask = (
        ProducerPort("a.pt", port(given_port), spec(found)),
        ConsumerPort("b.pt", port(taken)),
    )
    assert " ".join(finding.code for finding in compare(offer, ask)) == plain
    assert " ".join(finding.code for finding in compare(offer, ask, strict=True)) == strict


@pytest.mark.parametrize(
    ("given_port", "taken", "found", "words"),
    [
        (
            "float32[N, H//8]",
            "float32[N, 4]",
            "float32[2, 4]",
            "compatible when H >= 32 and H <= 39",
        ),
        ("float32[N, H]", "float32[N, D>=32]", "float32[2, 40]", "compatible when H >= 32"),
        (
            "float32[N, H]",
            "float32[N<=8, D%16==0]",
            "float32[2, 32]",
            "compatible when N <= 8 and H % 16 == 0",
        ),
    ],
)
def test_the_condition_is_in_the_producers_symbols(
    given_port: str, taken: str, found: str, words: str
) -> None:
    (finding,) = compare(
        ProducerPort("a.pt", port(given_port), spec(found)), ConsumerPort("b.pt", port(taken))
    )
    assert finding.title == words


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(SIZES, SIZES)
def test_fixed_shapes_fit_exactly_when_they_are_equal(one: list[int], other: list[int]) -> None:
    found = TensorSpec("float32", tuple(one))
    taken = Port("x", (), "float32", tuple(map(Fixed, other)))
    findings = compare(
        ProducerPort("a", Port("y", (), "float32", tuple(map(Fixed, one))), found),
        ConsumerPort("b", taken),
    )
    assert (verdict_of(findings) is Verdict.COMPATIBLE) == (one == other)
    if len(one) == len(other):
        assert [f.axis for f in findings] == [n for n in range(len(one)) if one[n] != other[n]]


@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 5))
def test_strict_refuses_exactly_when_some_size_does_not_fit(size: int, low: int, step: int) -> None:
    wanted = Free("D", low, None, step)
    assume(size >= low and size % step == 0)
    offer = ProducerPort(
        "a", Port("y", (), "float32", (Free("N"),)), TensorSpec("float32", (size,))
    )
    findings = compare(offer, ConsumerPort("b", Port("x", (), "float32", (wanted,))), strict=True)
    every_size_fits = low == 1 and step == 1
    assert (verdict_of(findings) is Verdict.COMPATIBLE) == every_size_fits


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


def test_a_chain_speaks_in_the_symbols_of_its_input() -> None:
    given_port, taken = port("float32[N, 64, H//8, W//8]"), port("float32[N, C, H, W]")
    outputs = (port("float32[N, C, ceil(H/2), 2*W + 1]"), port("float32[*]"))
    pair = (ProducerPort("a", given_port, spec("float32[2, 64, 4, 4]")), ConsumerPort("b", taken))
    first, second = propagate(outputs, (pair,))
    assert str(first) == "float32[N, 64, (H + 8)//16, 2*(W//8) + 1]"
    assert second.dims == given_port.dims


def test_a_size_that_is_not_known_stays_unknown_down_the_chain() -> None:
    pair = (
        ProducerPort("a", port("float32[N, ?]"), spec("float32[2, 4]")),
        ConsumerPort("b", port("float32[N, D]")),
    )
    (found,) = propagate((port("float32[N, 2*D]"),), (pair,))
    assert str(found) == "float32[N, ?]"


def test_ranges_go_down_the_chain() -> None:
    pair = (
        ProducerPort("a", port("float32[N<=64, 5]"), spec("float32[2, 5]")),
        ConsumerPort("b", port("float32[B, 5]")),
    )
    (found,) = propagate((port("float32[B, 2]"),), (pair,))
    assert str(found) == "float32[N<=64, 2]"
