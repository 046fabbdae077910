"""The help on rules."""

from __future__ import annotations

import pytest

from composecli.core.rules import Rule
from composecli.report.explain import find_rule, format_rule, list_rules


@pytest.mark.parametrize("rule", Rule)
def test_every_rule_is_found_by_its_code_and_by_its_slug(rule: Rule) -> None:
    assert find_rule(rule.value) is rule
    assert find_rule(f" {rule.slug.upper()} ") is rule


def test_there_is_no_rule_of_an_unknown_name() -> None:
    assert find_rule("CC000") is None
    assert find_rule("") is None


@pytest.mark.parametrize("rule", Rule)
def test_a_page_fits_on_a_screen_and_states_the_effect(rule: Rule) -> None:
    page = format_rule(rule)
    assert page.startswith(f"{rule.value}  {rule.slug}\n")
    assert max(map(len, page.splitlines())) <= 78
    assert ("exit code" in page.rpartition("\n\n")[2]) == (rule.severity.value != "note")


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("CC203", 1), ("CC304", 3), ("CC901", 3), ("CC919", 2), ("CC942", 130), ("CC970", 70)],
)
def test_a_page_tells_the_exit_code(code: str, exit_code: int) -> None:
    rule = find_rule(code)
    assert rule is not None
    assert rule.exit_code == exit_code
    assert format_rule(rule).rstrip().endswith(f"exit code {exit_code}.")


def test_every_rule_is_listed_once() -> None:
    assert [line.split()[0] for line in list_rules()] == [rule.value for rule in Rule]
