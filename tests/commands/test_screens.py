"""The screens at 80 columns without colour. UPDATE_GOLDEN=1 rewrites the golden files."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.running import Installed
from tests.models import Deep, DictOutput, Shelf, Tied, TwoInputs, encoder

GOLDEN = Path(__file__).parent.parent / "golden"
SCREENS = {
    "check_compatible": "check linear.pt relu.pt",
    "check_width": "check linear.pt narrow.pt",
    "check_width_quiet": "check linear.pt narrow.pt --quiet",
    "check_rank": "check encoder.pt head.pt --input 1,3,32,32",
    "check_condition": "check encoder.pt pooled.pt --input 1,3,64,64",
    "check_related": "check patches.pt flat_tokens.pt",
    "check_mixed": "check embedding.pt tagger.pt",
    "check_samples_not_known": "check embedding.pt identity.pt",
    "check_strict": "check encoder.pt flat.pt --input 1,3,32,32 --strict",
    "check_dtype": "check embedding.pt ids.pt",
    "check_count": "check linear.pt two_inputs.pt",
    "check_structure": "check dict.pt five.pt",
    "check_chain": "check linear.pt relu.pt narrow.pt five.pt",
    "check_deep": "check linear.pt deep.pt",
    "check_unknown": "check odd.pt relu.pt",
    "check_stated_refused": "check linear.pt relu.pt --input 2,11",
    "check_parallel": "check --mode parallel --merge add linear.pt wider.pt",
    "check_parallel_input": "check --mode parallel linear.pt narrow.pt",
    "check_meta": "check linear.pt five.pt --device meta",
    "check_unsafe": "check linear.pt writes.pt",
    "inspect_own_class": "inspect own.pt",
    "check_contract_file": "check encoder.pt flat.contract.json",
    "check_contract_mistake": "check encoder.pt mistaken.contract.json",
    "suite": "suite ci.toml",
    "suite_quiet": "suite ci.toml --quiet",
    "suite_passes": "suite passes.toml",
    "suite_of_code": "suite code.toml",
    "suite_mistake": "suite mistaken.toml",
    "check_missing": "check nothing.pt relu.pt",
    "join_bridged": "join linear.pt narrow.pt --bridge linear -o joined.pt --force",
    "join_refused": "join linear.pt narrow.pt -o refused.pt",
    "join_exported": "join exported.pt2 five.pt -o joined.pt --force",
    "inspect_scripted": "inspect encoder.pt",
    "inspect_pickled": "inspect head.pt",
    "inspect_exported": "inspect exported.pt2",
    "inspect_shared": "inspect tied.pt",
    "inspect_unknown": "inspect odd.pt",
    "explain": "explain CC203",
    "explain_all": "explain",
    "help": "--help",
    "help_check": "check --help",
    "help_join": "join --help",
    "help_inspect": "inspect --help",
    "help_suite": "suite --help",
}


class Writes(nn.Module):
    """A program that also writes a file."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "out.pt")
        return self.fc(x)


class Own(nn.Linear):
    """A class outside torch.nn."""


class Patches(nn.Module):
    """Makes a token of every 48 numbers of a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(48, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.reshape(x.size(0), -1, 48))


class Tagger(nn.Module):
    """A recurrent layer that takes time on axis 0."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 12)
        self.fc = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.lstm(x)[0])


class Identity(nn.Module):
    """Multiplies the samples by a matrix whose zeros keep them apart."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.eye(x.size(0)) @ x.flatten(1)


class Odd(nn.Module):
    """Accepts no input that inference tries."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dim() == 3
        assert x.size(1) == 17
        return x


CONTRACT = """{
  "inputs": [
    {"name": "x", "dtype": "float32", "dims": ["N", "C", "H", "W"]}
  ],
  "outputs": [{"dtype": "float32", "dims": ["N", "10"]}],
  "where": ["C*H*W == 1024"]
}
"""


