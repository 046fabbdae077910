"""Contract files stand for the models that they describe, and a mistake in one is named."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import nn

from composecli.files.contract_file import schema_text
from tests.commands.running import Composecli, Installed
from tests.conditional_pairs import PAIRS, save_pair
from tests.models import Shelf

SCHEMA = Draft202012Validator(json.loads(schema_text()))
WHICH = {"the consumer": (False, True), "both": (True, True)}
HEAD = """{
  "inputs": [
    {"name": "x", "dtype": "float32", "dims": ["N", "C", "H", "W"]}
  ],
  "outputs": [
    {"dtype": "float32", "dims": ["N", "2"]}
  ],
  "where": ["C*H*W == 1024"]
}
"""


def written(composecli: Composecli, path: str, folder: Path, trust: list[str]) -> str:
    """Write the contract of a model to a file, which follows the schema."""
    file = folder / f"{Path(path).name}.contract.json"
    ran = composecli("inspect", path, "--write-contract", str(file), "--force", *trust)
    if ran.code == 3:
        pytest.skip("no contract is found without the producer")
    SCHEMA.validate(json.loads(file.read_text()))
    return str(file)


def verdict_of(report: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a contract decides: an untrained bridge needs a module."""
    (seam,) = report["seams"]
    verdict = seam["verdict"].replace("bridgeable", "incompatible")
    return verdict, seam["holds"], seam["when"]


def contracts_of(report: dict[str, Any]) -> list[str]:
    """Return the contracts with which a pair was judged."""
    return [model["contract"]["text"] for model in report["models"]]


