"""Refusals name what speaks against a file, and what the user can do."""

from __future__ import annotations

from composecli.core.rules import Rule
from composecli.files.checkpoint import Checkpoint, Content
from composecli.files.safety.refusals import (
    MAX_SHOWN,
    Reason,
    damaged,
    of_checkpoint,
    of_program,
    of_records,
    shown,
)


def checkpoint(*, untrusted: tuple[str, ...] = (), hooks: tuple[str, ...] = ()) -> Checkpoint:
    return Checkpoint(Content.MODULE, untrusted, hooks, ())


def test_a_checkpoint_of_known_layers_is_not_refused() -> None:
    assert of_checkpoint("model.pt", checkpoint()) is None


def test_imports_are_reported_before_hooks() -> None:
    both = of_checkpoint("model.pt", checkpoint(untrusted=("it would import os",), hooks=("h",)))
    hooks = of_checkpoint("model.pt", checkpoint(hooks=("the module: _forward_hooks",)))
    assert both is not None
    assert both.rule is Rule.IMPORTS_NOT_TRUSTED
    assert both.notes == ("it would import os",)
    assert hooks is not None
    assert hooks.rule is Rule.HOOKS_NOT_TRUSTED


def test_a_program_is_refused_until_each_op_is_allowed() -> None:
    reasons = (Reason("it calls the op my::a", "my::a"), Reason("it calls the op my::b", "my::b"))
    problem = of_program("model.pt2", "export", reasons, frozenset())
    assert problem is not None
    allowing = problem.remedies[1]
    assert allowing.text == "--allow-op my::a --allow-op my::b"
    rest = of_program("model.pt2", "export", reasons, frozenset(("my::a",)))
    assert rest is not None
    assert rest.notes == ("it calls the op my::b",)
    assert of_program("model.pt2", "export", reasons, frozenset(("my::a", "my::b"))) is None


def test_a_reason_that_is_no_op_can_only_be_trusted() -> None:
    problem = of_program("model.pt2", "export", (Reason("it is odd"),), frozenset())
    assert problem is not None
    assert [remedy.text for remedy in problem.remedies] == ["--trust model.pt2"]


def test_allowing_ops_is_suggested_only_if_it_is_enough() -> None:
    op = Reason("it calls the op my::a", "my::a")
    many = tuple(Reason(f"it calls the op my::{n}", f"my::op{n}") for n in range(99))
    for reasons in ((op, Reason("it is odd")), many):
        problem = of_program("model.pt2", "export", reasons, frozenset())
        assert problem is not None
        assert [remedy.text for remedy in problem.remedies] == ["--trust model.pt2"]


def test_damage_is_reported_with_its_notes() -> None:
    assert damaged("model.pt", "it ends early").notes == ("it ends early",)
    assert of_records("model.pt", ()) is None
    problem = of_records("model.pt", ("a record is short",))
    assert problem is not None
    assert problem.rule is Rule.RECORDS_DO_NOT_FIT


def test_long_lists_are_cut_and_counted() -> None:
    lines = tuple(map(str, range(MAX_SHOWN + 2)))
    assert shown(lines) == (*lines[:MAX_SHOWN], "and 2 more")
    assert shown(lines[:MAX_SHOWN]) == lines[:MAX_SHOWN]
