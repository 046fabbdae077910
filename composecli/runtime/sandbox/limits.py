"""Limits that a process sets for itself: core files, privileges, memory, open files and time.

Sources of the numbers: `linux/prctl.h`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from composecli.runtime.sandbox.system import last_error, libc, require_linux
from composecli.workers.protocol import Measure, MeasureKind

_PR_SET_NO_NEW_PRIVS = 38
EXTRA_SECONDS = 2


def forbid_core_files() -> Measure:
    """Set the size limit of core files to 0 bytes: they would hold the memory of the models."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return Measure(MeasureKind.NO_CORE_FILE)


def forbid_new_privileges() -> Measure:
    """Make set-user-id programs run without new rights; Landlock and seccomp require this first.

    Raises:
        NotAvailable: on a system other than Linux.
        OSError: if the kernel refuses.
    """
    require_linux("limit of privileges")
    if libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise last_error("privileges")
    return Measure(MeasureKind.NO_NEW_PRIVILEGES)


def limit_memory(limit: int) -> Measure:
    """Limit the data segment and private mappings of this process to `limit` bytes.

    Raises:
        NotAvailable: on a system other than Linux.
    """
    require_linux("limit of memory")
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    # A lower limit of the shell stays: only root may raise it.
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return Measure(MeasureKind.MEMORY_LIMIT, f"{limit / 1e9:.1f} GB")


@contextmanager
def forbid_opening_files() -> Iterator[None]:
    """Forbid opening files in the body; open files remain usable. Does nothing except on Linux."""
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def renew_time_limit(seconds: float) -> None:
    """Have the kernel end this process after `seconds` more of computing time."""
    if sys.platform != "linux":
        return
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    limit = int(used + seconds) + EXTRA_SECONDS
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))
