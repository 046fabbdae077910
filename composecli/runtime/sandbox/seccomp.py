"""seccomp: this process makes no system calls but those of a program that computes.

It is a second lock. Landlock says nothing of starting programs, signals, tracing, Unix sockets,
the mode and times of files, or the parts of the kernel in which bugs are found. `syscalls.txt`
lists what is left, of which some are left only with certain arguments. Every other call fails with
EPERM, so that a library which only tries it goes on. The filter is classic BPF.

Sources of the numbers: `linux/seccomp.h`, `linux/filter.h`, `linux/audit.h`, `linux/sched.h`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from composecli.runtime.sandbox.system import NotAvailable, last_error, libc, require_linux
from composecli.workers.protocol import Measure, MeasureKind

_SET_MODE_FILTER, _ALL_THREADS = 1, 1
# A kernel that was built without it, or a container that does not allow another filter.
_ABSENT = (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EACCES)

_LOAD_WORD, _RETURN = 0x20, 0x06
_JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST = 0x15, 0x35
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
# struct seccomp_data: the number, the architecture, the address of the code, six arguments.
_NUMBER, _ARCHITECTURE, _ARGUMENTS, _ARGUMENT_BYTES = 0, 4, 16, 8


@dataclass(frozen=True, slots=True)
class _Machine:
    """An architecture: its column in `syscalls.txt`, how the kernel names it, some numbers."""

    column: int
    audit: int
    seccomp: int
    clone3: int = 435
    # The last call that was known when `syscalls.txt` was written.
    newest: int = 451


_MACHINES = {
    "x86_64": _Machine(1, 0xC000003E, 317),
    "aarch64": _Machine(2, 0xC00000B7, 277),
}


@dataclass(frozen=True, slots=True)
class _Allowed:
    """A system call that is allowed if one of its arguments has one of these values.

    Each is the lower half of a register, which is all that these calls read.
    """

    number: int
    argument: int = 0
    values: tuple[int, ...] = ()


def _conditions() -> dict[str, tuple[int, tuple[int, ...]]]:
    """Return the position and the allowed values of one argument, by the name of the call."""
    own = os.getpid()
    return {
        # The flags of a new thread in glibc and in musl; any others may start a process.
        "clone": (0, (0x3D0F00, 0x7D0F00)),
        "tgkill": (0, (own,)),
        "prlimit64": (0, (0, own)),
        "sched_setaffinity": (0, (0, own)),
        # Whether it is a terminal and how wide, how much there is to read, close on exec. Not
        # TIOCSTI, which types into the user's terminal.
        "ioctl": (1, (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)),
        # Duplicates, flags, locks and seals. Not F_SETOWN, which sends signals.
        "fcntl": (1, (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1033, 1034)),
        # The names of threads and mappings, and the privileges that were given up.
        "prctl": (0, (3, 15, 16, 21, 39, 0x53564D41)),
    }


def restrict_calls() -> Measure:
    """Deny all threads of this process every system call that is not needed to compute.

    Raises:
        NotAvailable: if the system has no seccomp, or its calls are not known here.
        OSError: if the kernel has seccomp and refuses the filter.
    """
    require_linux("seccomp")
    machine = _MACHINES.get(platform.machine())
    if machine is None or sys.maxsize < 2**32:
        raise NotAvailable(f"no seccomp filter for {platform.machine()}")
    _install(machine, b"".join(_program(machine)))
    return Measure(MeasureKind.SECCOMP)


def _install(machine: _Machine, program: bytes) -> None:
    """Apply a program to each thread of this process."""
    code = ctypes.create_string_buffer(program, len(program))
    instructions = len(program) // struct.calcsize("=HBBI")
    header = struct.pack("@HP", instructions, ctypes.addressof(code))
    call = libc().syscall
    call.restype = ctypes.c_long
    failed = call(machine.seccomp, _SET_MODE_FILTER, _ALL_THREADS, header)
    if failed > 0:
        raise OSError(errno.EBUSY, f"seccomp: the thread {failed} has another filter")
    if failed and ctypes.get_errno() in _ABSENT:
        raise NotAvailable("the kernel has no seccomp filters")
    if failed:
        raise last_error("seccomp")


def _program(machine: _Machine) -> Iterator[bytes]:
    """Yield the instructions of the filter."""
    yield _instruction(_LOAD_WORD, _ARCHITECTURE)
    # The calls of 32-bit programs have other numbers.
    yield _instruction(_JUMP_IF_EQUAL, machine.audit, if_so=1)
    yield _failing(errno.EPERM)
    yield _instruction(_LOAD_WORD, _NUMBER)
    # A newer call looks as if the kernel did not have it, and so do those of x32, which have a
    # high bit set.
    yield _instruction(_JUMP_IF_AT_LEAST, machine.newest + 1, if_not=1)
    yield _failing(errno.ENOSYS)
    for allowed in _allowed_calls(machine):
        yield from _check(allowed)
    # Its flags are in memory, where a filter cannot see them: C libraries then use clone.
    yield _instruction(_JUMP_IF_EQUAL, machine.clone3, if_not=1)
    yield _failing(errno.ENOSYS)
    yield _failing(errno.EPERM)


def _check(allowed: _Allowed) -> Iterator[bytes]:
    """Yield the instructions that allow one call; for every other call they do nothing."""
    if not allowed.values:
        yield _instruction(_JUMP_IF_EQUAL, allowed.number, if_not=1)
        yield _instruction(_RETURN, _ALLOW)
        return
    yield _instruction(_JUMP_IF_EQUAL, allowed.number, if_not=2 * len(allowed.values) + 2)
    yield _instruction(_LOAD_WORD, _ARGUMENTS + _ARGUMENT_BYTES * allowed.argument)
    for value in allowed.values:
        yield _instruction(_JUMP_IF_EQUAL, value, if_not=1)
        yield _instruction(_RETURN, _ALLOW)
    yield _failing(errno.EPERM)


def _instruction(code: int, operand: int, *, if_so: int = 0, if_not: int = 0) -> bytes:
    """Return an instruction; a comparison skips as many as its outcome says."""
    return struct.pack("=HBBI", code, if_so, if_not, operand)


def _failing(number: int) -> bytes:
    """Return the instruction that has the call fail with this error."""
    return _instruction(_RETURN, _FAIL | number)


def _allowed_calls(machine: _Machine) -> Iterator[_Allowed]:
    """Yield the calls of `syscalls.txt` that this machine has."""
    conditions = _conditions()
    text = Path(__file__).with_name("syscalls.txt").read_text()
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        words = line.split()
        number = words[machine.column]
        if number == "-":
            continue
        argument, values = conditions.get(words[0], (0, ()))
        yield _Allowed(int(number), argument, values)
