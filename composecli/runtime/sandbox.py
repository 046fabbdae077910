"""Confinement of the child: what it may still do once it opens a stranger's file.

No core file, no new privileges, no more memory than was given, and on Linux with Landlock: files are read where Python
and torch lie and where the models are, none but the output is written, no connection is made and no socket bound.
Nothing here can be undone by the process itself.

Source of the numbers: `linux/landlock.h`, `linux/prctl.h`; for the versions of Landlock
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

from composecli.workers.protocol import Sandbox, SandboxRequest

_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = (
    1 << 0,
    1 << 1,
    1 << 2,
    1 << 3,
    1 << 14,
    1 << 15,
)
# All rights over files that a version knows, by version: refer, truncate and ioctl came later.
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP, _SCOPES = 0b11, 0b11
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys", "/opt")
# What is open stays usable, and nothing more can be opened.
_NO_MORE = 0


class _Missing(Exception):
    """A measure that cannot be had here, in words."""


def apply_sandbox(request: SandboxRequest) -> Sandbox:
    """Take each measure that can be had, and say which those are."""
    had, missing = list[str](), list[str]()
    measures: list[Callable[[], str]] = [_no_core, _no_privileges, lambda: _memory(request.memory)]
    if request.files:
        measures.append(lambda: _landlock(request.read, request.write))
    for measure in measures:
        try:
            had.append(measure())
        except (_Missing, OSError, ValueError, ImportError, AttributeError) as error:
            missing.append(str(error) or type(error).__name__)
    return Sandbox(tuple(filter(None, had)), tuple(missing))


def _no_core() -> str:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return "no core file"


def _no_privileges() -> str:
    if sys.platform != "linux":
        raise _Missing(f"no limit of privileges on {sys.platform}")
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _Missing("the kernel did not give up privileges")
    return "no new privileges"


def _memory(limit: int | None) -> str:
    if limit is None:
        return ""
    if sys.platform != "linux":
        raise _Missing(f"no limit of memory on {sys.platform}")
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return f"memory {limit / 1e9:.1f} GB"


def _landlock(read: tuple[str, ...], write: tuple[str, ...]) -> str:
    if sys.platform != "linux":
        raise _Missing(f"no Landlock on {sys.platform}")
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        raise _Missing("the kernel has no Landlock")
    rights = _RIGHTS[min(version, max(_RIGHTS))]
    fields = [rights] + ([_TCP] if version >= 4 else []) + ([_SCOPES] if version >= 6 else [])
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        raise _Missing(f"Landlock: {os.strerror(ctypes.get_errno())}")
    # torch asks for its name when it is imported further, and would look for one that it can write to.
    tempfile.gettempdir()
    try:
        reading = _READ_FILE | _READ_DIR | _EXECUTE
        for path in dict.fromkeys((*_SYSTEM, *_python(), *read)):
            _allow(libc, rules, path, reading & rights)
        _allow(libc, rules, "/dev", (reading | _WRITE_FILE | _IOCTL) & rights)
        for path in write:
            _allow(libc, rules, path, (_READ_FILE | _WRITE_FILE | _TRUNCATE) & rights)
        if libc.syscall(_RESTRICT_SELF, rules, 0):
            raise _Missing(f"Landlock: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(rules)
    return f"Landlock {version}"


def _python() -> Iterator[str]:
    """Where modules are imported from, later than now too."""
    yield from (sys.prefix, sys.base_prefix)
    yield from (os.path.realpath(path or ".") for path in sys.path)


def _allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= ~_READ_DIR
        libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


@contextmanager
def nothing_opened() -> Iterator[None]:
    """While this lasts no file can be opened: what runs has what it needs open."""
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_NO_MORE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def renew_clock(seconds: float) -> None:
    """End this process by a signal once it has computed for so much longer."""
    if sys.platform != "linux":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
