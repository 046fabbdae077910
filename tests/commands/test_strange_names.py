"""Names of files are words: they run nothing, trust nothing, and come back from a message."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from tests.commands.following_help import commands_in
from tests.commands.running import Composecli, Installed, Ran, environment
from tests.safety.fixtures import Touch, saved

SCRIPT = Path(sys.executable).with_name("composecli")
DIGEST = "0" * 64
# Each names code or trust in some notation of the command line.
GRANTING = [
    "evil.py:make", "evil.py:make@w.pt", "evil:make", "evil:make@w.pt", "evil:make()",
    "evil.py:make()@w.pt", "evil.py:make(1)@evil.pt", "evil.make:make@evil.pt", "os:system@evil.pt",
    "evil:make@evil.py:make@w.pt", "a.py:evil.py:make", "evil.py:make@evil.pt@sha256:" + DIGEST,
    "--trust=evil.pt", "--trust=evil.pt@sha256:" + DIGEST, "--trust", "--import=evil.py",
    "--import=evil", "--import", "--allow-op=aten::save", "--trust-classes=timm", "-ox.pt", "-o",
    "--output=x.pt", "--force", "--isolation=none", "--key=a", "--input=@evil.pt", "--debug",
    "--help", "-h", "--format=json", "--no-cache", "-", "---", "-x.pt",
]  # fmt: skip
ODD = [
    "semi;touch x.pt", "$(touch x).pt", "`touch x`.pt", "it's.pt", 'a"b.pt', "a\nb.pt", "a\tb.pt",
    "~", "~root.pt", "*.pt", "[a]?.pt", "a#b.pt", "model.pt2#name", "@sample.pt", "a@b.pt",
    "a:b.pt", "2:b.pt", " lead.pt", "trail.pt ", "a\\b.pt", "!x.pt", "a&b.pt", "a|b.pt", "<a>.pt",
    "\x1b[2J.pt", "\u202egnp.pt", "\u65e5\u672c.pt", "{a,b}.pt", "a=b.pt", "%s.pt", "[red].pt",
    "::error::a.pt", "\u200b.pt", "a.pt@sha256:" + DIGEST, "z" * 255, "a\r.pt",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a stranger in which any code that runs creates the file `marker`."""
    monkeypatch.chdir(tmp_path)
    marker = tmp_path.with_name(f"{tmp_path.name}-marker")
    Path("evil.py").write_text(
        f"open({str(marker)!r}, 'w')\ndef make(*_): open({str(marker)!r}, 'w')"
    )
    module = nn.Linear(3, 2)
    vars(module)["note"] = Touch(marker)
    Path("evil.pt").write_bytes(saved(module))
    return tmp_path


def ran_nothing(folder: Path) -> bool:
    """Whether no code of the folder has run."""
    return not folder.with_name(f"{folder.name}-marker").exists() and not Path("x").exists()


def in_shell(command: str) -> Ran:
    """Run a line of a shell, in which `composecli` is the installed command."""
    line = command.replace("composecli", shlex.quote(str(SCRIPT)))
    ran = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=environment(), timeout=120,
        errors="surrogateescape", check=False,
    )  # fmt: skip
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def make(name: str, *, dangling: bool) -> None:
    """Make a file that is no model, or a link that leads nowhere."""
    if dangling:
        os.symlink("nowhere", name)
    else:
        Path(name).write_bytes(b"no model")


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("name", [*GRANTING, *ODD])
def test_no_name_of_a_file_runs_or_trusts_anything(
    name: str, dangling: bool, folder: Path, composecli: Composecli
) -> None:
    make(name, dangling=dangling)
    for words in (
        ["inspect", name],
        ["check", name, "evil.pt"],
        ["join", "evil.pt", name, "-oy.pt"],
    ):
        ran = composecli(*words)
        assert ran.code in (2, 3), (words, ran)
        assert not set(ran.out + ran.err) & {"\x1b", "\u202e", "\r", "\u200b"}
        assert not any(line.startswith("::") for line in ran.err.splitlines())
    assert ran_nothing(folder)


@pytest.mark.parametrize("isolation", ["best", "none"])
@pytest.mark.parametrize(
    "command", ["composecli check", "composecli inspect", "composecli join -oy"]
)
def test_a_glob_in_the_folder_of_a_stranger_grants_nothing(
    command: str, isolation: str, folder: Path
) -> None:
    for name in GRANTING:
        make(name, dangling=":" in name)
    for pattern in ("*", "*.pt", "evil*", "-*"):
        ran = in_shell(f"{command} --isolation {isolation} {pattern}")
        assert ran.code in (2, 3), ran
    assert ran_nothing(folder)


def test_each_file_of_a_folder_can_be_inspected(folder: Path) -> None:
    for name in GRANTING[:12]:
        make(name, dangling=True)
    ran = in_shell('for f in *:*; do composecli inspect "$f"; done')
    assert ran.err.count("error[CC") == 12
    assert ran_nothing(folder)


def test_an_option_that_is_a_file_is_refused_with_both_ways_out(folder: Path) -> None:
    make("--trust=evil.pt", dangling=True)
    ran = in_shell("composecli check --trust=evil.pt evil.pt evil.pt")
    assert (ran.code, "write ./--trust=evil.pt for the file" in ran.err) == (2, True)
    assert in_shell("composecli check -- --trust=evil.pt evil.pt").code == 3
    assert ran_nothing(folder)


def test_a_factory_still_works_beside_other_files(folder: Path, composecli: Composecli) -> None:
    Path("net.py").write_text("from torch import nn\ndef make(): return nn.Linear(3, 2)\n")
    assert composecli("inspect", "net.py:make").code == 0


def test_a_hash_is_a_hash_even_if_a_file_is_called_so(folder: Path, composecli: Composecli) -> None:
    name = f"evil.pt@sha256:{DIGEST}"
    Path(name).write_bytes(Path("evil.pt").read_bytes())
    ran = composecli("inspect", name, "--trust", name)
    assert (ran.code, ran_nothing(folder)) == (2, True)


@pytest.mark.parametrize("name", [*ODD, "-x.pt", "--trust=evil.pt", "evil.py:make@w.pt"])
def test_suggested_commands_name_the_same_file(
    name: str, folder: Path, composecli: Composecli
) -> None:
    Path(name).write_bytes(Path("evil.pt").read_bytes())
    ran = composecli("inspect", "--", name)
    assert ran.code == 3
    for words in commands_in(ran):
        assert os.path.samefile(words[1], name), words
        assert all(os.path.samefile(words[place + 1], name) for place in places_of(words)), words
    if not name.isprintable():
        assert "rename the files" in ran.err
    report = composecli("inspect", "--format", "json", "--", name)
    assert "--trust" in json.dumps(report.json["error"]["help"]) or "@sha256" in name
    for line in report.json["error"]["help"]:
        if line.startswith("composecli"):
            assert os.path.samefile(shlex.split(line)[2], name)
    assert ran_nothing(folder)


def places_of(words: list[str]) -> list[int]:
    """Return where the options are whose values are files."""
    return [place for place, word in enumerate(words) if word == "--trust"]


def test_a_usage_error_has_no_control_characters(folder: Path, installed: Installed) -> None:
    for words in (["check", "--\x1b[2J"], ["check", "a", "b", "--trust", "\x1b[2J\n::error::x"]):
        ran = installed(*words)
        assert (ran.code, "\x1b" in ran.err, "\n::error" in ran.err) == (2, False, False)
