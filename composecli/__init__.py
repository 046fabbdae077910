"""composecli: check whether one saved PyTorch model accepts another's output, and join the two.

The Python API is imported when it is first used:

    report = composecli.check("encoder.pt", "head.pt")
    report.verdict, report.exit_code
"""

from __future__ import annotations

from composecli.core.version import VERSION

# As typing has it, which takes milliseconds to import: Ctrl-C is not handled before that.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composecli.api import check, inspect, join, options, suite
    from composecli.core.errors import CouldNotAttempt
    from composecli.core.findings import Verdict

__version__ = VERSION
__all__ = ["CouldNotAttempt", "Verdict", "check", "inspect", "join", "options", "suite"]

_MODULES = {"CouldNotAttempt": "core.errors", "Verdict": "core.findings"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = _MODULES.get(name, "api")
    return getattr(import_module(f"{__name__}.{module}"), name)
