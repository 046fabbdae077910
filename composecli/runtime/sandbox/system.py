"""The system beneath the measures: its C library, and the error for a measure that it lacks."""

from __future__ import annotations

import ctypes
import os
import sys


class NotAvailable(Exception):
    """This system does not have a measure. The message is for the user."""


def require_linux(measure: str) -> None:
    """Do nothing on Linux.

    Raises:
        NotAvailable: on another system.
    """
    if sys.platform != "linux":
        raise NotAvailable(f"no {measure} on {sys.platform}")


def libc() -> ctypes.CDLL:
    """Return the C library of this process."""
    return ctypes.CDLL(None, use_errno=True)


def last_error(measure: str) -> OSError:
    """Return the error of the last call of the C library, as a measure's."""
    number = ctypes.get_errno()
    return OSError(number, f"{measure}: {os.strerror(number)}")
