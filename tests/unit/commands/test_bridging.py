"""Bridging: the steps for several ports, and the fix that offers them."""

from __future__ import annotations

import shlex

import pytest

from composecli.commands.bridging import is_allowed, plan_bridges, steps_of, with_bridge_fix
from composecli.commands.requests import CheckRequest
from composecli.core.bridge import Bridge, BridgeMode, Cast, Flatten, Linear
from composecli.core.findings import Finding
from composecli.core.rules import Rule
from tests.parsing import port, spec

LAYER = Linear(1, 5, 3)


def test_each_tensor_gets_the_steps_to_its_port() -> None:
    needs = [
        (spec("float32[2, 5]"), port("float32[N, 3]")),
        (spec("float32[2, 5]"), port("float32[N, 5]")),
        (spec("float32[2, 4, 2]"), port("float32[N, 8]")),
    ]
    assert plan_bridges(needs) == ((LAYER,), (), (Flatten(1),))


def test_one_tensor_that_cannot_be_made_to_fit_rules_out_all() -> None:
    ids = (spec("float32[2, 5]"), port("int64[N, T]"))
    assert plan_bridges([(spec("float32[2, 5]"), port("float32[N, 3]")), ids]) is None


@pytest.mark.parametrize(
    ("mode", "steps", "allowed"),
    [
        (BridgeMode.NONE, (Flatten(1),), False),
        (BridgeMode.AUTO, (Flatten(1), Cast("float32")), True),
        (BridgeMode.AUTO, (Flatten(1), LAYER), False),
        (BridgeMode.LINEAR, (Flatten(1),), True),
        (BridgeMode.LINEAR, (LAYER,), True),
    ],
)
def test_a_layer_has_to_be_asked_for(mode: BridgeMode, steps: Bridge, allowed: bool) -> None:
    assert is_allowed(mode, steps) is allowed


@pytest.mark.parametrize(
    ("steps", "mode"), [((Flatten(1),), "auto"), ((Flatten(1), LAYER), "linear")]
)
def test_the_fix_is_a_join_with_the_mode_that_allows_the_steps(steps: Bridge, mode: str) -> None:
    request = CheckRequest(("a b.pt", "c.pt"))
    (finding,) = with_bridge_fix((Finding(Rule.RANK_DIFFERS, "rank differs"),), steps, request)
    assert finding.fix is not None
    assert shlex.split(finding.fix.command) == [
        "composecli", "join", "a b.pt", "c.pt", "--bridge", mode, "-o", "both.pt",
    ]  # fmt: skip
    assert finding.fix.effect[0] == "adds flatten from axis 1"
    assert finding.fix.bridge == steps


@pytest.mark.parametrize(
    ("rule", "fixed"),
    [
        (Rule.SIZE_DIFFERS, True),
        (Rule.MERGE_SIZES_DIFFER, True),
        (Rule.NOT_AT_EVERY_SIZE, False),
        (Rule.FITS_ONLY_AT_SOME_SIZES, False),
    ],
)
def test_only_errors_that_a_bridge_resolves_get_the_fix(rule: Rule, fixed: bool) -> None:
    (finding,) = with_bridge_fix((Finding(rule, "title"),), (LAYER,), CheckRequest(("a", "b")))
    assert (finding.fix is not None) is fixed


def test_the_steps_of_several_bridges_are_listed_in_order() -> None:
    assert steps_of([(Cast("float32"), LAYER), (), (Flatten(1),)]) == (
        Cast("float32"),
        LAYER,
        Flatten(1),
    )
