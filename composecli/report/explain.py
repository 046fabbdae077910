"""The help on rules that `composecli explain` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from composecli.core.rules import Rule, Severity

MAX_COLUMNS = 78
_EFFECTS = {
    Severity.ERROR: "It makes the verdict bridgeable or incompatible: exit code 1.",
    Severity.UNKNOWN: "It leaves the verdict unknown: exit code 3.",
    Severity.WARNING: "It is counted beside the verdict: exit code 0, or 1 with --fail-on warning.",
    Severity.NOTE: "It is for information and does not change the verdict.",
}


def format_rule(rule: Rule) -> str:
    """Return the page of help for one rule: its code, name, explanation and effect."""
    explanation = textwrap.fill(rule.help, MAX_COLUMNS)
    effect = _effect(rule)
    return f"{rule.value}  {rule.slug}\n\n{explanation}\n\n{effect}\n"


def _effect(rule: Rule) -> str:
    """Return the effect of a finding or problem of this rule on a command."""
    if rule.is_problem:
        return f"It ends the command: exit code {rule.exit_code}."
    return _EFFECTS[rule.severity]


def list_rules() -> Iterator[str]:
    """Yield one line for each rule."""
    for rule in Rule:
        yield f"{rule.value}  {rule.severity:<8} {rule.slug}"


def find_rule(text: str) -> Rule | None:
    """Return the rule with this code or slug; None if there is none."""
    wanted = text.strip().lower()
    for rule in Rule:
        if wanted in (rule.value.lower(), rule.slug):
            return rule
    return None
