"""Rules: their codes, slugs and severities are public."""

from __future__ import annotations

import re

import pytest

from composecli.core.rules import Rule, Severity


@pytest.mark.parametrize("rule", Rule)
def test_a_rule_has_a_code_a_slug_and_a_text(rule: Rule) -> None:
    assert re.fullmatch(r"CC\d{3}", rule.value)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.slug)
    assert rule.help.strip() == rule.help
    assert rule.help.endswith(".")
    assert "\n" not in rule.help
    assert "  " not in rule.help


def test_no_two_rules_share_a_slug() -> None:
    assert len({rule.slug for rule in Rule}) == len(Rule)


def test_a_rule_is_found_by_its_code() -> None:
    # mypy takes the call for that of `__new__`, which creates the members.
    assert Rule("CC203") is Rule.SIZE_DIFFERS  # type: ignore[call-arg]
    assert str(Rule.SIZE_DIFFERS) == "CC203"


@pytest.mark.parametrize("rule", [rule for rule in Rule if rule.value.startswith("CC9")])
def test_a_problem_leaves_the_verdict_unknown(rule: Rule) -> None:
    assert rule.severity is Severity.UNKNOWN


@pytest.mark.parametrize("rule", Rule)
def test_only_errors_can_be_bridged(rule: Rule) -> None:
    if rule.bridgeable:
        assert rule.severity is Severity.ERROR
