"""--trust-classes: module classes of an installed library load, and nothing of a file is called.

The library here is a stand-in for timm, installed in a folder of packages as pip leaves it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.running import Ran, environment

SCRIPT = Path(sys.executable).with_name("composecli")
LIBRARY = """
import enum
from functools import partial
from pathlib import Path
import torch
from torch import nn
from torch.nn import functional as F

class Format(str, enum.Enum):
    NCHW = "NCHW"

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.format = Format.NCHW
        self.activation = F.silu
        self.norm_layer = partial(nn.LayerNorm, eps=1e-6)
    def forward(self, x):
        return self.activation(self.fc(x))

class WithState(nn.Module):
    def __init__(self, mark):
        super().__init__()
        self.mark = mark

    def __setstate__(self, state):
        Path(state["mark"]).touch()

class Plain:
    pass

def build(mark):
    Path(mark).touch()
"""
SAVE = "import timm, torch; torch.save(timm.Net(), 'net.pt')"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages with the library, and a current folder beside it."""
    folder = tmp_path / "packages"
    (folder / "timm").mkdir(parents=True)
    (folder / "timm" / "__init__.py").write_text(LIBRARY)
    info = folder / "timm-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 1.0\n")
    current = tmp_path / "current"
    current.mkdir()
    monkeypatch.chdir(current)
    python(SAVE, folder)
    return folder


def python(source: str, packages: Path) -> None:
    """Run Python code that can import the library."""
    variables = {**environment(), "PYTHONPATH": str(packages)}
    subprocess.run([sys.executable, "-c", source], env=variables, check=True, timeout=120)


def run(packages: Path, *words: str) -> Ran:
    """Run the installed command where the library is installed."""
    path = f"{environment()['PYTHONPATH']}:{packages}"
    ran = subprocess.run(
        [SCRIPT, *words],
        capture_output=True,
        text=True,
        env={**environment(), "PYTHONPATH": path},
        timeout=200,
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.mark.parametrize("isolation", ["best", "none"])
def test_a_module_of_a_named_library_loads(isolation: str, packages: Path) -> None:
    words = ("inspect", "net.pt", "--isolation", isolation)
    refused = run(packages, *words)
    assert (refused.code, "--trust-classes timm" in refused.err) == (3, True), refused.err
    loaded = run(packages, *words, "--trust-classes", "timm")
    assert (loaded.code, "float32[N, 3] -> float32[N, 2]" in loaded.out) == (0, True), loaded.err


HOSTILE = {
    "a function of the library": "Stored(timm.build, ('MARK',))",
    "a class that is no module": "timm.Plain()",
    "a class with a state of its own": "timm.WithState('MARK')",
    "what the library has imported": "Stored(timm.Path, ('MARK',))",
    "a partial of a function": "functools.partial(timm.build, 'MARK')",
    "a class that is called": "Stored(timm.Net, ())",
    "code beside it": "Stored(open, ('MARK', 'w'))",
}


@pytest.mark.parametrize("isolation", ["best", "none"])
@pytest.mark.parametrize("attribute", list(HOSTILE.values()), ids=list(HOSTILE))
def test_nothing_but_module_classes_is_granted(
    attribute: str, isolation: str, packages: Path
) -> None:
    mark = packages / "mark"
    source = (
        "import functools, timm, torch\n"
        "class Stored:\n"
        "    def __init__(self, *reduced): self.reduced = reduced\n"
        "    def __reduce__(self): return self.reduced\n"
        "net = timm.Net()\n"
        f"net.extra = {attribute.replace('MARK', str(mark))}\n"
        "torch.save(net, 'hostile.pt')\n"
    )
    python(source, packages)
    words = ("inspect", "hostile.pt", "--trust-classes", "timm", "--isolation", isolation)
    ran = run(packages, *words)
    assert (ran.code, mark.exists(), "Traceback" in ran.err) == (3, False, False), ran.err


@pytest.mark.parametrize("key", ["forward", "_forward_hooks", "__class__", "train"])
def test_code_of_a_class_cannot_be_replaced(key: str, packages: Path) -> None:
    source = (
        "import timm, torch\nnet = timm.Net()\n"
        f"net.__dict__[{key!r}] = {{1: torch.nn.Identity()}}\n"
        "torch.save(net, 'hostile.pt')\n"
    )
    python(source, packages)
    ran = run(packages, "inspect", "hostile.pt", "--trust-classes", "timm")
    assert (ran.code, "CC9" in ran.err) == (3, True), ran.err


def test_a_library_of_the_current_folder_is_not_imported(packages: Path) -> None:
    Path("timm.py").write_text("open('mark', 'w')\n")
    (packages / "timm-1.0.dist-info" / "METADATA").unlink()
    (packages / "timm-1.0.dist-info").rmdir()
    (packages / "timm" / "__init__.py").unlink()
    ran = run(packages, "inspect", "net.pt", "--trust-classes", "timm")
    assert (ran.code, Path("mark").exists()) == (3, False)
    assert "timm is not installed" in ran.err


def test_only_libraries_with_a_policy_can_be_named(packages: Path) -> None:
    ran = run(packages, "inspect", "net.pt", "--trust-classes", "os")
    assert (ran.code, "torchvision, timm" in ran.err) == (2, True)
