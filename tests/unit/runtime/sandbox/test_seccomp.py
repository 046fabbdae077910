"""The filter of system calls: what it denies, in every thread, and what it leaves."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from composecli.runtime.sandbox import seccomp
from tests.commands.running import environment

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="the numbers below are those of Linux on x86_64",
)

RUN = """
import ctypes, errno, json, os, signal, socket, subprocess, sys, threading
from composecli.runtime.sandbox import limits, seccomp
libc = ctypes.CDLL(None, use_errno=True)
limits.forbid_new_privileges()

def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result == -1:
        return errno.errorcode[ctypes.get_errno()]
    return "done"

def attempt(function):
    try:
        function()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
"""

# By name, with arguments for which the call would otherwise succeed or fail in another way.
DENIED = {
    "ptrace": (101, 16, 1, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "pidfd_open": (434, 1, 0),
    "pidfd_getfd": (438, 0, 0, 0),
    "kill": (62, 1, 0),
    "tgkill of another process": (234, 1, 1, 0),
    "rt_sigqueueinfo": (129, 1, 0, 0),
    "fork": (57,),
    "vfork": (58,),
    "clone of a process": (56, 17, 0, 0, 0, 0),
    "clone of a namespace": (56, 0x003D0F00 | 0x00020000, 0, 0, 0, 0),
    "execve": (59, 0, 0, 0),
    "execveat": (322, 0, 0, 0, 0, 0),
    "socket": (41, 2, 1, 0),
    "unix socket": (41, 1, 1, 0),
    "socketpair": (53, 1, 1, 0, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount": (166, 0, 0),
    "pivot_root": (155, 0, 0),
    "chroot": (161, 0),
    "unshare": (272, 0x10000000),
    "setns": (308, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, 0, 0, 0),
    "userfaultfd": (323, 0),
    "io_uring_setup": (425, 1, 0),
    "io_uring_enter": (426, 0, 0, 0, 0, 0),
    "keyctl": (250, 0),
    "add_key": (248, 0, 0, 0, 0, 0),
    "request_key": (249, 0, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "init_module": (175, 0, 0, 0),
    "finit_module": (313, 0, 0, 0),
    "open_by_handle_at": (304, 0, 0, 0),
    "chmod": (90, 0, 0),
    "utimensat": (280, 0, 0, 0, 0),
    "shmget": (29, 0, 4096, 0o1600),
    "landlock_create_ruleset": (444, 0, 0, 1),
    "limits of another process": (302, 1, 7, 0, 0),
    "typing into the terminal": (16, 0, 0x5412, 0),
    "signals for a file": (72, 0, 8, 1),
    "another filter": (157, 22, 2, 0),
}
# As on a kernel that does not have them, so that C libraries make other calls.
ABSENT = {"clone3": (435, 0, 0), "x32 getpid": (0x40000000 | 39,), "of the future": (600,)}


def run(code: str, argument: object = None) -> Any:
    command = [sys.executable, "-c", RUN + code, json.dumps(argument)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    return json.loads(ran.stdout)


def test_calls_that_do_not_compute_are_denied() -> None:
    code = """
seccomp.restrict_calls()
calls = json.loads(sys.argv[1])
print(json.dumps({name: call(*numbers) for name, numbers in calls.items()}))
"""
    expected = {**dict.fromkeys(DENIED, "EPERM"), **dict.fromkeys(ABSENT, "ENOSYS")}
    assert run(code, {**DENIED, **ABSENT}) == expected


def test_threads_that_were_running_are_covered() -> None:
    code = """
go, outcomes = threading.Event(), []
def wait():
    go.wait()
    outcomes.append(attempt(socket.socket))
thread = threading.Thread(target=wait)
thread.start()
seccomp.restrict_calls()
go.set()
thread.join()
print(json.dumps(outcomes))
"""
    assert run(code) == ["EPERM"]


def test_what_a_program_that_computes_does_is_allowed() -> None:
    code = """
import mmap, time
seccomp.restrict_calls()
def start_thread():
    thread = threading.Thread(target=time.sleep, args=(0.001,))
    thread.start()
    thread.join()
def copy_through_memory():
    with os.fdopen(os.memfd_create("copy"), "w+b") as file:
        file.write(b"copy")
        file.flush()
        assert open(f"/dev/fd/{file.fileno()}", "rb").read() == b"copy"
steps = [
    start_thread,
    copy_through_memory,
    lambda: mmap.mmap(-1, 4096),
    lambda: os.listdir("/proc/self/fd"),
    lambda: os.urandom(8),
    lambda: signal.raise_signal(signal.SIGCHLD),
    lambda: os.isatty(0),
]
print(json.dumps([attempt(step) for step in steps]))
"""
    assert run(code) == ["done"] * 7


def test_abort_still_ends_the_process() -> None:
    code = f"{RUN}\nseccomp.restrict_calls()\nos.abort()"
    ran = subprocess.run([sys.executable, "-c", code], env=environment(), check=False)
    assert ran.returncode == -6


def test_calls_of_32_bit_programs_are_denied() -> None:
    """Their numbers mean other calls. The filter is run on them as the kernel runs it."""
    program = b"".join(seccomp._program(seccomp._MACHINES["x86_64"]))
    assert _verdict(program, 0xC000003E, 0) == seccomp._ALLOW
    assert _verdict(program, 0x40000003, 0) == seccomp._FAIL | 1


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_each_listed_call_is_allowed_on_each_machine(machine: str) -> None:
    described = seccomp._MACHINES[machine]
    program = b"".join(seccomp._program(described))
    numbers = [allowed for allowed in seccomp._allowed_calls(described) if not allowed.values]
    assert len(numbers) > 80
    for allowed in numbers:
        assert _verdict(program, described.audit, allowed.number) == seccomp._ALLOW
    everything = {allowed.number for allowed in seccomp._allowed_calls(described)}
    for number in set(range(described.newest)) - everything - {described.clone3}:
        assert _verdict(program, described.audit, number) == seccomp._FAIL | 1


def _verdict(program: bytes, architecture: int, number: int) -> int:
    """Run a filter on a call without arguments."""
    import struct

    data = struct.pack("=II56x", number, architecture)
    accumulator, place = 0, 0
    while True:
        code, if_so, if_not, operand = struct.unpack_from("=HBBI", program, 8 * place)
        place += 1
        if code == seccomp._RETURN:
            return int(operand)
        if code == seccomp._LOAD_WORD:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        else:
            holds = accumulator == operand
            if code == seccomp._JUMP_IF_AT_LEAST:
                holds = accumulator >= operand
            place += if_so if holds else if_not


def test_package_has_the_list_of_calls() -> None:
    assert Path(seccomp.__file__).with_name("syscalls.txt").is_file()
