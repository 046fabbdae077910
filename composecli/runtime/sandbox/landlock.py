"""Landlock: this process opens only the files that it names before, and connects to nothing.

Sources of the numbers: `linux/landlock.h`; for its versions
`Documentation/userspace-api/landlock.rst`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag

from composecli.runtime.sandbox.system import NotAvailable, last_error, libc, require_linux
from composecli.workers.protocol import Measure, MeasureKind

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
# A kernel without it, with another lock in its place, or in a container that does not allow it.
_ABSENT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)

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


class Rights(IntFlag):
    """What a rule allows. Executing a program is allowed nowhere."""

    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    TRUNCATE = 1 << 14
    IOCTL = 1 << 15

    READ = READ_FILE | READ_DIR
    WRITE = READ_FILE | WRITE_FILE | TRUNCATE
    DEVICE = READ_FILE | WRITE_FILE | IOCTL


@dataclass(frozen=True, slots=True)
class Allowed:
    """A file, or a folder and all below it, and the rights to it."""

    path: str
    rights: Rights = Rights.READ


def restrict_files(allowed: Iterable[Allowed]) -> Measure:
    """Deny this process all files except the allowed ones, and all connections.

    Raises:
        NotAvailable: if the system has no Landlock, or it would not cover every thread.
        OSError: if the kernel has Landlock and refuses to apply it.
    """
    require_linux("Landlock")
    version = _version()
    others = _other_threads()
    ruleset = _create_ruleset(version)
    try:
        for item in allowed:
            _allow(ruleset, item, _handled_rights(version))
        if libc().syscall(_RESTRICT_SELF, ruleset, 0):
            raise last_error("Landlock")
    finally:
        os.close(ruleset)
    if others:
        raise NotAvailable(f"Landlock does not cover {others} threads that were running before")
    return Measure(MeasureKind.LANDLOCK, str(version))


def _version() -> int:
    """Return the version of Landlock."""
    version: int = libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version > 0:
        return version
    if ctypes.get_errno() in _ABSENT:
        raise NotAvailable("the kernel has no Landlock")
    raise last_error("Landlock")


def _handled_rights(version: int) -> int:
    """Return the file rights of a version of Landlock; a newer one has those of the last known."""
    newest = max(_FILE_RIGHTS)
    return _FILE_RIGHTS[min(version, newest)]


def _create_ruleset(version: int) -> int:
    """Create a ruleset that denies all it handles; return its descriptor."""
    fields = [_handled_rights(version)]
    if version >= _TCP_VERSION:
        fields.append(_TCP_RIGHTS)
    if version >= _SCOPES_VERSION:
        fields.append(_SCOPES)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    size = ctypes.c_size_t(len(attributes))
    ruleset: int = libc().syscall(_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        raise last_error("Landlock")
    return ruleset


def _allow(ruleset: int, item: Allowed, handled: int) -> None:
    """Add a rule; a path that is missing gets none."""
    try:
        descriptor = os.open(item.path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        rights = item.rights & handled
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= ~Rights.READ_DIR
        rule = struct.pack("=Qi", rights, descriptor)
        if libc().syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0):
            raise last_error("Landlock")
    finally:
        os.close(descriptor)


def _other_threads() -> int:
    """Return how many threads run besides the caller's, which is all that Landlock covers."""
    return len(os.listdir("/proc/self/task")) - 1
