"""Stated inputs: --input is the contract if it is true, and a finding if it is not."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli, Installed
from tests.models import NanCheck, Shelf, encoder


def test_a_refused_input_is_a_finding(composecli: Composecli, shelf: Shelf) -> None:
    checked = composecli.json(
        "check",
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("relu", nn.ReLU()),
        "--input",
        "2,11",
    )
    assert checked.code == 1
    assert checked.codes[0] == "CC310"


@pytest.mark.parametrize(
    ("stated", "contract"),
    [
        ("float32[N>=7,10]", "float32[N>=7, 10] -> float32[N>=7, 5]"),
        ("float32[N%8==0,10]", "float32[N%8==0, 10] -> float32[N%8==0, 5]"),
        ("float32[3<=N<=4,10]", "float32[3<=N<=4, 10] -> float32[3<=N<=4, 5]"),
        ("2,3,10", "float32[N, T, 10] -> float32[N, T, 5]"),
        ("0,10", "float32[0, 10] -> float32[0, 5]"),
        ("input=2,10", "float32[N, 10] -> float32[N, 5]"),
    ],
)
def test_a_stated_input_is_in_the_contract(
    composecli: Composecli, shelf: Shelf, stated: str, contract: str
) -> None:
    inspected = composecli.json(
        "inspect", shelf.save("linear", nn.Linear(10, 5)), "--input", stated
    )
    assert inspected.json["model"]["contract"]["text"] == contract


def test_a_wrong_statement_is_not_believed(composecli: Composecli, shelf: Shelf) -> None:
    flat = shelf.save("flat", nn.Sequential(nn.Flatten(), nn.Linear(1024, 3)))
    inspected = composecli.json(
        "inspect", flat, "--input", "float32[N,64,H,4]", "--input", "float32[N,64,H,4]"
    )
    assert inspected.code == 3
    inspected = composecli.json("inspect", flat, "--input", "float32[N,64,H%4==0,4]")
    assert inspected.code == 3
    inspected = composecli.json(
        "inspect", flat, "--input", "float32[N,C,4,4]", "--input", "float32[N,C,4,4]"
    )
    assert inspected.code == 3
    wide = shelf.save("wide_enough", nn.Sequential(nn.Flatten(), nn.Linear(8 * 4, 3)))
    inspected = composecli.json("inspect", wide, "--input", "float32[N,C,4]")
    assert inspected.json["model"]["contract"]["text"] == "float32[N, ?, 4] -> float32[N, 3]"


def test_an_unknown_input_name_is_refused(composecli: Composecli, shelf: Shelf) -> None:
    refused = composecli("inspect", shelf.save("linear", nn.Linear(10, 5)), "--input", "x=2,10")
    assert refused.code == 3
    assert "CC925" in refused.err
    assert "its inputs: input" in refused.err


def test_an_input_too_large_for_memory_is_a_finding(composecli: Composecli, shelf: Shelf) -> None:
    inspected = composecli.json(
        "inspect", shelf.save("linear", nn.Linear(10, 5)), "--input", "100000000000000,10"
    )
    assert inspected.code == 3
    assert inspected.json["finding"]["code"] == "CC307"


def test_stated_names_are_free_dims_of_the_contract(composecli: Composecli, shelf: Shelf) -> None:
    checked = composecli.json(
        "check",
        shelf.save("encoder", encoder()),
        shelf.save("relu", nn.ReLU()),
        "--input",
        "float32[B,3,H>=64,W>=64]",
    )
    model = checked.json["models"][0]["contract"]
    assert model["text"].startswith("float32[B, 3, H>=64, W>=64] -> float32[B, 64, ceil(H/8)")
    assert model["evidence"][0]["kind"] == "declared"


@pytest.mark.parametrize("scripted", [True, False])
def test_a_model_is_no_sample_and_stays_unloaded(
    composecli: Composecli, shelf: Shelf, here: Path, scripted: bool
) -> None:
    path = here / "sample.pt"
    module = nn.Linear(10, 5)
    if scripted:
        torch.jit.script(module).save(str(path))
    else:
        torch.save(module, path)
    ran = composecli("inspect", shelf.save("ten_to_five", module), "--input", f"@{path}")
    assert ran.code == 3
    assert "CC925" in ran.err
    assert "weights_only" not in ran.err


def test_a_sample_file_is_an_input(composecli: Composecli, shelf: Shelf) -> None:
    sample = shelf.folder / "sample.pt"
    torch.save(torch.full((4, 5), 3.0), sample)
    a, b = shelf.save("nan_check", NanCheck(), "pickled"), shelf.save("two", nn.Linear(2, 1))
    assert composecli("check", a, b, "--trust", a, "--trust", b, "--input", f"@{sample}").code == 0
    torch.save(torch.full((4, 5), -3.0), sample)
    assert composecli("check", a, b, "--trust", a, "--trust", b, "--input", f"@{sample}").code == 3


RATES = """
from torch import nn

