"""The page of help for one rule."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from composecli.core.rules import Rule

_EFFECT = {
    "error": "It makes the verdict bridgeable or incompatible: exit code 1.",
    "unknown": "It leaves the verdict unknown: exit code 3.",
    "note": "It informs and does not change the verdict.",
}


def page(rule: Rule) -> str:
    wrapped = textwrap.fill(rule.help, 78)
    return f"{rule.value}  {rule.slug}\n\n{wrapped}\n\n{_EFFECT[str(rule.severity)]}\n"


def listing() -> Iterator[str]:
    for rule in Rule:
        yield f"{rule.value}  {rule.severity:<8} {rule.slug}"


def find(text: str) -> Rule | None:
    """The rule with this code or slug."""
    wanted = text.strip().lower()
    return next((rule for rule in Rule if wanted in (rule.value.lower(), rule.slug)), None)
