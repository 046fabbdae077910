"""Unusual files without bad intent load without trust, or are refused by name with a way out."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional

from composecli.cli import main
from tests.commands.running import Installed
from tests.safety.scripted_modules import Narrowed, OneOfTwoLists, ThroughInterface


class UnusualBuffers(nn.Module):
    """Buffers with the dtypes and strides that occur in real checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("expanded", torch.ones(1, 2).expand(50, 2))
        self.register_buffer("empty", torch.zeros(0, 4))
        self.register_buffer("brain_float", torch.ones(2, dtype=torch.bfloat16))
        self.register_buffer("float8", torch.ones(2).to(torch.float8_e4m3fn))
        self.register_buffer("other_float8", torch.ones(2).to(torch.float8_e5m2))
        self.register_buffer("complex_pair", torch.ones(2, dtype=torch.complex64))
        self.register_buffer("transposed", torch.arange(12).reshape(3, 4).t())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


class MethodNamedSave(nn.Module):
    """A method with the name of a refused function."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    @torch.jit.export  # type: ignore[untyped-decorator]
    def save(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.save(x)


class Parametrised(nn.Module):
    """A layer whose weight is computed by torch's parametrisation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


class UnlistedOp(nn.Module):
    """Uses an op that is not on the allow-list."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch._foreach_add([x], 1.0)[0]


def _many_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), *(nn.Linear(2, 2) for _ in range(2500)))


def _quantised() -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        return torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(3, 2)), {nn.Linear}, dtype=torch.qint8
        )


def _old_weight_norm() -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        return torch.nn.utils.weight_norm(nn.Linear(3, 2))


def _transformer_with(activation: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    return nn.TransformerEncoderLayer(3, 1, 8, activation=activation).eval()


def _scripted_before() -> nn.Module:
    """Scripting a module leaves marks on it that torch.save then stores."""
    module = nn.Linear(3, 2)
    torch.jit.script(module)
    return module


def _save_without_checksums(module: nn.Module, path: Path) -> None:
    from torch.serialization import set_crc32_options

    set_crc32_options(False)
    try:
        torch.save(module, path)
    finally:
        set_crc32_options(True)


def _script(module: nn.Module, path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(module)._c.save(str(path), {})


def _trace(module: nn.Module, path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(module, torch.rand(2, 3)).save(str(path))


def _export(module: nn.Module, path: Path) -> None:
    sizes = ({0: torch.export.Dim("n", min=2)},)
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.export(module, (torch.rand(4, 3),), dynamic_shapes=sizes)
        torch.export.save(program, path)


def _export_with_hints(module: nn.Module, path: Path) -> None:
    """Export with sizes that the exporter relates, which leaves marks at the example input."""
    sizes = ({0: torch.export.Dim.DYNAMIC},)
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.export(module, (torch.rand(4, 3),), dynamic_shapes=sizes)
        torch.export.save(program, path)


class PairsOfOne(nn.Module):
    """Takes an even number of samples from the entry with this key."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self.layer = nn.Linear(3, 2)

    def forward(self, entries: dict[str, torch.Tensor]) -> torch.Tensor:
        x = entries[self.key]
        if x.shape[0] % 2 == 0:
            x = x.view(-1, 2, 3).sum(1)
        return self.layer(x)


class Case(NamedTuple):
    """A module, how it is saved, and the import that a refusal names (if it is refused)."""

    make: Callable[[], nn.Module]
    save: Callable[[nn.Module, Path], None]
    refused_import: str = ""


