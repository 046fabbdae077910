"""Runs the installed command on a kernel that lacks something, or seems to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.commands.running import Ran, environment

SCRIPT = Path(sys.executable).with_name("composecli")
START = "\nimport os, sys\nos.execv(sys.argv[1], sys.argv[1:])\n"

# A filter that denies the calls of Landlock, as of a kernel that was built without it.
NO_LANDLOCK = """
import errno
from composecli.runtime.sandbox import limits, seccomp
limits.forbid_new_privileges()
instruction = seccomp._instruction
program = instruction(seccomp._LOAD_WORD, 0)
for call in (444, 445, 446):
    program += instruction(seccomp._JUMP_IF_EQUAL, call, if_not=1)
    program += seccomp._failing(errno.ENOSYS)
program += instruction(seccomp._RETURN, seccomp._ALLOW)
seccomp._install(seccomp._MACHINES[__import__("platform").machine()], program)
"""

# The kernel allows 16 locks one inside the other. These deny nothing that is used.
FULL_OF_LOCKS = """
import ctypes, os, struct
from composecli.runtime.sandbox import limits
limits.forbid_new_privileges()
libc = ctypes.CDLL(None, use_errno=True)
for _ in range(16):
    make_sockets = struct.pack("=Q", 1 << 9)
    ruleset = libc.syscall(444, make_sockets, ctypes.c_size_t(8), 0)
    assert ruleset >= 0
    assert libc.syscall(446, ruleset, 0) == 0
    os.close(ruleset)
"""


def run_on(kernel: str, *words: object, **variables: str) -> Ran:
    """Run the installed command after the code `kernel` in the same process."""
    command = [sys.executable, "-c", kernel + START, str(SCRIPT), *map(str, words)]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**environment(), **variables},
        timeout=300,
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)
