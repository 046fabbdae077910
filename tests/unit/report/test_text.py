"""Text for terminals: names are made harmless, findings are laid out in lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from composecli.core.errors import Problem
from composecli.core.findings import Finding, Fix, Side
from composecli.core.rules import Rule
from composecli.report.harmless import MAX_TEXT_CHARS, sanitize
from composecli.report.text import (
    format_finding,
    format_problem,
    shorten_path,
)

FINDING = Finding(
    Rule.SIZE_DIFFERS,
    "feature width differs",
    (Side("a.pt", "output 0", "float32", ("N", "512")), Side("b.pt", "x", "float32", ("N", "768"))),
    1,
    ("a note",),
    Fix("composecli join a.pt b.pt --bridge linear", ("adds Linear(512 -> 768)",)),
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fc1.weight", "fc1.weight"),
        ("\x1b[31mred", "\ufffd[31mred"),
        ("one\ntwo", "one\ufffdtwo"),
        ("a\u202eb", "a\ufffdb"),
        ("a\udc80b", "a\ufffdb"),
        ("größe 尺寸", "größe 尺寸"),
    ],
)
def test_characters_that_affect_a_terminal_are_replaced(text: str, shown: str) -> None:
    assert sanitize(text) == shown


def test_a_long_text_is_cut() -> None:
    assert sanitize("x" * MAX_TEXT_CHARS) == "x" * MAX_TEXT_CHARS
    assert len(sanitize("x" * (MAX_TEXT_CHARS + 1))) == MAX_TEXT_CHARS
    assert sanitize("abcdef", 4) == "abc…"


def test_the_end_of_a_long_path_is_kept() -> None:
    assert shorten_path("models/encoder.pt") == "models/encoder.pt"
    assert shorten_path("/home/someone/models/encoder.pt") == "…e/models/encoder.pt"


def test_a_finding_marks_the_axis_below_its_dim() -> None:
    lines = [line.text for line in format_finding(FINDING, 80)]
    assert lines == [
        "error[CC203]: feature width differs",
        "  a.pt  output 0  float32[N, 512]",
        "  b.pt  x         float32[N, 768]",
        "                             ^^^ axis 1",
        "  note: a note",
        "  help: composecli join a.pt b.pt --bridge linear",
        "        adds Linear(512 -> 768)",
    ]


def test_a_bridged_finding_has_another_label_and_no_fix() -> None:
    lines = list(format_finding(FINDING, 80, with_fix=False, label="bridged"))
    assert lines[0] == ("bridged", "bridged[CC203]: feature width differs")
    assert all(line.style != "help" for line in lines)


def test_an_axis_that_no_side_has_is_not_marked() -> None:
    sides = (Side("a.pt", "2 outputs"), Side("b.pt", "x", "float32", None))
    finding = Finding(Rule.SIZE_DIFFERS, "title", sides, 1)
    assert [line.style for line in format_finding(finding, 80)] == ["error", "side", "side"]


def test_a_problem_is_laid_out_with_its_place_and_help() -> None:
    problem = Problem(Rule.NO_SUCH_FILE, "cannot read", "a\x1b.pt", ("one " * 30,), ("check it",))
    lines = [line.text for line in format_problem(problem, 60)]
    assert lines[:2] == ["error[CC901]: cannot read", "  a\ufffd.pt"]
    assert lines[-1] == "  help: check it"
    notes = lines[2:-1]
    assert len(notes) > 1
    assert all(len(line) <= 60 for line in notes)
    assert all(line.startswith("        ") for line in notes[1:])


def rendered(*sides: Side, axis: int, width: int = 80) -> list[str]:
    """Return the sides of a finding as lines, without its title."""
    finding = Finding(Rule.SIZE_DIFFERS, "feature width differs", sides, axis)
    return [line.text for line in format_finding(finding, width)][1:]


LONG = "/models/" + "a-folder-of-the-team/" * 3


def test_long_paths_get_lines_of_their_own_so_that_the_mark_lines_up() -> None:
    lines = rendered(
        Side(f"{LONG}a.pt", "output 0", "float32", ("N", "5")),
        Side(f"{LONG}b.pt", "input", "float32", ("N", "768")),
        axis=1,
    )
    assert lines == [
        f"  {LONG}a.pt",
        "    output 0  float32[N, 5]",
        f"  {LONG}b.pt",
        "    input     float32[N, 768]",
        "                         ^^^ axis 1",
    ]


def test_a_mark_counts_the_columns_of_wide_characters() -> None:
    lines = rendered(
        Side("模型.pt", "output 0", "float32", ("N", "5")),
        Side("b.pt", "input", "float32", ("N", "3")),
        axis=1,
    )
    assert lines == [
        "  模型.pt  output 0  float32[N, 5]",
        "  b.pt     input     float32[N, 3]",
        "                                ^ axis 1",
    ]


def test_an_axis_beyond_the_screen_is_named() -> None:
    dims = (*("a_long_name_of_a_dim" for _ in range(4)), "7")
    lines = rendered(Side("a.pt", "output 0", "float32", dims), axis=4)
    assert lines[-1] == "              axis 4: 7"


@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=90), min_size=2, max_size=2),
    st.integers(40, 120),
    st.integers(0, 3),
)
def test_carets_stand_below_their_dim(names: list[str], width: int, axis: int) -> None:
    dims = ("N", "64", "H//2", "ceil(W/8)")
    sides = [Side(name, "output 0", "float32", dims) for name in names]
    *_, above, mark = rendered(*sides, axis=axis, width=width)
    if "^" not in mark:
        return
    carets = mark.strip().partition(" ")[0]
    assert len(carets) == len(dims[axis])
    end = cell_len(above) - cell_len(above.rpartition("float32[")[2])
    start = end + sum(len(dim) + 2 for dim in dims[:axis])
    assert mark.index("^") == start
