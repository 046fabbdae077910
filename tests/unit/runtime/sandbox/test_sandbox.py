"""Each measure restricts the process that applies it. Every test confines its own process."""

from __future__ import annotations

import json
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
