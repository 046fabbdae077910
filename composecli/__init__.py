"""composecli: does one saved PyTorch model accept what another produces, and one file that does both.

The Python API, imported when it is used:

    report = composecli.check("encoder.pt", "head.pt")
    report.verdict, report.exit_code
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from composecli.api import check, inspect, join, options
    from composecli.core.errors import CouldNotAttempt
    from composecli.core.findings import Verdict

__version__ = "0.1.0"
__all__ = ["CouldNotAttempt", "Verdict", "check", "inspect", "join", "options"]

_HOMES = {"CouldNotAttempt": "core.errors", "Verdict": "core.findings"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'api')}"), name)
