"""Follows the help of a message: each command that it suggests is run, and has to get further."""

from __future__ import annotations

import re
import shlex

from tests.commands.running import Composecli, Installed, Ran

_CODE = re.compile(r"(?:error|unknown)\[(CC\d+)\]")
_COMMAND = re.compile(r"^ +help: composecli (.+)$", re.MULTILINE)


def commands_in(ran: Ran) -> list[list[str]]:
    """Return the words of each command that a message suggests."""
    return [shlex.split(command) for command in _COMMAND.findall(ran.out + ran.err)]


def code_of(ran: Ran) -> str | None:
    """Return the code of the first error in a report."""
    match = _CODE.search(ran.out + ran.err)
    if match is None:
        return None
    return match[1]


def follow(run: Composecli | Installed, ran: Ran) -> list[Ran]:
    """Run every command that a refusal suggests; each has to get further than the refusal did."""
    assert ran.code == 3, ran.out
    followed = list[Ran]()
    for words in commands_in(ran):
        next_one = run(*words)
        gets_further = next_one.code != 3 or code_of(next_one) != code_of(ran)
        assert gets_further, f"composecli {shlex.join(words)}\n{next_one.err}"
        followed.append(next_one)
    assert followed, ran.err
    return followed
