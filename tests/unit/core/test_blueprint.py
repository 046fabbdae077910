"""Blueprints: the models and bridges in them."""

from __future__ import annotations

import pytest

from composecli.core.blueprint import (
    Blueprint,
    Branch,
    Feed,
    Merge,
    Parallel,
    Sequential,
    Stage,
    bridges,
    models,
    renumber,
    single_model,
    used_paths,
)
from composecli.core.bridge import Cast, Flatten

FLATTEN, CAST = (Flatten(1),), (Cast("float32"),)
SEQUENTIAL = Sequential((Stage(4), Stage(2, (Feed((0,), bridge=FLATTEN), Feed((1,), "y")))))
PARALLEL = Parallel((Branch(4, ("logits",)), Branch(2, bridge=CAST)), Merge.STACK, -1)


@pytest.mark.parametrize("blueprint", [SEQUENTIAL, PARALLEL])
def test_the_models_are_listed_and_renumbered_in_order(blueprint: Blueprint) -> None:
    assert models(blueprint) == (4, 2)
    renumbered = renumber(blueprint, {4: 0, 2: 7})
    assert models(renumbered) == (0, 7)
    assert renumber(renumbered, {0: 4, 7: 2}) == blueprint


def test_a_model_that_is_used_twice_keeps_one_number() -> None:
    twice = Sequential((Stage(4), Stage(4, (Feed(),))))
    assert models(renumber(twice, {4: 1})) == (1, 1)


def test_only_bridges_with_steps_are_listed() -> None:
    assert bridges(SEQUENTIAL) == (FLATTEN,)
    assert bridges(PARALLEL) == (CAST,)
    assert bridges(single_model(3)) == ()


def test_a_single_model_receives_the_call_itself() -> None:
    assert single_model(3).stages == (Stage(3, ()),)


def test_the_used_parts_of_a_result_are_those_that_go_on() -> None:
    stages = (
        Stage(0),
        Stage(1, (Feed(("a",)), Feed((1,), "mask"))),
        Stage(0, (Feed(),)),
    )
    assert used_paths(Sequential(stages), 0) == (("a",), (1,), ())
    assert used_paths(Sequential(stages), 1) == ((),)
    branches = (Branch(0, ("a",)), Branch(1), Branch(0, ("a",)))
    assert used_paths(Parallel(branches, Merge.CAT), 0) == (("a",),)
