"""The scan of TorchScript: every op of every function is looked up, and no function runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.files.archive import Archive
from composecli.files.safety.refusals import Reason
from composecli.runtime.loading import torchscript_scan
from composecli.runtime.loading.torchscript_scan import unsafe_ops
from tests.models import Counter, Shelf, Tied, TwoOutputs, encoder, rewrite


class Exports(nn.Module):
    """Its forward is harmless, and a method that nothing calls is not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1

    @torch.jit.export  # type: ignore[untyped-decorator]
    def dump(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_file("one", False, 3) + torch.from_file("two", False, 3) + x


class Nested(nn.Module):
    """The op is in a block inside a block of a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class Inner(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 2:
            for _ in range(3):
                x = x + torch.from_file("weights.bin", False, 3)
        return x


class Restores(nn.Module):
    """Its state is set by code, which must be compiled and not run."""

    def __init__(self) -> None:
        super().__init__()
        self.training = True

    @torch.jit.export  # type: ignore[untyped-decorator]
    def __getstate__(self) -> int:
        return 3

    @torch.jit.export  # type: ignore[untyped-decorator]
    def __setstate__(self, state: int) -> None:
        self.training = True
        raise RuntimeError("the state was set")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def reasons(path: str, also: frozenset[str] = frozenset()) -> list[Reason]:
    with Archive(Path(path)) as archive:
        return list(unsafe_ops(archive, also))


@pytest.mark.parametrize(
    "module",
    [encoder(), Tied(), TwoOutputs(), Counter(), nn.LSTM(3, 2)],
    ids=lambda module: type(module).__name__,
)
def test_ordinary_models_are_safe(shelf: Shelf, module: nn.Module) -> None:
    assert not reasons(shelf.save(f"scan_{type(module).__name__}", module))


def test_an_op_is_reported_once_with_a_function_that_uses_it(shelf: Shelf) -> None:
    (reason,) = reasons(shelf.save("scan_exports", Exports()))
    assert reason.op == "aten::from_file"
    assert reason.text.startswith("it uses aten::from_file in ")
    assert reason.text.endswith("Exports.dump")


def test_ops_in_inner_blocks_of_submodules_are_reported(shelf: Shelf) -> None:
    (reason,) = reasons(shelf.save("scan_nested", Nested()))
    assert reason.op == "aten::from_file"
    assert reason.text.endswith("Inner.forward")


def test_an_op_that_is_allowed_by_name_is_not_reported(shelf: Shelf) -> None:
    path = shelf.save("scan_nested", Nested())
    assert not reasons(path, frozenset({"aten::from_file"}))
    assert reasons(path, frozenset({"aten::save"}))


def test_no_state_is_set_during_the_scan(shelf: Shelf) -> None:
    path = shelf.save("scan_restores", Restores())
    with pytest.raises(torch.jit.Error, match="the state was set"):
        torch.jit.load(path)
    reasons(path)


def test_code_that_does_not_compile_is_an_error(shelf: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "broken.pt"
    rewrite(
        Path(shelf.save("scan_exports", Exports())), path, "code/",
        lambda data: data.replace(b"def forward", b"deaf forward"),
    )  # fmt: skip
    with pytest.raises(RuntimeError):
        reasons(str(path))


def test_a_graph_with_too_many_nodes_is_reported(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchscript_scan, "MAX_NODES", 3)
    texts = [reason.text for reason in reasons(shelf.save("scan_exports", Exports()))]
    assert any("more ops than any model has" in text for text in texts)
