"""Inputs of one consumer that share a symbol ask for sizes of the producers that agree."""

from __future__ import annotations

import pytest

from composecli.compose.compare import ConsumerPort, ProducerPort
from composecli.compose.shared_symbols import shared_symbol_findings
from composecli.core.rules import Rule
from tests.parsing import port, spec


def test_one_symbol_in_two_inputs_asks_for_equal_sizes() -> None:
    first = ProducerPort("a.pt", port("float32[B, 5]"), spec("float32[2, 5]"))
    second = ProducerPort("a.pt", port("float32[C, 7]"), spec("float32[2, 7]"))
    x, y = ConsumerPort("b.pt", port("float32[N, 5]")), ConsumerPort("b.pt", port("float32[N, 7]"))
    (finding,) = shared_symbol_findings(((first, x), (second, y)))
    assert finding.title == "compatible when B == C"
    assert finding.rule is Rule.FITS_ONLY_AT_SOME_SIZES
    assert len(finding.sides) == 4
    (strict,) = shared_symbol_findings(((first, x), (second, y)), strict=True)
    assert strict.rule is Rule.NOT_AT_EVERY_SIZE
    assert shared_symbol_findings(((first, x), (first, x))) == ()


def test_a_condition_within_one_port_is_not_repeated_across_ports() -> None:
    square = ConsumerPort("b.pt", port("float32[D, D]"))
    wide = ProducerPort("a.pt", port("float32[H, W]"), spec("float32[2, 2]"))
    assert shared_symbol_findings(((wide, square),)) == ()


@pytest.mark.parametrize(
    ("sizes", "titles"),
    [
        (("64", "32"), ["compatible when H%4 in {0, 3}"]),
        (("60", "32"), ["axis 1 is 60, but 2*D is 64, because D is 32"]),
    ],
)
def test_an_input_that_is_twice_as_large_as_another(
    sizes: tuple[str, str], titles: list[str]
) -> None:
    large, small = sizes
    first = ProducerPort("a.pt", port("float32[8, ceil(H/2)]"), spec(f"float32[8, {large}]"))
    second = ProducerPort("a.pt", port("float32[16, ceil(H/4)]"), spec(f"float32[16, {small}]"))
    x, y = (
        ConsumerPort("b.pt", port("float32[8, 2*D]")),
        ConsumerPort("b.pt", port("float32[16, D]")),
    )
    findings = shared_symbol_findings(((first, x), (second, y)))
    assert [finding.title for finding in findings] == titles