class Rate(nn.Linear):
    def forward(self, x, rate: float, **kwargs):
        return super().forward(x) * rate

class RateFirst(nn.Linear):
    def forward(self, rate, x):
        return super().forward(x) * rate

class Optional(nn.Linear):
    def forward(self, x, rate=1, *, shift=0):
        return super().forward(x) * rate + shift
"""


def rate_model(name: str) -> str:
    """Write the code of the models, and return the one to name."""
    Path("rates.py").write_text(RATES)
    torch.save(nn.Linear(4, 4).state_dict(), f"{name}.pth")
    return f"rates.py:{name}(4, 4)@{name}.pth"


def in_python(name: str, x: torch.Tensor, **values: float) -> torch.Tensor:
    """Run a model without composecli."""
    layer = runpy.run_path("rates.py")[name](4, 4)
    layer.load_state_dict(torch.load(f"{name}.pth"))
    result: torch.Tensor = layer(x=x, **values)
    return result


@pytest.mark.parametrize("name", ["Rate", "RateFirst", "Optional"])
def test_a_value_stated_for_a_later_model_is_built_into_the_joined_file(
    installed: Installed, here: Path, name: str
) -> None:
    torch.jit.script(nn.Linear(3, 4)).save("before.pt")
    words = ["before.pt", rate_model(name), "--input", "2:rate:=3"]
    assert installed("check", *words).code == 0
    ran = installed.json("join", *words, "-o", "both.pt")
    assert ran.code == 0, ran.out
    notes = [note["title"] for note in ran.json["written"]["notes"] if note["code"] == "CC508"]
    assert len(notes) == 1
    assert notes[0].startswith("rate=3")
    x = torch.rand(5, 3)
    expected = in_python(name, torch.jit.load("before.pt")(x), rate=3)
    torch.testing.assert_close(torch.jit.load("both.pt")(x), expected)


def test_parallel_models_have_values_of_their_own(installed: Installed, here: Path) -> None:
    words = ["--mode", "parallel", rate_model("Rate"), rate_model("Optional")]
    words += ["--input", "rate:=2", "--input", "2:rate:=5"]
    assert installed("check", *words).code == 0
    ran = installed("join", *words, "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    assert "rate=5" in ran.out
    x = torch.rand(5, 4)
    expected = [in_python("Rate", x, rate=2), in_python("Optional", x, rate=5)]
    torch.testing.assert_close(torch.jit.load("both.pt")(x, rate=2.0), torch.cat(expected, 1))


def test_a_tensor_of_one_parallel_model_is_refused(composecli: Composecli, here: Path) -> None:
    one = rate_model("Optional")
    ran = composecli("check", "--mode", "parallel", one, one, "--input", "2:float32[N,4]")
    assert ran.code == 3
    assert "CC925" in ran.err
    assert "parallel models share their tensors" in " ".join(ran.err.split())
