"""Where check exits with 0, so does join, whatever TorchScript has no words for."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable, Iterator
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
        case "[0]" | "0":
            return result[0]
        case "[1]":
            return result[1]
        case "[1][0]":
            return result[1][0]
        case "[0].y":
            return result[0]["y"]
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


# A size becomes a number of Python, which a trace keeps: forwards of a Linear(8, 4).
FIXES_ROWS = {
    "the length": "return super().forward(x).reshape(len(x), -1)",
    "a size as an integer": "return super().forward(x).reshape(int(x.shape[0]), -1)",
    "a size as a float": "return super().forward(x) * math.sqrt(x.shape[0])",
    "a loop over rows": "return torch.stack([self.row(row) for row in x])",
    "a loop over numbers": "return torch.stack([self.row(x[i]) for i in range(x.size(0))])",
    "a split": "return torch.cat([self.row(part) for part in x.split(1)])",
    "a branch": "return super().forward(x) * (2 if x.shape[0] > 2 else 1)",
    "a table": "return super().forward(x) * {2: 2.0, 3: 5.0}.get(x.shape[0], 1.0)",
    "an array": "return super().forward(x) + torch.from_numpy(np.arange(x.shape[0]))[:, None]",
    "a list": "return super().forward(x) + torch.tensor([[float(len(x))]])",
}
# Code that a trace follows only with help, and then at all sizes.
FOLLOWED = {
    "an argument that is changed in place": "x += 1; return super().forward(x)",
    "the data of a tensor": "return super().forward(x).data",
    "a call with other weights": (
        "return torch.func.functional_call(self.inner, dict(self.inner.named_parameters()), (x,))"
    ),
}
MODULE = """
import math
import numpy as np
import torch
from torch import nn

