"""Where check exits with 0, so does join, whatever TorchScript has no words for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from composecli.runtime.tensors import tensors_in
from tests import joined_modules
from tests.commands.running import Composecli, Installed
from tests.joined_modules import MODULES

# Of torch, about what the modules do.
pytestmark = pytest.mark.filterwarnings("ignore")

MODULE_FILE = Path(joined_modules.__file__)
ROWS = (2, 5)


@pytest.fixture
def parts(here: Path) -> Path:
    """A folder with a model before and one behind each module, and the code of the modules."""
    torch.manual_seed(0)
    torch.jit.script(nn.Linear(4, 2)).save("behind.pt")
    torch.jit.script(nn.Linear(6, 8)).save("before.pt")
    Path("modules.py").write_text(MODULE_FILE.read_text())
    return here


def saved(name: str) -> tuple[nn.Module, str]:
    """Return a module in eval mode, and the model to name on the command line."""
    module = getattr(joined_modules, name)()
    if name == "Lazy":
        module(torch.rand(3, 8))
    module.eval()
    torch.save(module.state_dict(), "weights.pth")
    return module, f"modules.py:{name}@weights.pth"


def selected(result: Any, port: str | None) -> Tensor:
    """Return the output that is selected, found without the code under test."""
    match port:
        case None:
            return result
        case "[0]":
            return result[0]
        case "[1]":
            return result[1]
        case "a.b[0]":
            return result["a"]["b"][0]
    if isinstance(result, dict):
        return result[port]
    return getattr(result, port)


def assert_same(expected: list[Tensor], actual: list[Tensor]) -> None:
    assert len(expected) == len(actual)
    for one, other in zip(expected, actual, strict=True):
        torch.testing.assert_close(one, other)


def inputs(width: int) -> Iterator[Tensor]:
    """Yield inputs of several batch sizes: a trace may keep that of its example."""
    for rows in ROWS:
        yield torch.rand(rows, width)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_joined_with_the_model_behind_it(
    composecli: Composecli, parts: Path, name: str
) -> None:
    module, model = saved(name)
    port = MODULES[name]
    words = [model, "behind.pt", "--training", "eval"]
    if port is not None:
        words += ["--select", port]
    assert composecli("check", *words).code == 0
    ran = composecli("join", *words, "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    behind, both = torch.jit.load("behind.pt"), torch.jit.load("both.pt")
    with torch.no_grad():
        for x in inputs(8):
            expected = behind(selected(module(x), port).clone())
            assert_same([expected], [both(x)])


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_joined_with_the_model_before_it(
    composecli: Composecli, parts: Path, name: str
) -> None:
    module, model = saved(name)
    words = ["before.pt", model, "--training", "eval"]
    ran = composecli("join", *words, "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    before, both = torch.jit.load("before.pt"), torch.jit.load("both.pt")
    with torch.no_grad():
        for x in inputs(6):
            assert_same(tensors_in(module(before(x))), tensors_in(both(x)))


@pytest.mark.parametrize("name", ["OptionalLoss", "LanguageModel", "Hooked", "Rounded"])
def test_the_installed_command_joins_them_too(installed: Installed, parts: Path, name: str) -> None:
    _, model = saved(name)
    words = [model, "behind.pt"]
    port = MODULES[name]
    if port is not None:
        words += ["--select", port]
    ran = installed("join", *words, "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    assert "was traced: " in ran.out
    assert not ran.err


def test_a_result_keeps_its_structure_where_torchscript_has_one(
    composecli: Composecli, parts: Path
) -> None:
    _, model = saved("OptionalLoss")
    assert composecli("join", "before.pt", model, "-o", "both.pt").code == 0
    logits, loss = torch.jit.load("both.pt")(torch.rand(3, 6))
    assert logits.shape == (3, 4)
    assert loss is None


def test_a_plain_value_that_tracing_fixes_is_checked_by_the_joined_file(
    composecli: Composecli, parts: Path
) -> None:
    _, model = saved("Defaults")
    words = ["--input", "float32[N,8]", "--input", "n:=3"]
    ran = composecli("join", model, "behind.pt", *words, "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    both = torch.jit.load("both.pt")
    assert both(torch.rand(5, 8), n=3).shape == (5, 2)
    with pytest.raises(torch.jit.Error, match="traced with another value"):
        both(torch.rand(5, 8), n=4)


def test_a_backward_that_is_lost_is_noted(composecli: Composecli, parts: Path) -> None:
    _, model = saved("Rounded")
    ran = composecli.json("join", model, "behind.pt", "-o", "both.pt")
    titles = [note["title"] for note in ran.json["written"]["notes"]]
    lost = "its gradients are not those of the models: the backward of RoundFunction is lost"
    assert lost in titles
    checks = [check["name"] for check in ran.json["written"]["checks"]]
    assert "gradients" not in checks


KEEPS_ROWS = """
from torch import nn

class KeepsRows(nn.Linear):
    def forward(self, x, **kwargs):
        return super().forward(x).reshape(len(x), -1)
"""


def test_a_trace_that_keeps_a_size_is_refused_with_the_reason(
    composecli: Composecli, parts: Path
) -> None:
    Path("kept.py").write_text(KEEPS_ROWS + "\ndef make():\n    return KeepsRows(8, 4)\n")
    torch.save(nn.Linear(8, 4).state_dict(), "kept.pth")
    ran = composecli("join", "kept.py:make@kept.pth", "behind.pt", "-o", "both.pt")
    assert ran.code == 3
    assert "CC923" in ran.err
    assert "was traced: " in ran.err
    assert not Path("both.pt").exists()
