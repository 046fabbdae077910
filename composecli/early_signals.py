"""Ctrl-C and SIGTERM while the command line is still being imported and read.

Nothing has to be cleaned up then, and little is there to make a report with: this module imports
as little as it can. `console` takes over once a command runs.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import zip_longest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

# The code and the title of a report, and the exit code, by signal.
_ENDS = {
    signal.SIGINT: ("CC942", "interrupted", 130),
    signal.SIGTERM: ("CC943", "terminated", 143),
}
_REPORT = """{{
  "schema": 1,
  "exit_code": {exit_code},
  "command": null,
  "error": {{
    "code": "{code}",
    "title": "{title}",
    "where": null,
    "notes": [],
    "help": [],
    "trace": null
  }},
  "left_out": []
}}
"""


def handle() -> None:
    """Report these signals from now on, unless they are ignored, as behind `nohup`."""
    for number in _ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def is_handled(number: signal.Signals) -> bool:
    """Whether a signal is still reported from here."""
    return signal.getsignal(number) is _end


def asks_for(words: list[str], form: str) -> bool:
    """Return whether a command line, which may be wrong, has a `--format` with this value."""
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if word == "--":
            break
        if word == "--format":
            value = following
        elif word.startswith("--format="):
            value = word.removeprefix("--format=")
        else:
            continue
        if value == form:
            return True
    return False


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """Write the report as it was asked for, and exit at once."""
    code, title, exit_code = _ENDS[signal.Signals(number)]
    descriptor, text = 2, f"{title}\n"
    if asks_for(sys.argv[1:], "json"):
        descriptor = 1
        text = _REPORT.format(code=code, title=title, exit_code=exit_code)
    try:
        os.write(descriptor, text.encode())
    finally:
        os._exit(exit_code)
