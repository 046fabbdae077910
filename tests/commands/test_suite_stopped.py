"""Suites that end early: a signal, and items that git shows to be unchanged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.commands.running import Installed, environment
from tests.schema import parse_report

COUNT = 40
SCRIPT = Path(sys.executable).with_name("composecli")


class Slow(nn.Module):
    """Takes its time, so that a signal finds it at work."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        for _ in range(500):
            y = y + 1
        return y


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slow")
    lines = ["[models]"]
    for number in range(COUNT):
        torch.jit.script(Slow(3 + number % 3)).save(str(folder / f"m{number}.pt"))
        lines.append(f'm{number} = "m{number}.pt"')
    for number in range(COUNT):
        other = (number + 3) % COUNT
        lines += ["[[pair]]", f'producer = "m{number}"', f'consumer = "m{other}"']
    (folder / "ci.toml").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize("form", ["json", pytest.param("table", marks=pytest.mark.long)])
def test_a_suite_that_is_interrupted_reports_what_is_known(
    slow: Path, form: str, tenth: int
) -> None:
    number = (signal.SIGINT, signal.SIGTERM)[tenth % 2]
    code = 130 if number is signal.SIGINT else 143
    command = subprocess.Popen(
        [SCRIPT, "suite", "ci.toml", "--no-cache", "--format", form],
        cwd=slow, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(0.5 + 0.5 * tenth)
    command.send_signal(number)
    out, err = command.communicate(timeout=60)
    if command.returncode in (0, 1):
        pytest.skip("it had ended")
    assert command.returncode == code, err
    assert "Traceback" not in err
    if form == "table":
        assert out.rstrip().endswith(" not run") or err in ("interrupted\n", "terminated\n")
        return
    report = parse_report(out)
    assert report["exit_code"] == code
    if "items" not in report:
        assert report["error"]["title"] in ("interrupted", "terminated")
        return
    assert report["interrupted"] is True
    assert len(report["items"]) == sum(report["counts"].values()) == COUNT
    for item in report["items"]:
        assert (item["status"] == "not run") == (item["check"] is item["problem"] is None)


def git(*words: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *words], check=True, capture_output=True)


SUITE = """[models]
a = "a.pt"
b = "b.pt"
c = "c.pt"
net = "net.py:Net@net.weights"

[[pair]]
producer = "a"
consumer = "b"

[[pair]]
producer = "a"
consumer = "c"

[[fit]]
model = "net"

[[contract]]
model = "a"
file = "a.contract.json"
"""
NET = """from torch import nn
class Net(nn.Linear):
    def __init__(self):
        super().__init__(4, 4)
"""


@pytest.fixture
def repository(here: Path, installed: Installed) -> Path:
    for name in "abc":
        torch.jit.script(nn.Linear(4, 4)).save(f"{name}.pt")
    torch.save(nn.Linear(4, 4).state_dict(), "net.weights")
    Path("net.py").write_text(NET)
    Path("ci.toml").write_text(SUITE)
    assert installed("inspect", "a.pt", "--write-contract", "a.contract.json").code == 0
    git("init", "-b", "main")
    git("add", "-A")
    git("commit", "-m", "all")
    return here


def change_nothing() -> None:
    """Leave all files as they are."""


def change_b() -> None:
    torch.jit.script(nn.Linear(4, 5)).save("b.pt")


def change_a() -> None:
    torch.jit.script(nn.Sequential(nn.Linear(4, 4))).save("a.pt")


def change_weights() -> None:
    torch.save(nn.Linear(4, 4).state_dict(), "net.weights")


def change_other_code() -> None:
    Path("helper.py").write_text("x = 1\n")
    git("add", "helper.py")


def change_suite() -> None:
    Path("ci.toml").write_text(SUITE + "# more\n")


def change_contract() -> None:
    text = Path("a.contract.json").read_text()
    Path("a.contract.json").write_text(text + "\n")


def stop_tracking_c() -> None:
    git("rm", "--cached", "c.pt")


def commit_b() -> None:
    change_b()
    git("commit", "-am", "b")


