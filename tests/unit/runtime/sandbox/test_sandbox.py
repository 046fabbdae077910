"""Each measure restricts the process that applies it. Every test confines its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands.running import environment

linux = pytest.mark.skipif(sys.platform != "linux", reason="these measures exist only on Linux")

APPLY = """
import json, os, resource, sys
from composecli.runtime.sandbox import apply_sandbox, forbid_opening_files, renew_time_limit
from composecli.workers.protocol import SandboxRequest

def apply(read=(), write=(), memory=None, files=False):
    return apply_sandbox(SandboxRequest(tuple(read), tuple(write), memory, 30.0, files))

def can_open(path, mode="r"):
    try:
        open(path, mode).close()
    except OSError:
        return False
    return True

folder = sys.argv[1]
"""


def run_confined(code: str, folder: Path) -> Any:
    """Run the code in a process of its own; return the JSON that it prints."""
    command = [sys.executable, "-c", APPLY + code, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    return json.loads(ran.stdout)


@linux
def test_limits_are_applied_and_named(tmp_path: Path) -> None:
    code = """
sandbox = apply(memory=4_000_000_000)
limits = [resource.getrlimit(kind) for kind in (resource.RLIMIT_CORE, resource.RLIMIT_DATA)]
print(json.dumps([[str(measure) for measure in sandbox.applied], limits]))
"""
    applied, limits = run_confined(code, tmp_path)
    assert applied == ["no core file", "no new privileges", "memory 4.0 GB"]
    assert limits == [[0, 0], [4_000_000_000, 4_000_000_000]]


@linux
def test_memory_is_not_limited_without_a_size(tmp_path: Path) -> None:
    code = "print(json.dumps([str(measure) for measure in apply().applied]))"
    assert run_confined(code, tmp_path) == ["no core file", "no new privileges"]


@linux
def test_landlock_allows_only_the_listed_files(tmp_path: Path) -> None:
    for name in ("read", "write", "other"):
        (tmp_path / name).write_text("")
    code = """
path = lambda name: os.path.join(folder, name)
sandbox = apply([path("read")], [path("write")], files=True)
print(json.dumps([
    sandbox.restricts_files,
    sandbox.unavailable,
    can_open(path("read")), can_open(path("read"), "w"),
    can_open(path("write"), "w"),
    can_open(path("other")), can_open(path("new"), "w"),
    can_open(os.__file__),
]))
"""
    has_landlock, unavailable, *allowed = run_confined(code, tmp_path)
    if not has_landlock:
        assert len(unavailable) == 1
        pytest.skip("the kernel has no Landlock")
    assert allowed == [True, False, True, False, False, True]


NOT_NEEDED = (
    "/etc/passwd",
    "/etc/hostname",
    "/proc/1/cmdline",
    f"/proc/{os.getpid()}/environ",
    f"/proc/{os.getpid()}/maps",
    "/proc/self/environ",
    "/proc/mounts",
    "/proc/net/tcp",
    "/sys/class/net",
    "/usr/bin/env",
    "/dev/full",
    str(Path.home()),
    str(Path(__file__)),
    pytest.__file__,
)
NEEDED = ("/proc/cpuinfo", "/proc/self/maps", "/dev/null", "/dev/urandom", os.__file__)
OPENED = """
import torch
apply([], [], files=True)
def can_see(path):
    try:
        os.listdir(path)
    except NotADirectoryError:
        return can_open(path)
    except OSError:
        return False
    return True
print(json.dumps([path for path in json.loads(sys.argv[1]) if can_see(path)]))
"""


@linux
def test_system_and_the_user_cannot_be_read() -> None:
    paths = json.dumps([*NOT_NEEDED, *NEEDED])
    command = [sys.executable, "-c", f"{APPLY}{OPENED}", paths]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert json.loads(ran.stdout) == list(NEEDED)


@linux
def test_shared_memory_of_another_program_cannot_be_written(tmp_path: Path) -> None:
    shared = Path("/dev/shm", f"test-{os.getpid()}")
    shared.write_text("precious")
    code = f"""
