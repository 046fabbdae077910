"""Findings: facts about a seam, with the place, both sides and a fix; and the verdict on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from composecli.core.bridge import Bridge
from composecli.core.rules import Rule, Severity


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a seam: the model and its port. `dims` are separate so that one can be marked.

    `where` are the relations between the dims, as text: ` where C*H*W == 1024`.
    """

    model: str
    port: str
    dtype: str = ""
    dims: tuple[str, ...] | None = None
    where: str = ""

    @property
    def text(self) -> str:
        """The port as it is shown: `float32[N, 5]`, or `float32[*]` for any rank."""
        if not self.dtype:
            return "" if self.dims is None else "not known"
        dims = "*" if self.dims is None else ", ".join(self.dims)
        return f"{self.dtype}[{dims}]{self.where}"


@dataclass(frozen=True, slots=True)
class Fix:
    """A command that resolves a finding, and its effect. `bridge` has its steps, if any."""

    command: str
    effect: tuple[str, ...] = ()
    bridge: Bridge = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a forward failed: the op, `aten::mm`, and the submodule, `layers.3.attn`, if known."""

    op: str | None
    submodule: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about a seam or a model. `axis` is marked in the text of each side.

    `other_fixes` are alternatives to `fix`, and `help` is advice that is no command to run as it
    is. `place` is where a forward failed.
    """

    rule: Rule
    title: str
    sides: tuple[Side, ...] = ()
    axis: int | None = None
    notes: tuple[str, ...] = ()
    fix: Fix | None = None
    other_fixes: tuple[Fix, ...] = ()
    help: tuple[str, ...] = ()
    place: Place | None = None

    @property
    def fixes(self) -> tuple[Fix, ...]:
        """All fixes, the best one first."""
        if self.fix is None:
            return self.other_fixes
        return (self.fix, *self.other_fixes)

    @property
    def code(self) -> str:
        """The code of the rule, as in `CC203`."""
        return self.rule.value

    def noted(self, *notes: str) -> Finding:
        """Return the finding with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    @property
    def severity(self) -> Severity:
        """The effect of the rule on the verdict."""
        return self.rule.severity


class Verdict(StrEnum):
    """The answer about a seam. Its value is the word that users see."""

    COMPATIBLE = "compatible"
    BRIDGEABLE = "bridgeable"
    INCOMPATIBLE = "incompatible"
    UNKNOWN = "unknown"


def change_first_error(
    findings: tuple[Finding, ...], change: Callable[[Finding], Finding]
) -> tuple[Finding, ...]:
    """Return the findings with the first error changed; as they are if none is an error."""
    for number, finding in enumerate(findings):
        if finding.severity is Severity.ERROR:
            return (*findings[:number], change(finding), *findings[number + 1 :])
    return findings


def verdict_of(findings: tuple[Finding, ...]) -> Verdict:
    """Return the verdict on a seam with these findings.

    Any error makes it incompatible, or bridgeable if each error has a bridge.
    """
    severities = {finding.severity for finding in findings}
    if Severity.ERROR in severities:
        errors = [finding for finding in findings if finding.severity is Severity.ERROR]
        if all(finding.fix is not None and finding.fix.bridge for finding in errors):
            return Verdict.BRIDGEABLE
        return Verdict.INCOMPATIBLE
    if Severity.UNKNOWN in severities:
        return Verdict.UNKNOWN
    return Verdict.COMPATIBLE