@pytest.mark.parametrize("which", ["both", pytest.param("the consumer", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", PAIRS)
def test_a_contract_file_gives_the_verdict_of_its_model(
    name: str, which: str, composecli: Composecli, shelf: Shelf, tmp_path: Path
) -> None:
    paths = save_pair(shelf, name)
    trust = [word for path in paths for word in ("--trust", path)]
    expected = composecli.json("check", *paths, *trust).json
    described = list[str]()
    kept = list[str]()
    for path, is_described in zip(paths, WHICH[which], strict=True):
        described.append(path)
        if is_described:
            described[-1] = written(composecli, path, tmp_path, ["--trust", path])
        else:
            kept += ["--trust", path]
    ran = composecli.json("check", *described, *kept)
    if contracts_of(ran.json) == contracts_of(expected):
        assert verdict_of(ran.json) == verdict_of(expected)
    else:
        # Beside its producer, the model was asked for another rank or other sizes than alone.
        assert ran.json["verdict"] != "compatible" or verdict_of(ran.json) == verdict_of(expected)


class Named(NamedTuple):
    logits: torch.Tensor
    hidden: torch.Tensor


class Several(nn.Module):
    """Takes two tensors and a plain value, and returns a structure."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, scale: float = 1.0) -> Any:
        y = self.linear(x) * scale
        match self.kind:
            case "tuple":
                return y, mask.sum(1)
            case "dict":
                return {"logits": y, "a key": mask, "deep": {"hidden": (x, y)}}
            case "named":
                return Named(y, x)
            case _:
                return OrderedDict(last=y)


@pytest.mark.parametrize("kind", ["tuple", "dict", "named", "ordered"])
def test_a_contract_of_any_structure_is_read_as_it_was_written(
    kind: str, composecli: Composecli, shelf: Shelf, tmp_path: Path
) -> None:
    path = shelf.save(f"contract_{kind}", Several(kind).eval(), "pickled")
    words = ["--trust", path, "--input", "float32[N,T,6]", "--input", "float32[N,T]"]
    file = written(composecli, path, tmp_path, words)
    first = composecli.json("inspect", path, *words).json["model"]["contract"]
    again = composecli.json("inspect", file).json["model"]["contract"]
    for side in ("inputs", "outputs"):
        ports = [(port["dtype"], port["dims"]) for port in first[side]]
        assert [(port["dtype"], port["dims"]) for port in again[side]] == ports
    copy = tmp_path / "again.contract.json"
    assert composecli("inspect", file, "--write-contract", str(copy)).code == 0
    assert copy.read_text() == Path(file).read_text()


def test_the_file_describes_all_outputs_whichever_are_selected(
    composecli: Composecli, shelf: Shelf, tmp_path: Path
) -> None:
    path = shelf.save("contract_dict", Several("dict").eval(), "pickled")
    words = ["--trust", path, "--input", "float32[N,T,6]", "--input", "float32[N,T]"]
    file = written(composecli, path, tmp_path, [*words, "--select", "logits"])
    names = [port.get("name") for port in json.loads(Path(file).read_text())["outputs"]]
    assert names == ["logits", '["a key"]', "deep.hidden[0]", "deep.hidden[1]"]


class Quoted(nn.Module):
    """Returns a key that no name of a port can have."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {'a "quoted" key': x + 1, "b": x[:, :2]}


def test_a_contract_that_has_no_text_is_not_written(
    composecli: Composecli, shelf: Shelf, tmp_path: Path
) -> None:
    path = shelf.save("contract_quoted", Quoted().eval(), "pickled")
    file = tmp_path / "quoted.contract.json"
    words = ("--trust", path, "--input", "float32[N,4]", "--write-contract", str(file))
    ran = composecli("inspect", path, *words)
    assert ran.code == 3
    assert "CC921" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_written_by_hand_decides_with_the_installed_command(
    installed: Installed, shelf: Shelf, tmp_path: Path
) -> None:
    head = tmp_path / "head.contract.json"
    head.write_text(HEAD)
    encoder = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1))
    path = shelf.save("contract_encoder", encoder)
    (seam,) = installed.json("check", path, str(head)).json["seams"]
    assert (seam["verdict"], seam["when"]) == ("compatible", ["29<=H<=32", "29<=W<=32"])
    assert not {"CC210", "CC211", "CC212"} & {item["code"] for item in seam["findings"]}
    strict = installed.json("check", path, str(head), "--strict")
    assert strict.code == 1
    wrong = installed("check", shelf.save("contract_plain", nn.Linear(5, 3)), str(head))
    assert wrong.code == 1
    assert "float32[N, C, H, W]" in wrong.out
    assert "join" not in wrong.out


def test_inspect_of_a_contract_file_shows_nothing_but_the_contract(
    composecli: Composecli, tmp_path: Path
) -> None:
    head = tmp_path / "head.contract.json"
    head.write_text(HEAD)
    ran = composecli("inspect", str(head))
    assert ran.code == 0
    assert "contract: float32[N, C, H, W]" in ran.out
    assert not {"parameters", "layer", "portability"} & set(re.findall(r"[a-z]+", ran.out))


def test_a_contract_file_is_not_joined(installed: Installed, shelf: Shelf, tmp_path: Path) -> None:
    head = tmp_path / "head.contract.json"
    head.write_text(HEAD)
    path = shelf.save("contract_plain", nn.Linear(5, 3))
    ran = installed("join", path, str(head), "-o", str(tmp_path / "both.pt"))
    assert ran.code == 3
    assert "error[CC934]" in ran.err
    assert not (tmp_path / "both.pt").exists()


def test_an_existing_contract_is_replaced_only_by_force(
    installed: Installed, shelf: Shelf, tmp_path: Path
) -> None:
    path = shelf.save("contract_plain", nn.Linear(5, 3))
    file = tmp_path / "plain.contract.json"
    file.write_text("mine")
    words = ("inspect", path, "--write-contract", str(file))
    ran = installed(*words)
    assert (ran.code, file.read_text()) == (2, "mine")
    assert "CC919" in ran.err
    assert installed(*words, "--force").code == 0
    SCHEMA.validate(json.loads(file.read_text()))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["plain.contract.json"]


def test_no_contract_is_written_if_none_is_found(
    installed: Installed, shelf: Shelf, tmp_path: Path
) -> None:
    path = shelf.save("contract_none", nn.Linear(5, 3))
    file = tmp_path / "none.contract.json"
    ran = installed("inspect", path, "--write-contract", str(file), "--input", "float32[N,4]")
    assert ran.code == 3
    assert not file.exists()


MISTAKES = {
    "a key": ('"dims"', '"dimz"', 3, "did you mean dims?"),
    "a dtype": ('"float32", "dims": ["N", "C"', '"flaot32", "dims": ["N", "C"', 3, "float32?"),
    "a dim": ('"W"]', '"W>"]', 3, "not a dim"),
    "a dim that is a number": ('"W"]', "3]", 3, "a string is expected, not 3"),
    "a dim of no input": ('["N", "2"]', '["N", "K"]', 6, "follows from no input"),
    "a relation": ("C*H*W == 1024", "C*H*W = 1024", 8, "not a relation"),
    "a relation of nothing": ("C*H*W ==", "C*K ==", 8, "K is not a free dim"),
    "a relation that never holds": ("== 1024", "== 0", 8, "no sizes are found"),
    "a missing key": ('"dtype": "float32", "dims": ["N", "2"]', '"dims": ["N"]', 6, "dtype is"),
    "a comma": ('"x", "dtype"', '"x" "dtype"', 3, "Expecting ',' delimiter"),
    "a top key": ('"where"', '"were"', 8, "did you mean where?"),
    "a name": ('"name": "x"', '"name": "x["', 3, "not the name of a port"),
    "an example": ('"name": "x"', '"name": "x", "example": "2, x"', 3, "inputs[0].example"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_the_line_and_what_is_expected(
    mistake: str, composecli: Composecli, here: Path
) -> None:
    old, new, line, message = MISTAKES[mistake]
    assert old in HEAD
    Path("head.contract.json").write_text(HEAD.replace(old, new, 1))
    ran = composecli("inspect", "head.contract.json")
    assert ran.code == 3
    assert "error[CC933]" in ran.err
    assert f"head.contract.json:{line}\n" in ran.err
    assert message in " ".join(ran.err.split())


HOSTILE = {
    "deep": '{"inputs": ' + "[" * 100_000,
    "a key twice": '{"inputs": [], "inputs": []}',
    "no number": '{"inputs": NaN}',
    "many digits": '{"inputs": [{"name": "x", "dtype": "int8", "dims": ["' + "9" * 5000 + '"]}]}',
    "a tower": HEAD.replace("C*H*W", "*".join(["C"] * 3000)),
    "huge sizes": HEAD.replace('"2"', '"9223372036854775807"'),
    "a huge item": HEAD.replace('{"dtype"', '{"name": "[999999]", "dtype"'),
    "a size of less than nothing": HEAD.replace('"2"', '"N - 5"'),
    "another encoding": HEAD.encode("utf-16").decode("latin-1"),
    "an empty list": '{"inputs": [], "outputs": []}',
    "a list": '["inputs", "outputs"]',
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_contract_is_a_problem_and_no_crash(
    case: str, installed: Installed, tmp_path: Path
) -> None:
    file = tmp_path / "hostile.contract.json"
    file.write_text(HOSTILE[case], encoding="utf-8", errors="surrogateescape")
    ran = installed("check", str(file), str(file))
    assert ran.code in (1, 3), ran.err
    assert "Traceback" not in ran.err


def test_the_schema_is_printed(composecli: Composecli) -> None:
    assert composecli("schema", "contract").out == schema_text()
    assert json.loads(composecli("schema").out)["title"] == "composecli report, version 1"
