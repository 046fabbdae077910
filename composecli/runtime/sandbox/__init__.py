"""The sandbox of the child: the rights that it gives up before it opens an untrusted file.

It writes no core file, gains no privileges and gets no more memory than the limit. On Linux with
Landlock it reads only Python, torch and the models, writes only the output, and neither connects
nor binds a socket; with seccomp it starts no process and makes only the system calls of a program
that computes. The process itself cannot undo any of this.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

from composecli.runtime.sandbox.landlock import restrict_files
from composecli.runtime.sandbox.limits import (
    forbid_core_files,
    forbid_new_privileges,
    forbid_opening_files,
    limit_memory,
    renew_time_limit,
)
from composecli.runtime.sandbox.needed_files import needed_files, prepare
from composecli.runtime.sandbox.seccomp import restrict_calls
from composecli.runtime.sandbox.system import NotAvailable
from composecli.workers.protocol import Measure, Sandbox, SandboxRequest

__all__ = ["apply_sandbox", "forbid_opening_files", "renew_time_limit"]


def apply_sandbox(request: SandboxRequest) -> Sandbox:
    """Apply each measure that is available.

    Return which ones were applied, which ones this system does not have, and which ones it has but
    did not give.

    Raises:
        MemoryError: if the memory is too little to apply them.
    """
    applied = list[Measure]()
    unavailable = list[str]()
    failed = list[str]()
    for apply in _measures(request):
        try:
            applied.append(apply())
        except NotAvailable as missing:
            unavailable.append(str(missing))
        except MemoryError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOMEM:
                raise MemoryError from error
            failed.append(f"{type(error).__name__}: {error}")
    return Sandbox(tuple(applied), tuple(unavailable), tuple(failed), asked_for_lock=request.files)


def _measures(request: SandboxRequest) -> list[Callable[[], Measure]]:
    """Return the measures in order: the last two deny files and calls that the others need."""
    measures: list[Callable[[], Measure]] = [forbid_core_files, forbid_new_privileges]
    if request.memory is not None:
        measures.append(partial(limit_memory, request.memory))
    if request.files:
        measures.append(partial(_lock_files, request))
    if request.files and not request.uses_cuda:
        # The driver of a GPU makes other calls.
        measures.append(restrict_calls)
    return measures


def _lock_files(request: SandboxRequest) -> Measure:
    """Deny all files that are not needed for this request."""
    prepare()
    return restrict_files(list(needed_files(request)))
