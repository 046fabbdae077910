"""What stops composecli from attempting what it was asked: never a mismatch, which is a value."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.core.rules import Rule


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something could not be attempted, in the parts of a message.

    `where` names the file or model it is about, `notes` are facts, `help` is what to do.
    """

    rule: Rule
    title: str
    where: str | None = None
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    trace: str | None = None

    @property
    def code(self) -> str:
        """The code of the rule, as in `CC901`."""
        return self.rule.value


class CouldNotAttempt(Exception):
    """The question could not be asked: unreadable, refused, crashed. Exit code 3."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.title)
        self.problem = problem
