"""python -m composecli, and the installed command."""

from __future__ import annotations

import contextlib
import os
import sys

from composecli import early_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_INTERRUPTED, _TERMINATED, _COULD_NOT_TELL = 130, 143, 3


def run() -> NoReturn:
    """Import and run the command line. Whatever ends the import has a message and a code, too."""
    early_signals.handle()
    _leave_out_current_folder()
    try:
        from composecli import cli

        cli.run()
    except KeyboardInterrupt:
        _exit("interrupted", _INTERRUPTED)
    except OSError as error:
        _exit(f"error: composecli could not start: {error}", _COULD_NOT_TELL)
    except BaseException as error:
        # SIGTERM may come just before or after the part of the command that handles it.
        from composecli.core.errors import Terminated

        if not isinstance(error, Terminated):
            raise
        _exit("terminated", _TERMINATED)


def _leave_out_current_folder() -> None:
    """Import nothing from the current folder, which may hold a stranger's `torch.py`.

    It is on the path with `python -m`, and with an empty or relative part of PYTHONPATH. It stays
    if composecli itself is there.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    with contextlib.suppress(OSError):
        here = os.getcwd()
        if here == home:
            return
        for path in list(sys.path):
            is_relative = not os.path.isabs(path) and os.path.isdir(path or os.curdir)
            if is_relative or path == here:
                sys.path.remove(path)


def _exit(message: str, code: int) -> NoReturn:
    """Exit with a message, which is lost if stderr is closed."""
    if sys.stderr is not None:
        sys.stderr.write(f"{message}\n")
    sys.exit(code)


if __name__ == "__main__":
    run()
