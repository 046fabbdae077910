"""The submodule of TorchScript that failed, from the trace of the error."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

from composecli.runtime.forward.script_trace import failed_submodule


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.split(self.query(x))

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), 3, 3)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.attn(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), Block()])

    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) == 7:
            return x.view(3, 3, 3)
        for layer in self.layers:
            x = layer(x)
        return x


def loaded(module: nn.Module) -> torch.jit.ScriptModule:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


@pytest.mark.parametrize(
    ("module", "rows", "name"),
    [
        (Net(), 2, "layers.1.attn"),
        (Net(), 7, None),
        (nn.Sequential(nn.ReLU(), nn.Sequential(nn.Flatten(), Block())), 2, "1.1.attn"),
        (nn.Sequential(nn.Linear(5, 4)), 2, "0"),
    ],
)
def test_the_innermost_submodule_is_named(module: nn.Module, rows: int, name: str | None) -> None:
    script = loaded(module)
    with pytest.raises(RuntimeError) as raised:
        script(torch.rand(rows, 4))
    assert failed_submodule(script, raised.value) == name


@pytest.mark.parametrize(
    "message",
    ["", "no trace", 'Traceback of TorchScript, serialized code\n  File "a", line 1, in f'],
)
def test_an_error_without_a_trace_names_nothing(message: str) -> None:
    assert failed_submodule(loaded(Net()), RuntimeError(message)) is None
