"""The contract that a torch.export archive states, read from its JSON alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from composecli import CouldNotAttempt, inspect, options
from composecli.files.archive import Archive
from composecli.files.pt2 import exported_contract, foreign_types


class Many(nn.Module):
    """Convolutions, a dict and nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> dict[str, object]:
        y = self.conv(x)
        return {
            "logits": self.head(y.mean((2, 3))) * scale,
            "maps": (nn.functional.max_pool2d(y, 2), [y.flatten(1)]),
        }


@pytest.fixture(scope="module")
def archive_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dim = torch.export.Dim
    program = torch.export.export(
        Many().eval(),
        (torch.rand(2, 3, 64, 64), torch.rand(1)),
        dynamic_shapes={
            "x": {0: dim("b", max=16), 2: dim("h", min=8), 3: dim("w", min=8)},
            "scale": None,
        },
    )
    path = tmp_path_factory.mktemp("exported") / "many.pt2"
    torch.export.save(program, path)
    return path


def test_ranges_names_and_expressions_are_read(archive_path: Path) -> None:
    with Archive(archive_path) as archive:
        contract = exported_contract(archive)
    assert contract is not None
    assert [port.name for port in contract.inputs] == ["x", "scale"]
    assert contract.inputs_text == "float32[N<=16, 3, H>=8, W>=8], float32[1]"
    assert contract.outputs_text == (
        '{"logits": float32[N<=16, 4], "maps": (float32[N<=16, 8, (H + 1)//4, (W + 1)//4], '
        "[float32[N<=16, 8*ceil(H/2)*ceil(W/2)]])}"
    )
    assert str(contract.example) == "float32[2, 3, 64, 64], float32[1]"


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_json_that_breaks_off_is_no_contract(
    archive_path: Path, tmp_path: Path, kept: float
) -> None:
    broken = _with_json(archive_path, tmp_path, lambda text: text[: int(len(text) * kept)])
    with Archive(broken) as archive:
        assert exported_contract(archive) is None


def test_an_expression_that_is_not_arithmetic_is_unknown(
    archive_path: Path, tmp_path: Path
) -> None:
    def change(text: str) -> str:
        data = json.loads(text)
        for value in data["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "FloorDiv" in str(size):
                    size["as_expr"]["expr_str"] = '__import__("os").system("touch ran")'
        return json.dumps(data)

    with Archive(_with_json(archive_path, tmp_path, change)) as archive:
        contract = exported_contract(archive)
    assert contract is not None
    assert "float32[N<=16, 8, ?, ?]" in contract.outputs_text
    assert not Path("ran").exists()


def _with_json(source: Path, folder: Path, change: object) -> Path:
    assert callable(change)
    target = folder / "changed.pt2"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(
                name, change(data.decode()).encode() if name.endswith("models/model.json") else data
            )
    return target


LIBRARY = """
import torch

class Output:
    def __init__(self, logits):
        self.logits = logits

torch.utils._pytree.register_pytree_node(
    Output,
    lambda value: ([value.logits], ["logits"]),
    lambda values, context: Output(*values),
    serialized_type_name="somelib.outputs.Output",
    to_dumpable_context=lambda context: context,
    from_dumpable_context=lambda context: context,
)
"""
EXPORT = """
import torch
from somelib.outputs import Output

class Model(torch.nn.Module):
    def forward(self, x):
        return Output(x * 2)

torch.export.save(torch.export.export(Model(), (torch.rand(2, 5),)), "library.pt2")
"""


def test_an_archive_that_needs_a_library_says_which_and_what_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somelib").mkdir()
    (tmp_path / "somelib" / "__init__.py").touch()
    (tmp_path / "somelib" / "outputs.py").write_text(LIBRARY)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", EXPORT], cwd=tmp_path, env=environment, check=True)
    with Archive(tmp_path / "library.pt2") as archive:
        assert foreign_types(archive) == ("somelib.outputs.Output",)
    with pytest.raises(
        CouldNotAttempt, match="objects of somelib, which is not imported"
    ) as caught:
        inspect(tmp_path / "library.pt2")
    assert "--trust" in caught.value.problem.remedies[1].text
    with pytest.raises(CouldNotAttempt, match="cannot be imported here"):
        inspect(tmp_path / "library.pt2", options=options(trust=[tmp_path / "library.pt2"]))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert (
        inspect(
            tmp_path / "library.pt2", options=options(trust=[tmp_path / "library.pt2"])
        ).exit_code
        == 0
    )