class Net(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.inner = nn.Linear(*sizes)

    def row(self, row):
        return super().forward(row)

    def fifth_or_one(self, x):
        try:
            return x[4, 0]
        except IndexError:
            return 1

    def forward(self, x, **kwargs):
        {body}
"""
# Where the forward is.
PLACE = f"net.py:{MODULE[: MODULE.index('{body}')].count(chr(10)) + 1}"


def net(body: str) -> tuple[nn.Module, str]:
    """Write a module with this forward; return it, and the model to name."""
    Path("net.py").write_text(MODULE.format(body=body))
    module: nn.Module = runpy.run_path("net.py")["Net"](8, 4)
    torch.save(module.state_dict(), "net.pth")
    return module, "net.py:Net(8, 4)@net.pth"


@pytest.mark.parametrize("body", FIXES_ROWS.values(), ids=FIXES_ROWS)
def test_a_size_that_a_trace_fixes_is_checked_by_the_joined_file(
    composecli: Composecli, parts: Path, body: str
) -> None:
    module, model = net(body)
    assert composecli("check", model, "behind.pt").code == 0
    ran = composecli.json("join", model, "behind.pt", "-o", "both.pt")
    assert ran.code == 0, ran.out
    notes = [note for note in ran.json["written"]["notes"] if note["code"] == "CC507"]
    assert notes
    assert PLACE in notes[0]["title"]
    behind, both = torch.jit.load("behind.pt"), torch.jit.load("both.pt")
    x = torch.rand(2, 8)
    assert_same([behind(module(x).float())], [both(x)])
    with pytest.raises(torch.jit.Error, match=re.escape(PLACE)):
        both(torch.rand(5, 8))


def test_an_error_that_the_code_catches_is_checked_by_the_joined_file(
    installed: Installed, parts: Path
) -> None:
    module, model = net("return super().forward(x) * self.fifth_or_one(x)")
    ran = installed("join", model, "behind.pt", "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    behind, both = torch.jit.load("behind.pt"), torch.jit.load("both.pt")
    x = torch.rand(2, 8)
    assert_same([behind(module(x))], [both(x)])
    with pytest.raises(torch.jit.Error, match="catches an error at the size 2, and at no other"):
        both(torch.rand(5, 8))


@pytest.mark.parametrize("body", FOLLOWED.values(), ids=FOLLOWED)
def test_what_torch_does_not_trace_by_itself_is_joined_for_all_sizes(
    composecli: Composecli, parts: Path, body: str
) -> None:
    module, model = net(body)
    ran = composecli("join", model, "behind.pt", "--strict", "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    behind, both = torch.jit.load("behind.pt"), torch.jit.load("both.pt")
    for x in inputs(8):
        assert_same([behind(module(x.clone()))], [both(x)])


def test_a_model_that_cannot_be_joined_is_told_another_way(
    installed: Installed, parts: Path
) -> None:
    _, model = net(
        "return super().forward(x) + torch.rand(4, generator=torch.Generator().manual_seed(0))"
    )
    ran = installed("join", model, "behind.pt", "-o", "both.pt")
    assert ran.code == 3
    words = " ".join(ran.err.split())
    assert words.count("as TorchScript it returns other values") == 1
    assert "one path through its code" not in words
    assert "help: torch.export follows more of Python" in words


def test_a_branch_far_from_the_example_is_checked_by_the_joined_file(
    installed: Installed, parts: Path
) -> None:
    module, model = net("return super().forward(x) * (2 if x.shape[0] > 40 else 1)")
    ran = installed("join", model, "behind.pt", "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    behind, both = torch.jit.load("behind.pt"), torch.jit.load("both.pt")
    x = torch.rand(40, 8)
    assert_same([behind(module(x))], [both(x)])
    with pytest.raises(torch.jit.Error, match="the other branch is not in the file"):
        both(torch.rand(41, 8))


def test_only_the_size_that_is_fixed_is_checked(composecli: Composecli, parts: Path) -> None:
    module, model = net("return super().forward(x) * (x.dim() / len(x))")
    words = [model, "behind.pt", "--input", "float32[N,T,8]"]
    ran = composecli("join", *words, "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    behind, both = torch.jit.load("behind.pt"), torch.jit.load("both.pt")
    x = torch.rand(2, 11, 8)
    assert_same([behind(module(x))], [both(x)])


def test_with_strict_a_file_that_refuses_sizes_is_not_written(
    installed: Installed, parts: Path
) -> None:
    _, model = net(FIXES_ROWS["the length"])
    ran = installed("join", model, "behind.pt", "--strict", "-o", "both.pt")
    assert ran.code == 3
    assert "CC923" in ran.err
    assert "was traced: " in ran.err
    assert f"{PLACE} turns a size into the number 2" in " ".join(ran.err.split())
    assert not Path("both.pt").exists()


def test_a_value_that_a_trace_fixes_is_refused_with_the_place(
    installed: Installed, parts: Path
) -> None:
    _, model = net("return super().forward(x)[: int((x > 0).sum()) + 1]")
    ran = installed("join", model, "behind.pt", "-o", "both.pt")
    assert ran.code == 3
    assert f"{PLACE} turns a value into the number" in " ".join(ran.err.split())


def test_numbers_that_follow_from_weights_alone_are_not_checked(
    composecli: Composecli, parts: Path
) -> None:
    _, model = net("return super().forward(x) * max(1, int(self.weight.size(0)))")
    ran = composecli("join", model, "behind.pt", "--strict", "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    assert "RaiseException" not in str(torch.jit.load("both.pt").inlined_graph)


def test_a_file_that_refuses_sizes_can_be_checked_again(installed: Installed, parts: Path) -> None:
    _, model = net(FIXES_ROWS["the length"])
    assert installed("join", model, "behind.pt", "-o", "both.pt").code == 0
    ran = installed("inspect", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    assert "float32[2, 8] -> float32[2, 2]" in ran.out


def function(body: Callable[[nn.Module, Tensor], Tensor], width: int = 8) -> nn.Module:
    """Return a module that runs a function of a layer and its input."""

    class Function(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            return body(self.fc, x)

    return Function().eval()


# Arithmetic on the number of rows, in each place where an op takes a number.
EXPORTED: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "a view": lambda fc, x: fc(x).flatten().reshape(x.shape[0], -1),
    "positions": lambda fc, x: fc(x) + torch.arange(x.shape[0])[:, None],
    "new tensors": lambda fc, x: fc(x) + torch.zeros(x.shape[0], 4) + x.new_ones(x.shape[0], 4),
    "twice as many": lambda fc, x: fc(x).repeat(2, 1)[: 2 * x.shape[0] - 1],
    "a power": lambda fc, x: fc(x).unsqueeze(1).expand(-1, 2 ** x.shape[0], 4),
    "a mean": lambda fc, x: fc(x) / x.shape[0],
    "a square root": lambda fc, x: torch.softmax(x @ x.t() / x.shape[0] ** 0.5, -1) @ fc(x),
    "elements": lambda fc, x: fc(x) * x.numel(),
    "a value": lambda fc, x: fc(x) + torch.full((x.shape[0], 1), x.shape[0] * 1.0),
    "a scale": lambda fc, x: nn.functional.interpolate(fc(x)[None], size=4)[0],
    "padding": lambda fc, x: nn.functional.pad(fc(x), (0, 0, 0, x.shape[0])),
    "the last row": lambda fc, x: fc(x)[-1:],
    "a triangle": lambda fc, x: torch.ones(x.shape[0], x.shape[0]).tril() @ fc(x),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_program_is_joined_for_all_sizes(
    composecli: Composecli, parts: Path, name: str
) -> None:
    module = function(EXPORTED[name])
    sizes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(module, (torch.rand(2, 8),), dynamic_shapes=sizes)
    torch.export.save(program, "first.pt2")
    ran = composecli("join", "first.pt2", "behind.pt", "--strict", "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    behind, both = torch.jit.load("behind.pt"), torch.jit.load("both.pt")
    for rows in (2, 3, 4, 7):
        x = torch.rand(rows, 8)
        assert_same([behind(module(x))], [both(x)])


def test_a_joined_file_refuses_the_sizes_that_an_exported_program_refuses(
    installed: Installed, parts: Path
) -> None:
    module = function(lambda fc, x: fc(x)[: max(x.shape[0] - 3, 1)])
    dim = torch.export.Dim("rows", max=16)
    program = torch.export.export(nn.Linear(8, 4), (torch.rand(2, 8),), dynamic_shapes=({0: dim},))
    torch.export.save(program, "ranged.pt2")
    sizes = ({0: torch.export.Dim.DYNAMIC},)
    guarded = torch.export.export(module, (torch.rand(2, 8),), dynamic_shapes=sizes)
    torch.export.save(guarded, "guarded.pt2")
    for name, fits, refused in (("ranged", 16, 17), ("guarded", 4, 5)):
        ran = installed("join", f"{name}.pt2", "behind.pt", "-o", f"{name}.pt")
        assert ran.code == 0, ran.out + ran.err
        both = torch.jit.load(f"{name}.pt")
        both(torch.rand(fits, 8))
        with pytest.raises(torch.jit.Error, match="archive takes no such sizes"):
            both(torch.rand(refused, 8))