LOADED = {
    "dtypes and strides, scripted": Case(UnusualBuffers, _script),
    "dtypes and strides, exported": Case(UnusualBuffers, _export),
    "a method named save": Case(MethodNamedSave, _script),
    "the second alternatives of types": Case(OneOfTwoLists, _script),
    "an interface that promises less": Case(ThroughInterface, _script),
    "types that conditions narrow": Case(Narrowed, _script),
    "five thousand tensors": Case(_many_layers, torch.save),
    "five thousand tensors, traced": Case(_many_layers, _trace),
    "quantised, scripted": Case(_quantised, _script),
    "weight norm, traced": Case(_old_weight_norm, _trace),
    "weight norm": Case(_old_weight_norm, torch.save),
    "a parametrisation, traced": Case(Parametrised, _trace),
    "a parametrisation, exported": Case(Parametrised, _export),
    "sizes by hints, exported": Case(lambda: nn.Linear(3, 2), _export_with_hints),
    "without checksums": Case(lambda: nn.Linear(3, 2), _save_without_checksums),
    "a transformer with F.relu": Case(lambda: _transformer_with(functional.relu), torch.save),
    "a transformer with F.silu": Case(lambda: _transformer_with(functional.silu), torch.save),
    "a transformer with F.softplus": Case(
        lambda: _transformer_with(functional.softplus), torch.save
    ),
    "a module that was scripted": Case(_scripted_before, torch.save),
}
REFUSED = {
    "a transformer with F.dropout": Case(
        lambda: _transformer_with(functional.dropout), torch.save, "torch.nn.functional.dropout"
    ),
    "a user-defined class": Case(
        UnusualBuffers, torch.save, "tests.safety.test_honest.UnusualBuffers"
    ),
}


def inspect(path: Path, *options: str) -> tuple[int, str]:
    """Return the exit code and the output of composecli inspect."""
    arguments = ["inspect", str(path), "--input", "float32[N,3]", *options]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def _no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)


@pytest.mark.parametrize("name", LOADED)
def test_an_unusual_but_harmless_file_loads_without_trust(tmp_path: Path, name: str) -> None:
    case = LOADED[name]
    path = tmp_path / "model.pt"
    if case.save in (_export, _export_with_hints):
        path = tmp_path / "model.pt2"
    torch.manual_seed(0)
    case.save(case.make(), path)
    code, output = inspect(path)
    assert code == 0, output
    assert "float32[N, 3] -> float32[N, " in output


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_the_import_and_how_to_allow_it(tmp_path: Path, name: str) -> None:
    case = REFUSED[name]
    path = tmp_path / "model.pt"
    case.save(case.make(), path)
    code, output = inspect(path)
    assert code == 3
    assert case.refused_import in output
    assert f"--trust {path}" in output
    assert inspect(path, "--trust", str(path))[0] == 0


def test_a_pinned_file_loads_only_with_the_pinned_content(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(UnusualBuffers(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert inspect(path, "--trust", f"{path}@sha256:{digest}")[0] == 0
    code, output = inspect(path, "--trust", f"{path}@sha256:{'0' * 64}")
    assert code == 3
    assert "CC929" in output
    assert f"sha256:{digest}" in output


def test_trusting_a_file_that_is_not_a_model_of_the_command_is_a_usage_error(
    tmp_path: Path,
) -> None:
    torch.save(nn.Linear(3, 2), tmp_path / "model.pt")
    arguments = ["inspect", str(tmp_path / "model.pt"), "--trust", "modle.pt"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "modle.pt is not one of the models" in result.output


def test_a_join_reports_an_input_without_checksums_once(tmp_path: Path) -> None:
    first, second, joined = (str(tmp_path / name) for name in ("one.pt", "other.pt", "both.pt"))
    _save_without_checksums(nn.Linear(3, 2), Path(first))
    torch.save(nn.Linear(2, 2), second)
    arguments = ["join", first, second, "-o", joined]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    # The output is wrapped, so compare it without blanks.
    output = "".join(result.output.split())
    assert "".join(f"note[CC505]: {first} was saved without checksums".split()) in output
    assert output.count("CC505") == 1


def test_one_op_can_be_allowed(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    _script(UnlistedOp(), path)
    code, output = inspect(path)
    assert code == 3
    assert "--allow-op aten::_foreach_add" in output
    assert inspect(path, "--allow-op", "aten::_foreach_add")[0] == 0


@pytest.mark.parametrize("key", ["a+b", "a#b,c"])
def test_keys_that_stay_between_quotes_may_be_in_guards(
    installed: Installed, tmp_path: Path, key: str
) -> None:
    path = tmp_path / "pairs.pt2"
    sizes = ({key: {0: torch.export.Dim.DYNAMIC}},)
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.export(
            PairsOfOne(key), ({key: torch.rand(4, 3)},), dynamic_shapes=sizes
        )
        torch.export.save(program, path)
    inspected = installed.json("inspect", path)
    assert inspected.code == 0
    assert "float32[N//2, 2]" in inspected.json["model"]["contract"]["text"]
