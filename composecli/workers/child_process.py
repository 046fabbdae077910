"""A Python process that exchanges messages over two pipes, and whose output is captured."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack

from composecli.workers.channel import Channel
from composecli.workers.output_tail import Tail

MAX_TAIL_BYTES = 2000
EXIT_SECONDS = 5

# What a process needs to start, to find Python's modules and the system's libraries, and to
# write text.
_SYSTEM_VARIABLES = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TERM|TMPDIR|TEMP|TMP|"
    r"PYTHONPATH|PYTHONHOME|PYTHONUTF8|PYTHONIOENCODING|VIRTUAL_ENV|CONDA_PREFIX|"
    r"LD_LIBRARY_PATH|DYLD_\w+|SYSTEMROOT|WINDIR|COMSPEC|PATHEXT|"
    r"(CUDA|NVIDIA|OMP|MKL|KMP|GOMP)_\w+"
)


class ChildProcess:
    """A running `python -m MODULE READING WRITING`, with the descriptors of two pipes."""

    def __init__(self, module: str, environment: dict[str, str], *, show_output: bool) -> None:
        self._output: Tail | None = None
        with ExitStack() as on_failure, ExitStack() as childs_own:
            child_reading, writing = _pipe()
            childs_own.callback(os.close, child_reading)
            on_failure.callback(os.close, writing)
            reading, child_writing = _pipe()
            childs_own.callback(os.close, child_writing)
            on_failure.callback(os.close, reading)
            if show_output:
                target = _stderr()
            else:
                self._output = Tail(MAX_TAIL_BYTES)
                on_failure.callback(self._output.close)
                target = self._output.writing
            # A session of its own: killing its process group ends every process that it started.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(child_reading), str(child_writing)],
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=target,
                pass_fds=(child_reading, child_writing),
                start_new_session=True,
                env=environment,
                cwd=_folder(),
            )
            on_failure.pop_all()
        self.channel = Channel(reading, writing)
        self._descriptors = [reading, writing]
        if self._output is not None:
            self._output.start()

    @property
    def pid(self) -> int:
        """The number of the process, which is also that of its session."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def describe_exit(self) -> str:
        """Say how the process ended: "was killed by SIGSEGV", "ended with exit code 7"."""
        try:
            code = self._process.wait(timeout=EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            code = 0
        if code >= 0:
            return f"ended with exit code {code}"
        if -code in list(signal.Signals):
            return f"was killed by {signal.Signals(-code).name}"
        return f"died ({code})"

    def printed(self) -> str | None:
        """Return the end of the captured output, once the process has ended."""
        if self._output is None:
            return None
        return self._output.text()

    def kill(self) -> None:
        """Kill the process and every process that it started."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()

    def close(self) -> None:
        """Kill the process if it is still running, and close the pipes."""
        if self.is_running:
            self.kill()
        while self._descriptors:
            os.close(self._descriptors.pop())


def _stderr() -> int:
    """Return the descriptor of stderr; that of the null device if this process has none."""
    try:
        descriptor = sys.stderr.fileno()
        os.fstat(descriptor)
    except (AttributeError, OSError, ValueError):
        return subprocess.DEVNULL
    return descriptor


def _pipe() -> tuple[int, int]:
    """Open a pipe whose ends are no standard stream, even if this process has closed those.

    In the child they would be replaced by its own streams, or written to by what prints.
    """
    ends = os.pipe()
    try:
        reading, writing = (_above_standard_streams(end) for end in ends)
    finally:
        for end in ends:
            os.close(end)
    return reading, writing


def _above_standard_streams(descriptor: int) -> int:
    """Return a duplicate of a descriptor with the lowest free number from 3 on."""
    if sys.platform == "win32":
        return os.dup(descriptor)
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def _folder() -> str | None:
    """Return the working folder for a child; None for that of this process.

    Python does not start in a folder that was deleted, where no path is relative to anything.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        return os.path.abspath(os.sep)
    return None


def child_environment(*, untrusted: bool) -> dict[str, str]:
    """Return the environment variables for a child process.

    They ask for one compute thread. Variables that change how torch loads files are removed. If
    the child opens untrusted files, it gets only the variables that a process needs to run.
    """
    variables = dict[str, str]()
    for name, value in os.environ.items():
        if name.startswith(("TORCH_", "PYTORCH_JIT")):
            continue
        if not untrusted or _SYSTEM_VARIABLES.fullmatch(name):
            variables[name] = value
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    search_path = [package_root]
    # An empty or relative folder is the current one, where a stranger's modules may be.
    given = variables.get("PYTHONPATH", "").split(os.pathsep)
    search_path += [folder for folder in given if os.path.isabs(folder)]
    variables["PYTHONPATH"] = os.pathsep.join(search_path)
    variables["OMP_NUM_THREADS"] = "1"
    variables["MKL_NUM_THREADS"] = "1"
    return variables
