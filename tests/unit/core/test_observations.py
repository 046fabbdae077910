"""Observations: where a forward failed, and the records that it read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composecli.core.observations import (
    Accepted,
    Observation,
    Operand,
    Read,
    Rejected,
    reading_notes,
    renumber_reads,
)
from tests.parsing import spec

REJECTED = Rejected(0, "RuntimeError", "shapes", "cpu", operands=(Operand(spec("float32[2]")),))


@pytest.mark.parametrize(
    ("module", "code", "op", "where"),
    [
        ("fc1", None, "aten::addmm", "fc1 (aten::addmm)"),
        ("fc1", "return x + y", None, "fc1"),
        (None, "return x + y", "aten::add", "`return x + y` (aten::add)"),
        (None, None, "aten::add", "aten::add"),
        (None, None, None, "its own code"),
        ("", "", "", "its own code"),
    ],
)
def test_the_place_of_a_failure_is_as_exact_as_is_known(
    module: str | None, code: str | None, op: str | None, where: str
) -> None:
    assert replace(REJECTED, module=module, code=code, op=op).where == where


def test_the_tensors_of_a_failure_are_those_of_its_operands() -> None:
    assert REJECTED.tensors == (spec("float32[2]"),)


def test_the_result_is_that_of_the_last_stage() -> None:
    assert Accepted((spec("float32[1]"), spec("float32[2]")), "cpu").result == spec("float32[2]")


@pytest.mark.parametrize("observation", [Accepted((), "cpu"), REJECTED])
def test_reads_are_renumbered_with_their_models(observation: Observation) -> None:
    read = replace(observation, read=(Read(3, "aten::item", ("data/0",)), Read(5, "aten::item")))
    renumbered = renumber_reads(read, {3: 0, 5: 1})
    assert renumbered.read == (Read(0, "aten::item", ("data/0",)), Read(1, "aten::item"))


@pytest.mark.parametrize(
    ("reads", "notes"),
    [
        ([], []),
        ([Read(0, "all its tensors were read: why")], ["all its tensors were read: why"]),
        (
            [Read(0, tensors=("a",), op="aten::index")],
            ["the forward reads values of a (aten::index)"],
        ),
        (
            [Read(0, tensors=(name,), op=op) for name in "abcdef" for op in ("aten::x", "aten::y")],
            ["the forward reads values of a, b, c, d and 2 more (aten::x, aten::y)"],
        ),
        (
            [Read(0, tensors=("a",), op="aten::x"), Read(0, op="aten::y")],
            ["the forward reads values of all its tensors (aten::x, aten::y)"],
        ),
    ],
)
def test_all_values_that_were_read_are_one_note(reads: list[Read], notes: list[str]) -> None:
    assert reading_notes(reads) == notes
