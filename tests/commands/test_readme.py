"""The README: its screens are the output of its commands on the generated sample models."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.running import Composecli, Installed

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
COMMAND = r"^(?:    composecli (?P<above>[^\n]+)\n\n```\n|```\n\$ composecli (?P<inside>[^\n]+)\n)"
SCREEN = re.compile(COMMAND + r"(?P<screen>.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    for name in ("generate.py", "factory.py"):
        shutil.copy(ROOT / "sample_models" / name, folder)
    subprocess.run([sys.executable, "generate.py"], cwd=folder, check=True)
    (contract,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    (folder / "head.contract.json").write_text(contract)
    (suite,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (folder / "suite.toml").write_text(suite)
    return folder


def screens() -> list[tuple[str, str]]:
    return [
        (found["above"] or found["inside"], found["screen"]) for found in SCREEN.finditer(README)
    ]


def test_there_are_screens() -> None:
    assert len(screens()) >= 3


@pytest.mark.parametrize(("words", "screen"), screens())
def test_a_screen_of_the_readme_is_real(
    installed: Installed, samples: Path, monkeypatch: pytest.MonkeyPatch, words: str, screen: str
) -> None:
    monkeypatch.chdir(samples)
    monkeypatch.delenv("COLUMNS", raising=False)
    printed = "\n".join(line.rstrip() for line in installed(*shlex.split(words)).out.splitlines())
    assert printed.strip().startswith(screen.strip())


def test_the_sample_models_have_the_contracts_that_their_page_says(
    composecli: Composecli, samples: Path
) -> None:
    page = (ROOT / "sample_models" / "README.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| [^|]+ \| `([^`]+)`[^|]*\|$", page, re.M)
    assert len(rows) > 10
    for name, contract in rows:
        path = (
            f"{samples / 'factory.py'}:make@{samples / 'factory_weights.pt'}"
            if ":" in name
            else samples / name
        )
        inspected = composecli.json("inspect", path)
        assert inspected.json["model"]["contract"]["text"] == contract, name


def test_the_python_of_the_readme_runs(samples: Path) -> None:
    code = "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=samples, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert (samples / "both.pt").exists()
