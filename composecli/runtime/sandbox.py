"""The sandbox of the child: the rights that it gives up before it opens an untrusted file.

It writes no core file, gains no privileges and gets no more memory than the limit. On Linux with
Landlock it reads only the folders of Python and torch and the models, writes only the output, and
neither connects nor binds a socket. The process itself cannot undo any of this.

Sources of the numbers: `linux/landlock.h`, `linux/prctl.h`; for the versions of Landlock
`Documentation/userspace-api/landlock.rst`.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from composecli.workers.protocol import Measure, MeasureKind, Sandbox, SandboxRequest

_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_TRUNCATE = 1 << 14
_IOCTL = 1 << 15
# All file rights that a version of Landlock handles. Versions 2, 3 and 5 added refer, truncate
# and ioctl; later versions handle no further file rights.
_FILE_RIGHTS = {
    1: (1 << 13) - 1,
    2: (1 << 14) - 1,
    3: (1 << 15) - 1,
    4: (1 << 15) - 1,
    5: (1 << 16) - 1,
}
_TCP_RIGHTS, _TCP_VERSION = 0b11, 4
_SCOPES, _SCOPES_VERSION = 0b11, 6

_SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys", "/opt")
EXTRA_SECONDS = 2


class _NotAvailable(Exception):
    """A measure is not available here. The message is for the user."""


def apply_sandbox(request: SandboxRequest) -> Sandbox:
    """Apply each measure that is available, and return which ones were applied."""
    measures: list[Callable[[], Measure]] = [_forbid_core_files, _forbid_new_privileges]
    if request.memory is not None:
        measures.append(partial(_limit_memory, request.memory))
    if request.files:
        measures.append(partial(_restrict_files, request.read, request.write))
    applied = list[Measure]()
    unavailable = list[str]()
    for apply in measures:
        try:
            applied.append(apply())
        except (_NotAvailable, OSError, ValueError, ImportError, AttributeError) as error:
            reason = str(error) or type(error).__name__
            unavailable.append(reason)
    return Sandbox(tuple(applied), tuple(unavailable))


def _forbid_core_files() -> Measure:
    """Set the size limit of core files to 0 bytes: they would hold the memory of the models."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return Measure(MeasureKind.NO_CORE_FILE)


def _forbid_new_privileges() -> Measure:
    """Make set-user-id programs run without new rights; Landlock requires this first."""
    if sys.platform != "linux":
        raise _NotAvailable(f"no limit of privileges on {sys.platform}")
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if failed:
        raise _NotAvailable("the kernel did not give up privileges")
    return Measure(MeasureKind.NO_NEW_PRIVILEGES)


def _limit_memory(limit: int) -> Measure:
    """Limit the data segment and private mappings of this process to `limit` bytes."""
    if sys.platform != "linux":
        raise _NotAvailable(f"no limit of memory on {sys.platform}")
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return Measure(MeasureKind.MEMORY_LIMIT, f"{limit / 1e9:.1f} GB")


def _restrict_files(read: tuple[str, ...], write: tuple[str, ...]) -> Measure:
    """Deny all files except the system's, Python's and the given ones, and all connections."""
    if sys.platform != "linux":
        raise _NotAvailable(f"no Landlock on {sys.platform}")
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        raise _NotAvailable("the kernel has no Landlock")
    # torch asks for the temporary folder when it imports more of itself, and searching for one
    # needs write access. gettempdir remembers the folder.
    tempfile.gettempdir()
    ruleset = _create_ruleset(libc, version)
    try:
        handled = _handled_rights(version)
        _allow_paths(libc, ruleset, handled, read, write)
        if libc.syscall(_RESTRICT_SELF, ruleset, 0):
            raise _NotAvailable(f"Landlock: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(ruleset)
    return Measure(MeasureKind.LANDLOCK, str(version))


def _handled_rights(version: int) -> int:
    """Return the file rights of a version of Landlock; a newer one has those of the last known."""
    newest = max(_FILE_RIGHTS)
    return _FILE_RIGHTS[min(version, newest)]


def _create_ruleset(libc: ctypes.CDLL, version: int) -> int:
    """Create a ruleset that denies all it handles; return its descriptor."""
    fields = [_handled_rights(version)]
    if version >= _TCP_VERSION:
        fields.append(_TCP_RIGHTS)
    if version >= _SCOPES_VERSION:
        fields.append(_SCOPES)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    size = ctypes.c_size_t(len(attributes))
    ruleset: int = libc.syscall(_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        raise _NotAvailable(f"Landlock: {os.strerror(ctypes.get_errno())}")
    return ruleset


def _allow_paths(
    libc: ctypes.CDLL, ruleset: int, handled: int, read: tuple[str, ...], write: tuple[str, ...]
) -> None:
    """Allow files under each path, by the rights in `handled`, the ones that the kernel knows."""
    reading = _READ_FILE | _READ_DIR | _EXECUTE
    devices = reading | _WRITE_FILE | _IOCTL
    writing = _READ_FILE | _WRITE_FILE | _TRUNCATE
    readable = (*_SYSTEM_FOLDERS, *_python_folders(), *read)
    for path in dict.fromkeys(readable):
        _allow(libc, ruleset, path, reading & handled)
    _allow(libc, ruleset, "/dev", devices & handled)
    for path in write:
        _allow(libc, ruleset, path, writing & handled)


def _python_folders() -> Iterator[str]:
    """Yield the folders from which modules are imported, including those imported later."""
    yield sys.prefix
    yield sys.base_prefix
    for path in sys.path:
        yield os.path.realpath(path or ".")


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """Add a rule for one file or folder and all below it; a path that is missing gets none."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= ~_READ_DIR
        rule = struct.pack("=Qi", rights, descriptor)
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


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
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
