"""Problems that keep composecli from answering. A mismatch is an answer: see findings."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from composecli.core.rules import Rule


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of the command that gets further, and its effect.

    `model` replaces the MODEL argument at fault, unless it is empty, and `words` are added to the
    options. `command` is the changed command line, which only the command itself can write.
    """

    words: tuple[str, ...] = ()
    model: str = ""
    effect: str = ""
    command: str = ""

    @property
    def text(self) -> str:
        """The command line; the change alone as long as nothing has filled that in."""
        if self.command:
            return self.command
        return shlex.join(word for word in (self.model, *self.words) if word)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something could not be attempted, in the parts of an error message.

    `where` names the file or model concerned, `notes` are facts, `remedies` are commands to run
    instead, `help` is advice that is no command, and `trace` is the traceback from another process.
    """

    rule: Rule
    title: str
    where: str | None = None
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    trace: str | None = None
    remedies: tuple[Remedy, ...] = ()

    @property
    def code(self) -> str:
        """The code of the rule, as in `CC901`."""
        return self.rule.value


class CouldNotAttempt(Exception):
    """The command cannot be carried out: unreadable, refused, crashed. Exit code 3."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.title)
        self.problem = problem
