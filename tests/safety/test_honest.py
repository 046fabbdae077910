"""Honest files that look odd: they load without trust, or are refused by name with the way to allow them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from composecli.cli import main


class Odd(nn.Module):
    """Buffers of the dtypes and strides that checkpoints hold."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("wide", torch.ones(1, 2).expand(50, 2))
        self.register_buffer("none", torch.zeros(0, 4))
        self.register_buffer("brain", torch.ones(2, dtype=torch.bfloat16))
        self.register_buffer("eight", torch.ones(2).to(torch.float8_e4m3fn))
        self.register_buffer("other_eight", torch.ones(2).to(torch.float8_e5m2))
        self.register_buffer("two", torch.ones(2, dtype=torch.complex64))
        self.register_buffer("turned", torch.arange(12).reshape(3, 4).t())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


class Saver(nn.Module):
    """A method that has the name of what is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    @torch.jit.export  # type: ignore[untyped-decorator]
    def save(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.save(x)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


def _many() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), *(nn.Linear(2, 2) for _ in range(2500)))


def _quantised() -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        return torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(3, 2)), {nn.Linear}, dtype=torch.qint8
        )


def _old_norm() -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        return torch.nn.utils.weight_norm(nn.Linear(3, 2))


def _without_checksums(module: nn.Module, path: Path) -> None:
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
        torch.export.save(
            torch.export.export(module, (torch.rand(4, 3),), dynamic_shapes=sizes), path
        )


Save = Callable[[nn.Module, Path], None]
LOADED: dict[str, tuple[Callable[[], nn.Module], Save]] = {
    "dtypes and strides, scripted": (Odd, _script),
    "dtypes and strides, exported": (Odd, _export),
    "a method named save": (Saver, _script),
    "five thousand tensors": (_many, torch.save),
    "five thousand tensors, traced": (_many, _trace),
    "quantised, scripted": (_quantised, _script),
    "weight norm, traced": (_old_norm, _trace),
    "a parametrisation, traced": (Normed, _trace),
    "a parametrisation, exported": (Normed, _export),
    "without checksums": (lambda: nn.Linear(3, 2), _without_checksums),
    "a transformer with F.relu": (
        lambda: nn.TransformerEncoderLayer(3, 1, 8, activation=nn.functional.relu).eval(),
        torch.save,
    ),
    "a module that was scripted": (lambda: _after(nn.Linear(3, 2)), torch.save),
}
REFUSED: dict[str, tuple[Callable[[], nn.Module], Save, str]] = {
    "weight norm": (_old_norm, torch.save, "torch.nn.utils.weight_norm.WeightNorm"),
    "a class of one's own": (Odd, torch.save, "tests.safety.test_honest.Odd"),
}


def _transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(3, 1, 8, activation=nn.functional.relu)


def _after(module: nn.Module) -> nn.Module:
    torch.jit.script(module)
    return module


def _inspect(path: Path, *words: str) -> tuple[int, str]:
    ran = CliRunner().invoke(
        main, ["inspect", str(path), "--input", "float32[N,3]", *words], catch_exceptions=False
    )
    return ran.exit_code, ran.output


@pytest.fixture(autouse=True)
def _no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)


@pytest.mark.parametrize("name", LOADED)
def test_an_honest_file_loads_without_trust(tmp_path: Path, name: str) -> None:
    make, save = LOADED[name]
    path = tmp_path / ("model.pt2" if save is _export else "model.pt")
    torch.manual_seed(0)
    save(make(), path)
    code, output = _inspect(path)
    assert code == 0, output
    assert "float32[N, 3] -> float32[N, " in output


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named_with_the_way_to_allow_it(tmp_path: Path, name: str) -> None:
    make, save, imported = REFUSED[name]
    path = tmp_path / "model.pt"
    save(make(), path)
    code, output = _inspect(path)
    assert code == 3
    assert imported in output
    assert f"--trust {path}" in output
    assert _inspect(path, "--trust", str(path))[0] == 0


def test_a_pin_holds_a_file_to_its_content(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "model.pt"
    torch.save(Odd(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert _inspect(path, "--trust", f"{path}@sha256:{digest}")[0] == 0
    code, output = _inspect(path, "--trust", f"{path}@sha256:{'0' * 64}")
    assert code == 3
    assert "CC929" in output
    assert f"sha256:{digest}" in output


def test_trust_in_another_file_is_a_mistake(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2), tmp_path / "model.pt")
    ran = CliRunner().invoke(main, ["inspect", str(tmp_path / "model.pt"), "--trust", "modle.pt"])
    assert ran.exit_code == 2
    assert "modle.pt is none of the models" in ran.output


class Drawn(nn.Module):
    """Uses an op that is on no list."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch._foreach_add([x], 1.0)[0]


def test_a_join_says_where_there_are_no_checksums(tmp_path: Path) -> None:
    one, other, both = (str(tmp_path / name) for name in ("one.pt", "other.pt", "both.pt"))
    _without_checksums(nn.Linear(3, 2), Path(one))
    torch.save(nn.Linear(2, 2), other)
    ran = CliRunner().invoke(main, ["join", one, other, "-o", both], catch_exceptions=False)
    assert ran.exit_code == 0
    said = "".join(ran.output.split())
    assert "".join(f"note[CC505]: {one} was saved without checksums".split()) in said
    assert said.count("CC505") == 1


def test_one_op_can_be_allowed(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    _script(Drawn(), path)
    code, output = _inspect(path)
    assert code == 3
    assert "--allow-op aten::_foreach_add" in output
    assert _inspect(path, "--allow-op", "aten::_foreach_add")[0] == 0