SUITES = {
    "ci": """[models]
linear = "linear.pt"
heads = "[fn]*[ew].pt"
writes = "writes.pt"
odd = "odd.pt"
relu = "relu.pt"

[[pair]]
producer = "linear"
consumer = "heads"

[[pair]]
name = "not for these"
producer = "linear"
consumer = "odd"
expect = "incompatible"

[[contract]]
model = "linear"
text = "float32[N, 10] -> float32[N, 4]"

[[chain]]
name = "what a stranger sent, and its activation"
models = ["writes", "relu"]

[[pair]]
producer = "writes"
consumer = "relu"
""",
    "passes": """[models]
linear = "linear.pt"
others = { path = "wid*.pt", inputs = ["float32[N,10]"] }

[options]
max_probes = 100

[[parallel]]
models = ["linear", "others"]
merge = "cat"

[[pair]]
producer = "others"
consumer = "linear"
expect = "incompatible"

[[contract]]
model = "linear"
text = "float32[B,10] -> float32[B,5]"
""",
    "code": """[models]
net = "net.py:Net@net.weights"

[[fit]]
model = "net"
""",
    "mistaken": """[models]
linear = "linear.pt"
encoder = "encoder.pt"

[[chain]]
models = [
    "linear",
    "encodr",
]
""",
}
NET = """from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    shelf = Shelf(tmp_path_factory.mktemp("screens"))
    scripted: dict[str, nn.Module] = {
        "linear": nn.Linear(10, 5),
        "relu": nn.ReLU(),
        "narrow": nn.Linear(3, 2),
        "wider": nn.Linear(10, 7),
        "five": nn.Linear(5, 2),
        "encoder": encoder(),
        "flat": nn.Sequential(nn.Flatten(), nn.Linear(1024, 3)),
        "pooled": nn.Sequential(
            nn.MaxPool2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3)
        ),
        "patches": Patches(),
        "flat_tokens": nn.Sequential(nn.Flatten(), nn.Linear(256, 3)),
        "tagger": Tagger(),
        "identity": Identity(),
        "embedding": nn.Embedding(50, 8),
        "ids": nn.Embedding(30, 4),
        "two_inputs": TwoInputs(),
        "dict": DictOutput(),
        "deep": Deep(7),
        "odd": Odd(),
        "writes": Writes(),
        "tied": Tied(),
    }
    for name, module in scripted.items():
        Path(shelf.save(name, module)).rename(shelf.folder / f"{name}.pt")
    Path(shelf.save("head", nn.Linear(1024, 10), "pickled")).rename(shelf.folder / "head.pt")
    Path(shelf.save("own", Own(2, 2), "pickled")).rename(shelf.folder / "own.pt")
    exported = shelf.save(
        "exported", nn.Sequential(nn.Linear(10, 5)), "exported", (torch.rand(2, 10),)
    )
    Path(exported).rename(shelf.folder / "exported.pt2")
    (shelf.folder / "flat.contract.json").write_text(CONTRACT)
    mistaken = CONTRACT.replace('"dims": ["N", "10"]', '"dimes": ["N", "10"]')
    (shelf.folder / "mistaken.contract.json").write_text(mistaken)
    for name, text in SUITES.items():
        (shelf.folder / f"{name}.toml").write_text(text)
    (shelf.folder / "net.py").write_text(NET)
    weights = {"fc.weight": torch.zeros(2, 4), "fc.bias": torch.zeros(2)}
    torch.save(weights, shelf.folder / "net.weights")
    return shelf.folder


@pytest.mark.parametrize("name", SCREENS)
def test_the_screen_matches_the_golden_file(
    installed: Installed, models: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(models)
    monkeypatch.delenv("COLUMNS", raising=False)
    ran = installed(*shlex.split(SCREENS[name]))
    screen = f"$ composecli {SCREENS[name]}\n{_stable(ran.out + ran.err)}(exit code {ran.code})\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(screen)
    assert screen == path.read_text()
    assert "\x1b" not in screen
    commands = ("help: composecli", "$ composecli")
    assert all(len(line) <= 80 or line.strip().startswith(commands) for line in screen.splitlines())


def _suggested(screen: str) -> list[list[str]]:
    """Return each command that the help lines of a screen suggest, as words.

    An option in a help line is for the command of the screen.
    """
    command = screen.splitlines()[0].removeprefix("$ composecli ")
    words = list[list[str]]()
    for text in re.findall(r"^ +help: (?:or )?(.*)$", screen, re.MULTILINE):
        if text.startswith("composecli "):
            words.append(shlex.split(text)[1:])
        elif text.startswith("--"):
            option, value = text.split()[:2]
            words.append([*shlex.split(command), option, value.removesuffix(",")])
    return words


SUGGESTED = {
    f"{path.stem}: {shlex.join(words)}": (path, words)
    for path in sorted(GOLDEN.glob("*.txt"))
    for words in _suggested(path.read_text())
}


@pytest.mark.parametrize("name", SUGGESTED)
def test_every_help_line_of_a_screen_gets_further(
    installed: Installed, models: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(models)
    path, words = SUGGESTED[name]
    Path("both.pt").unlink(missing_ok=True)
    before = re.findall(r"\(exit code (\d+)\)", path.read_text())[-1]
    after = installed(*words)
    assert after.code == 0 or after.code != int(before), after.out + after.err


# Help that is no command, nor an option: what to do instead.
ADVICE = (
    "check the path",
    "save it with torch.jit.script(model).save(path) or torch.export.save",
    "permute the tensor between them: x.permute(1, 0, 2)",
    "build the layers of tagger.pt with batch_first=True",
    "state a real input: --input 'float32[N,T,L]', with its own dtype and",
)


def test_every_other_help_line_is_advice() -> None:
    for path in GOLDEN.glob("*.txt"):
        for text in re.findall(r"^ +help: (?:or )?(.*)$", path.read_text(), re.MULTILINE):
            assert text.startswith(("composecli ", "--")) or text in ADVICE


def _stable(text: str) -> str:
    """Return the text without digests, file sizes and trailing spaces."""
    text = re.sub(r"sha256: [0-9a-f]{64}", "sha256: <digest>", text)
    text = re.sub(r"\((\d[\d.]* k?B)\)|\d[\d.]* k?B file", "<size>", text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def test_every_golden_screen_is_one_of_these() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SCREENS)


def test_a_dumb_terminal_gets_ascii_rules(
    installed: Installed, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    monkeypatch.setenv("TERM", "dumb")
    ran = installed("check", "linear.pt", "narrow.pt")
    assert ran.out.isascii()


def test_control_characters_in_file_names_are_escaped(
    installed: Installed, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    hostile = "[red]x\x1b[2J\n::error::\u202e.pt"
    (models / hostile).write_bytes((models / "linear.pt").read_bytes())
    ran = installed("check", hostile, "narrow.pt")
    assert ran.code == 1
    assert "\x1b" not in ran.out
    assert "\u202e" not in ran.out
    assert "\n::error::" not in ran.out
    assert "[red]x" in ran.out
    missing = installed("check", "gone\x1b[2J.pt", "narrow.pt")
    assert "\x1b" not in missing.err