apply(files=True)
path = {str(shared)!r}
print(json.dumps([can_open(path), can_open(path, "w"), can_open(path + "2", "w")]))
"""
    try:
        assert run_confined(code, tmp_path) == [False, False, False]
        assert shared.read_text() == "precious"
    finally:
        shared.unlink()


@linux
def test_other_packages_look_as_if_not_installed(tmp_path: Path) -> None:
    code = """
import importlib.metadata, importlib.util
apply(files=True)
import sympy, cProfile
def outcome(attempt):
    try:
        return str(attempt())
    except Exception as error:
        return type(error).__name__
print(json.dumps([
    outcome(lambda: __import__("pytest")),
    outcome(lambda: importlib.util.find_spec("pytest")),
    outcome(lambda: importlib.metadata.version("pytest")),
]))
"""
    outcomes = ["ModuleNotFoundError", "None", "PackageNotFoundError"]
    assert run_confined(code, tmp_path) == outcomes


@linux
def test_imported_library_may_import_others(tmp_path: Path) -> None:
    code = """
request = SandboxRequest((), (), None, 30.0, True, imports=("json",))
apply_sandbox(request)
import pytest
print(json.dumps(pytest.__name__))
"""
    assert run_confined(code, tmp_path) == "pytest"


@linux
def test_missing_temporary_folder_loses_no_measure(tmp_path: Path) -> None:
    code = """
import tempfile
def fail():
    raise FileNotFoundError("no usable temporary directory")
tempfile._get_default_tempdir = fail
print(json.dumps([str(measure.kind) for measure in apply(files=True).applied]))
"""
    assert run_confined(code, tmp_path)[-2:] == ["Landlock", "seccomp"]


@linux
@pytest.mark.parametrize("name", ["restrict_files", "restrict_calls", "needed_files", "prepare"])
def test_measure_that_fails_is_told_and_nothing_is_answered(tmp_path: Path, name: str) -> None:
    """Whatever goes wrong, in any step, a process without its lock opens no model."""
    code = f"""
import composecli.runtime.sandbox as sandbox
from composecli.runtime.server import Server
from composecli.workers.protocol import SampleRequest
def fail(*_):
    raise RuntimeError("no")
sandbox.{name} = fail
server = Server()
replies = [
    server.answer(SandboxRequest((), (), None, 30.0, files=True)),
    server.answer(SampleRequest("sample.pt")),
]
print(json.dumps([[reply.problem.code, list(reply.problem.notes)] for reply in replies]))
"""
    assert run_confined(code, tmp_path) == [["CC930", ["RuntimeError: no"]]] * 2


@linux
def test_limits_of_the_shell_stay(tmp_path: Path) -> None:
    code = """
resource.setrlimit(resource.RLIMIT_DATA, (2 * 10**9, 2 * 10**9))
resource.setrlimit(resource.RLIMIT_CPU, (50, 50))
sandbox = apply(memory=4 * 10**9)
renew_time_limit(300)
print(json.dumps([list(sandbox.failed), resource.getrlimit(resource.RLIMIT_CPU)]))
"""
    assert run_confined(code, tmp_path) == [[], [50, 50]]


@linux
def test_threads_that_landlock_does_not_cover_are_told(tmp_path: Path) -> None:
    code = """
import threading
thread = threading.Thread(target=threading.Event().wait, daemon=True)
thread.start()
sandbox = apply(files=True)
print(json.dumps([sandbox.restricts_files, list(sandbox.unavailable)]))
sys.stdout.flush()
os._exit(0)
"""
    reason = "Landlock does not cover 1 threads that were running before"
    assert run_confined(code, tmp_path) == [False, [reason]]


@linux
def test_files_can_be_opened_again_after_the_body(tmp_path: Path) -> None:
    code = """
before = can_open(os.devnull)
with forbid_opening_files():
    during = can_open(os.devnull)
print(json.dumps([before, during, can_open(os.devnull)]))
"""
    assert run_confined(code, tmp_path) == [True, False, True]


@linux
def test_time_limit_is_counted_from_now(tmp_path: Path) -> None:
    code = """
while sum(os.times()[:2]) < 1.2:
    pass
renew_time_limit(60)
print(json.dumps(resource.getrlimit(resource.RLIMIT_CPU)[0]))
"""
    assert 61 <= run_confined(code, tmp_path) <= 70
