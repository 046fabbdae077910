"""The lock of the child: what native code in it can still do, and what honest runs need."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.running import Ran, environment
from tests.models import Shelf, encoder
from tests.safety.fixtures import scripted
from tests.safety.kernels import FULL_OF_LOCKS, NO_LANDLOCK, SCRIPT, run_on
from tests.safety.test_threats import FORWARD

linux = pytest.mark.skipif(sys.platform != "linux", reason="the lock exists only on Linux")
pytestmark = linux


@pytest.fixture
def pair(shelf: Shelf) -> tuple[str, str]:
    """Two models that fit together."""
    return shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))


def _strace(folder: Path, *words: str) -> list[str]:
    """Run the command; return the system calls of the child after it was locked."""
    trace = folder / "trace"
    command = ["strace", "-f", "-qq", "-o", str(trace), str(SCRIPT), *words, "--no-cache"]
    ran = subprocess.run(command, env=environment(), capture_output=True, timeout=300, check=False)
    assert ran.returncode in (0, 1)
    lines = trace.read_text(errors="replace").splitlines()
    start = next(place for place, line in enumerate(lines) if "seccomp(SECCOMP_SET" in line)
    child = lines[start].split()[0]
    return [line.partition(" ")[2].strip() for line in lines[start + 1 :] if line.startswith(child)]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_lock_denies_nothing_that_an_honest_run_asks_for(
    shelf: Shelf, tmp_path: Path, device: str
) -> None:
    """What is imported late may try to make the folder of a cache, and goes on without it."""
    image = shelf.save("encoder", encoder())
    exported = shelf.save("exported", nn.Linear(10, 5), "exported", (torch.rand(2, 10),))
    calls = _strace(tmp_path, "check", image, exported, "--mode", "pairs", "--device", device)
    denied = [call for call in calls if re.search(r"= -1 (EPERM|EACCES|ENOSYS)", call)]
    assert [call for call in denied if not call.startswith("mkdir(")] == []
    opened = {call.split('"')[1] for call in calls if re.match("open(at)?[(].*= [0-9]", call)}
    roots = (sys.prefix, sys.base_prefix, str(Path(SCRIPT).parents[2]), str(Path(image).parent))
    assert [path for path in opened if not path.startswith(roots)] == []


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_join_is_written_and_verified_under_the_lock(
    pair: tuple[str, str], tmp_path: Path, mode: str
) -> None:
    models = pair if mode == "sequential" else (pair[0], pair[0])
    output = tmp_path / "both.pt"
    ran = run_on("", "join", *models, "--mode", mode, "-o", output, "--format", "json")
    assert ran.code == 0
    assert any(measure.startswith("Landlock") for measure in ran.json["isolation"]["had"])
    assert "seccomp" in ran.json["isolation"]["had"]


def _lock_is_missing(ran: Ran) -> bool:
    return ran.err.count("warning[CC930]: untrusted models ran in a process") == 1


def test_missing_lock_is_a_warning_in_every_format(pair: tuple[str, str]) -> None:
    for words in (("--quiet",), ("--format", "json")):
        ran = run_on(NO_LANDLOCK, "check", *pair, "--no-cache", *words)
        assert ran.code == 0
        assert _lock_is_missing(ran)
    isolation = ran.json["isolation"]
    assert isolation["missing"] == ["the kernel has no Landlock"]
    assert isolation["warning"]["code"] == "CC930"


def test_trusted_models_need_no_lock(pair: tuple[str, str]) -> None:
    trust = [word for model in pair for word in ("--trust", model)]
    ran = run_on(NO_LANDLOCK, "check", *pair, *trust, "--format", "json")
    assert (ran.code, ran.err, ran.json["isolation"]["warning"]) == (0, "", None)


def test_required_lock_is_required_of_this_run(pair: tuple[str, str], tmp_path: Path) -> None:
    """The answers of a run that was locked are cached; this one could not be."""
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert run_on("", "check", *pair, "--isolation", "required", **cache).code == 0
    ran = run_on(NO_LANDLOCK, "check", *pair, "--isolation", "required", **cache)
    assert ran.code == 3
    assert "error[CC930]: the required isolation is not available" in ran.err
    assert "note: the kernel has no Landlock" in ran.err


def test_report_of_cached_answers_claims_no_isolation(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = ("check", *pair, "--format", "json")
    first = run_on("", *words, **cache).json
    assert first["isolation"]["cached"] is False
    for kernel in ("", NO_LANDLOCK):
        again = run_on(kernel, *words, **cache)
        assert again.json["isolation"] == {
            "had": [], "missing": [], "cached": True, "warning": None,
        }  # fmt: skip
        assert {**again.json, "isolation": None} == {**first, "isolation": None}
    missed = run_on(NO_LANDLOCK, *words, "--input", "3,10", **cache)
    assert _lock_is_missing(missed)
    assert missed.json["isolation"]["missing"] == ["the kernel has no Landlock"]


def test_lock_that_the_kernel_does_not_give_is_an_error(pair: tuple[str, str]) -> None:
    ran = run_on(FULL_OF_LOCKS, "check", *pair, "--no-cache")
    assert ran.code == 3
    assert "error[CC930]: the isolation that this system has could not be applied" in ran.err
    assert "Argument list too long" in ran.err
    assert "help: --isolation none" in ran.err
    assert run_on(FULL_OF_LOCKS, "check", *pair, "--no-cache", "--isolation", "none").code == 0


# No process of the command may write to a file: no temporary folder can be had.
FULL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
"""


def test_full_disk_does_not_lose_the_lock(pair: tuple[str, str]) -> None:
    ran = run_on(FULL_DISK, "check", *pair, "--no-cache", "--format", "json")
    assert ran.code == 0, ran.err
    assert any(measure.startswith("Landlock") for measure in ran.json["isolation"]["had"])
    assert "seccomp" in ran.json["isolation"]["had"]


def test_calls_are_restricted_without_landlock(pair: tuple[str, str]) -> None:
    ran = run_on(NO_LANDLOCK, "check", *pair, "--no-cache", "--format", "json")
    assert "seccomp" in ran.json["isolation"]["had"]


@pytest.mark.parametrize("words", [(), ("--isolation", "none")])
def test_file_that_writes_is_refused_with_the_lock_and_without(
    shelf: Shelf, tmp_path: Path, words: tuple[str, ...]
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "hostile.pt"
    path.write_bytes(scripted(FORWARD.format("torch.save(x, MARK)"), marker))
    marker.unlink(missing_ok=True)
    ran = run_on("", "check", path, shelf.save("five", nn.Linear(5, 2)), *words)
    assert ran.code == 3
    assert "CC926" in ran.err
    assert not marker.exists()
