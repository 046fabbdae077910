"""Comparing two ports: every difference is found, and the stated conditions are true."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from composecli.compose.compare import (
    ConsumerPort,
    ProducerPort,
    compare,
    format_dims,
)
from composecli.core.contract import Port
from composecli.core.dims import Fixed, Free
from composecli.core.findings import Verdict, verdict_of
from composecli.core.pytree import TensorSpec
from tests.parsing import lines, port, spec


@pytest.mark.parametrize("line", lines("verdicts.txt"))
def test_a_pair_of_ports_has_these_findings(line: str) -> None:
    example, output, input_, plain, strict = (part.strip() for part in line.split("|"))
    producer = ProducerPort("a.pt", port(output), spec(example))
    consumer = ConsumerPort("b.pt", port(input_))
    assert " ".join(finding.code for finding in compare(producer, consumer)) == plain
    assert " ".join(finding.code for finding in compare(producer, consumer, strict=True)) == strict


@pytest.mark.parametrize(
    ("output", "input_", "example", "title"),
    [
        (
            "float32[N, H//8]",
            "float32[N, 4]",
            "float32[2, 4]",
            "compatible when 32<=H<=39",
        ),
        ("float32[N, H]", "float32[N, D>=32]", "float32[2, 40]", "compatible when H>=32"),
        (
            "float32[N, H]",
            "float32[N<=8, D%16==0]",
            "float32[2, 32]",
            "compatible when N<=8 and H%16==0",
        ),
    ],
)
def test_the_condition_is_in_the_producers_symbols(
    output: str, input_: str, example: str, title: str
) -> None:
    (finding,) = compare(
        ProducerPort("a.pt", port(output), spec(example)), ConsumerPort("b.pt", port(input_))
    )
    assert finding.title == title


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(SIZES, SIZES)
def test_fixed_shapes_fit_only_if_they_are_equal(one: list[int], other: list[int]) -> None:
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
def test_strict_fails_only_if_some_size_does_not_fit(size: int, low: int, step: int) -> None:
    wanted = Free("D", low, None, step)
    assume(size >= low and size % step == 0)
    producer = ProducerPort(
        "a", Port("y", (), "float32", (Free("N"),)), TensorSpec("float32", (size,))
    )
    findings = compare(
        producer, ConsumerPort("b", Port("x", (), "float32", (wanted,))), strict=True
    )
    every_size_fits = low == 1 and step == 1
    assert (verdict_of(findings) is Verdict.COMPATIBLE) == every_size_fits


def test_a_port_of_any_rank_shows_the_sizes_of_its_example() -> None:
    producer = ProducerPort("a.pt", port("float[*]"), spec("float32[2, 5]"))
    assert producer.side.text == "float32[2, 5]"
    assert format_dims(producer.dims) == ("2", "5")
    assert format_dims(None) is None


def test_the_example_is_noted_where_the_dims_do_not_show_it() -> None:
    producer = ProducerPort("a.pt", port("float32[N, H//8]", "y"), spec("float32[2, 4]"))
    (finding,) = compare(producer, ConsumerPort("b.pt", port("float32[N, 5]")))
    assert finding.notes == ("y is float32[2, 4] at the example input",)
    assert finding.axis == 1


def test_axes_of_one_name_within_a_port_must_be_equal() -> None:
    square = ConsumerPort("b.pt", port("float32[D, D]"))
    wide = ProducerPort("a.pt", port("float32[H, W]"), spec("float32[2, 2]"))
    assert [finding.title for finding in compare(wide, square)] == ["compatible when H == W"]