def link_c() -> None:
    Path("c.pt").rename("/".join(("..", "elsewhere.pt")))
    Path("c.pt").symlink_to("../elsewhere.pt")


CHANGES = {
    "nothing": (change_nothing, ""),
    "the consumer": (change_b, "1"),
    "the producer": (change_a, "124"),
    "the weights": (change_weights, "3"),
    "other code": (change_other_code, "3"),
    "the suite": (change_suite, "1234"),
    "the contract": (change_contract, "4"),
    "not tracked any more": (stop_tracking_c, "2"),
    "committed": (commit_b, "1"),
    "a link to a file outside": (link_c, "2"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_only_what_may_have_changed_is_run(
    installed: Installed, repository: Path, name: str
) -> None:
    change, expected = CHANGES[name]
    start = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    change()
    ran = installed.json("suite", "ci.toml", "--trust", "ci.toml", "--changed-since", start)
    items = ran.json["items"]
    run = [str(number) for number, item in enumerate(items, 1) if item["status"] != "skipped"]
    assert "".join(run) == expected, ran.out
    assert ran.json["changed_since"] == start
    assert ran.json["counts"]["skipped"] == 4 - len(expected)
    if not expected:
        assert ran.code == 0


def test_a_suite_in_another_folder_is_compared_in_its_own_repository(
    installed: Installed, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository.name
    monkeypatch.chdir(repository.parent)
    words = ("suite", f"{folder}/ci.toml", "--trust", f"{folder}/ci.toml")
    ran = installed.json(*words, "--changed-since", "main")
    assert ran.json["counts"]["skipped"] == 4
    table = installed(*words, "--changed-since", "main")
    assert table.out == "4 checks: 4 skipped, unchanged since main\n"


@pytest.mark.parametrize("revision", ["nowhere", "--output=x", "", "HEAD:a.pt", "a\nb"])
def test_a_revision_that_git_does_not_know_is_refused(
    installed: Installed, repository: Path, revision: str
) -> None:
    ran = installed.json("suite", "ci.toml", f"--changed-since={revision}")
    assert (ran.code, ran.json["error"]["code"]) == (2, "CC961")
    assert sorted(path.name for path in repository.iterdir() if path.name == "x") == []


def test_without_a_repository_nothing_is_skipped(installed: Installed, here: Path) -> None:
    Path("ci.toml").write_text(SUITE)
    ran = installed.json("suite", "ci.toml", "--changed-since", "HEAD")
    assert (ran.code, ran.json["error"]["code"]) == (2, "CC961")


def test_a_repository_runs_no_monitor_of_its_own(installed: Installed, repository: Path) -> None:
    script = repository / "monitor"
    script.write_text("#!/bin/sh\ntouch ran\n")
    script.chmod(0o755)
    git("config", "core.fsmonitor", str(script))
    installed("suite", "ci.toml", "--changed-since", "HEAD")
    assert not Path("ran").exists()


def test_a_second_run_answers_from_the_cache(
    installed: Installed, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(repository / "cache"))
    Path("ci.toml").write_text(SUITE.replace("[[fit]]", "[[diff]]").replace(
        'model = "net"', 'old = "a"\nnew = "b"'
    ))  # fmt: skip
    first, second = installed.json("suite", "ci.toml"), installed.json("suite", "ci.toml")
    assert not first.json["isolation"]["cached"]
    assert second.json["isolation"]["cached"]
    assert _without_isolation(first.json) == _without_isolation(second.json)


def _without_isolation(report: Any) -> Any:
    return {key: value for key, value in report.items() if key != "isolation"}


def test_a_terminal_shows_the_item_at_work(slow: Path) -> None:
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    command = subprocess.Popen(
        [SCRIPT, "suite", "ci.toml", "--no-cache"],
        cwd=slow, env=environment(), stdout=subprocess.DEVNULL, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while command.poll() is None or shown == b"":
        try:
            shown += os.read(leader, 4096)
        except OSError:
            break
        if b" of 40: " in shown and command.poll() is None:
            command.terminate()
    command.wait(timeout=60)
    os.close(leader)
    assert b" of 40: " in shown
