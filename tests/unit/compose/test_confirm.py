"""Confirming: the findings of the comparison after the pair was run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composecli.compose.compare import ConsumerPort, PortPairs, ProducerPort, compare
from composecli.compose.confirm import confirm, format_error, rejection_finding
from composecli.core.observations import Accepted, Operand, Rejected, RejectionKind, Remedy
from composecli.core.pytree import TreeSequence
from composecli.core.rules import Rule
from tests.parsing import port, spec

RESULT = spec("float32[2, 3]")
ACCEPTED = Accepted((RESULT,), "cpu")
REJECTED = Rejected(
    1,
    "RuntimeError",
    "mat1 and mat2 shapes cannot be multiplied",
    "cpu",
    op="aten::addmm",
    module="fc1",
    operands=tuple(Operand(spec(f"float32[{size}]")) for size in range(1, 7)),
)


def pairs(example: str, wanted: str) -> PortPairs:
    """One pair: a producer whose port has the dtype and sizes of its example, and a consumer."""
    return (
        (
            ProducerPort("a.pt", port(example, "y"), spec(example)),
            ConsumerPort("b.pt", port(wanted)),
        ),
    )


FITTING = pairs("float32[2, 5]", "float32[N, 5]")
DIFFERING = pairs("float32[2, 5]", "float32[N, 3]")
OF_SIZE_ONE = pairs("float32[2, 1]", "float32[N, 3]")


def test_a_pair_that_fits_and_runs_has_no_findings() -> None:
    assert confirm((), ACCEPTED, FITTING) == ()


def test_a_note_survives_a_successful_run() -> None:
    pair = ProducerPort("a.pt", port("float32[N]"), spec("float32[8]"))
    conditional = ((pair, ConsumerPort("b.pt", port("float32[D>=2]"))),)
    strict = compare(*conditional[0], strict=True)
    assert [finding.rule for finding in strict] == [Rule.NOT_AT_EVERY_SIZE]
    assert confirm(strict, ACCEPTED, conditional) == strict


def test_an_error_that_the_probe_contradicts_becomes_a_doubt() -> None:
    (finding,) = confirm(compare(*DIFFERING[0]), ACCEPTED, DIFFERING)
    assert finding.rule is Rule.COMPARISON_AND_PROBE_DISAGREE
    assert finding.axis == 1
    assert finding.notes == (
        "according to the contracts: feature width differs",
        "the probe ran on cpu and returned float32[2, 3]",
    )


def test_a_size_of_one_that_runs_is_broadcast() -> None:
    structured = replace(ACCEPTED, results=(TreeSequence("tuple", (RESULT,)),))
    (finding,) = confirm(compare(*OF_SIZE_ONE[0]), structured, OF_SIZE_ONE)
    assert finding.rule is Rule.FITS_BY_BROADCASTING
    assert finding.notes[-1] == "the probe ran on cpu and returned a result"


def test_a_confirmed_error_notes_where_the_consumer_failed() -> None:
    (finding,) = confirm(compare(*DIFFERING[0]), REJECTED, DIFFERING)
    assert finding.rule is Rule.SIZE_DIFFERS
    (note,) = finding.notes
    operands = "float32[1], float32[2], float32[3], float32[4]"
    assert note == f"b.pt fails at fc1 (aten::addmm), with operands {operands}"


def test_only_the_first_of_several_errors_is_annotated() -> None:
    both = pairs("int64[2, 5]", "float32[N, 3]")
    first, second = confirm(compare(*both[0]), REJECTED, both)
    assert (first.rule, second.rule) == (Rule.DTYPE_DIFFERS, Rule.SIZE_DIFFERS)
    assert len(first.notes) == 1
    assert second.notes == ()


def test_an_unexpected_failure_is_a_finding_of_its_own() -> None:
    (finding,) = confirm((), REJECTED, FITTING)
    assert finding.rule is Rule.REFUSED_BY_CONSUMER
    assert [side.model for side in finding.sides] == ["a.pt", "b.pt"]
    assert finding.notes[0] == "at fc1 (aten::addmm), on cpu"
    assert finding.notes[-1] == "RuntimeError: mat1 and mat2 shapes cannot be multiplied"


@pytest.mark.parametrize(
    ("error", "message", "text"),
    [
        ("RuntimeError", "no such axis", "RuntimeError: no such axis"),
        ("", "no such axis", "no such axis"),
        ("AssertionError", "", "AssertionError, without a message"),
        ("", "AssertionError:", "AssertionError, without a message"),
        ("", "", "Error, without a message"),
    ],
)
def test_an_error_is_one_line_and_never_empty(error: str, message: str, text: str) -> None:
    assert format_error(replace(REJECTED, error=error, message=message)) == text


@pytest.mark.parametrize(
    ("kind", "remedies", "rule"),
    [
        (RejectionKind.ERROR, (), Rule.REFUSED_BY_CONSUMER),
        (RejectionKind.OUT_OF_MEMORY, (), Rule.OUT_OF_MEMORY),
        (RejectionKind.ERROR, (Remedy.EVAL_MODE,), Rule.RUNS_IN_EVAL_MODE),
        (RejectionKind.ERROR, (Remedy.ZEROS,), Rule.DEPENDS_ON_VALUES),
        (RejectionKind.ERROR, (Remedy.ZEROS, Remedy.EVAL_MODE), Rule.RUNS_IN_EVAL_MODE),
    ],
)
def test_a_failure_is_classified_by_its_remedy(
    kind: RejectionKind, remedies: tuple[Remedy, ...], rule: Rule
) -> None:
    rejected = replace(REJECTED, kind=kind, remedies=remedies)
    assert rejection_finding(rejected, "b.pt").rule is rule


def test_a_failure_without_a_seam_has_no_sides() -> None:
    assert rejection_finding(REJECTED, "the merge (cat)").sides == ()


@pytest.mark.parametrize(
    ("error", "message", "text"),
    [
        ("ValueError", "too many dimensions", "ValueError: too many dimensions"),
        ("", "shapes cannot be multiplied", "shapes cannot be multiplied"),
        ("AssertionError", "", "AssertionError, without a message"),
        ("AssertionError", "AssertionError", "AssertionError, without a message"),
        ("", "AssertionError:", "AssertionError, without a message"),
        ("", " ", "Error, without a message"),
        ("", "expected one of:", "expected one of:"),
    ],
)
def test_an_error_without_a_message_says_so(error: str, message: str, text: str) -> None:
    assert format_error(replace(REJECTED, error=error, message=message)) == text
