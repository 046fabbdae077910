"""Findings: one fact about a seam, with its place, what was expected, what was found and a fix; and verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from composecli.core.bridge import Bridge
from composecli.core.rules import Rule, Severity


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a seam: the model, its port, and the port's text in pieces, so that an axis can be marked."""

    model: str
    port: str
    dtype: str = ""
    dims: tuple[str, ...] | None = None

    @property
    def text(self) -> str:
        if not self.dtype:
            return "" if self.dims is None else "not known"
        return f"{self.dtype}[{'*' if self.dims is None else ', '.join(self.dims)}]"


@dataclass(frozen=True, slots=True)
class Fix:
    """A command that mends it, and what it does. `bridge` holds the steps where the fix is one."""

    command: str
    effect: tuple[str, ...] = ()
    bridge: Bridge = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about a seam or a model, under a rule; `axis` is the one to mark in the text of each side."""

    rule: Rule
    title: str
    sides: tuple[Side, ...] = ()
    axis: int | None = None
    notes: tuple[str, ...] = ()
    fix: Fix | None = None

    @property
    def code(self) -> str:
        """The code of the rule, as in `CC203`."""
        return self.rule.value

    @property
    def severity(self) -> Severity:
        return self.rule.severity


class Verdict(StrEnum):
    COMPATIBLE = "compatible"
    BRIDGEABLE = "bridgeable"
    INCOMPATIBLE = "incompatible"
    UNKNOWN = "unknown"


def verdict_of(findings: tuple[Finding, ...]) -> Verdict:
    """The verdict that findings amount to: an error refuses, or is bridgeable where each has a bridge."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        bridged = all(finding.fix is not None and finding.fix.bridge for finding in errors)
        return Verdict.BRIDGEABLE if bridged else Verdict.INCOMPATIBLE
    if any(finding.severity is Severity.UNKNOWN for finding in findings):
        return Verdict.UNKNOWN
    return Verdict.COMPATIBLE
