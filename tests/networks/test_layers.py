"""Contracts of single layers, in every form that a model is saved in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from composecli import CouldNotAttempt, inspect, options
from tests.models import FORMS, Shelf

LAYERS: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...], str]] = {
    "linear": (nn.Linear(10, 5), (torch.rand(2, 10),), "float32[N, 10] -> float32[N, 5]"),
    "double": (
        nn.Linear(10, 5).double(),
        (torch.rand(2, 10).double(),),
        "float64[N, 10] -> float64[N, 5]",
    ),
    "half": (
        nn.Linear(10, 5).bfloat16(),
        (torch.rand(2, 10).bfloat16(),),
        "bfloat16[N, 10] -> bfloat16[N, 5]",
    ),
    "in_order": (
        nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 2)),
        (torch.rand(2, 10),),
        "float32[N, 10] -> float32[N, 2]",
    ),
    "relu_first": (
        nn.Sequential(nn.ReLU(), nn.Linear(10, 5)),
        (torch.rand(2, 10),),
        "float32[N, 10] -> float32[N, 5]",
    ),
    "conv1d": (
        nn.Conv1d(4, 8, 3),
        (torch.rand(2, 4, 64),),
        "float32[N, 4, L>=3] -> float32[N, 8, L - 2]",
    ),
    "conv2d": (
        nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2), nn.ReLU()),
        (torch.rand(2, 6, 32, 32),),
        "float32[N, 6, H, W] -> float32[N, 8, ceil(H/2), ceil(W/2)]",
    ),
    "conv3d": (
        nn.Conv3d(2, 4, 3, padding=1),
        (torch.rand(2, 2, 16, 16, 16),),
        "float32[N, 2, D, H, W] -> float32[N, 4, D, H, W]",
    ),
    "transposed": (
        nn.ConvTranspose2d(3, 8, 4, stride=2),
        (torch.rand(2, 3, 16, 16),),
        "float32[N, 3, H, W] -> float32[N, 8, 2*H + 2, 2*W + 2]",
    ),
    "embedding": (
        nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 3)),
        (torch.randint(0, 100, (2, 8)),),
        "int64[N, T] -> float32[N, T, 3]",
    ),
    "lstm": (
        nn.LSTM(10, 20, 2),
        (torch.rand(5, 2, 10),),
        "float32[N, T, 10] -> (float32[N, T, 20], (float32[2, T, 20], float32[2, T, 20]))",
    ),
    "gru": (
        nn.GRU(10, 20, batch_first=True),
        (torch.rand(2, 5, 10),),
        "float32[N, T, 10] -> (float32[N, T, 20], float32[1, N, 20])",
    ),
    "rnn": (
        nn.RNN(10, 20),
        (torch.rand(5, 2, 10),),
        "float32[N, T, 10] -> (float32[N, T, 20], float32[1, T, 20])",
    ),
    "layer_norm": (nn.LayerNorm(12), (torch.rand(2, 12),), "float32[N, 12] -> float32[N, 12]"),
    "layer_norm_2": (
        nn.LayerNorm([4, 6]),
        (torch.rand(2, 4, 6),),
        "float32[N, 4, 6] -> float32[N, 4, 6]",
    ),
    "batch_norm_1": (
        nn.BatchNorm1d(6).eval(),
        (torch.rand(2, 6),),
        "float32[N, 6] -> float32[N, 6]",
    ),
    "batch_norm_2": (
        nn.BatchNorm2d(6).eval(),
        (torch.rand(2, 6, 8, 8),),
        "float32[N, 6, H, W] -> float32[N, 6, H, W]",
    ),
    "batch_norm_3": (
        nn.BatchNorm3d(2).eval(),
        (torch.rand(2, 2, 8, 8, 8),),
        "float32[N, 2, D, H, W] -> float32[N, 2, D, H, W]",
    ),
    "encoder_layer": (
        nn.TransformerEncoderLayer(16, 4, batch_first=True).eval(),
        (torch.rand(2, 7, 16),),
        "float32[N, T, 16] -> float32[N, T, 16]",
    ),
    "encoder": (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4), 2).eval(),
        (torch.rand(7, 2, 16),),
        "float32[N, T, 16] -> float32[N, T, 16]",
    ),
    "decoder_layer": (
        nn.TransformerDecoderLayer(16, 4).eval(),
        (torch.rand(7, 2, 16), torch.rand(5, 2, 16)),
        "float32[N, T, 16], float32[N2, T, 16] -> float32[N, T, 16]",
    ),
    "transformer": (
        nn.Transformer(16, 4, 1, 1, 32).eval(),
        (torch.rand(7, 2, 16), torch.rand(5, 2, 16)),
        "float32[N, T, 16], float32[N2, T, 16] -> float32[N2, T, 16]",
    ),
    "relu": (nn.ReLU(), (torch.rand(2, 3),), "float[*] -> float[*]"),
    "pool": (
        nn.MaxPool2d(2),
        (torch.rand(2, 3, 8, 8),),
        "float32[N, C, H>=2, W>=2] -> float32[N, C, H//2, W//2]",
    ),
}
RECURRENT = ("lstm", "gru", "rnn")


@pytest.mark.parametrize("form", [form for form in FORMS if form != "exported"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_has_its_contract_in_every_form(shelf: Shelf, name: str, form: str) -> None:
    module, example, contract = LAYERS[name]
    if form == "scripted" and name in RECURRENT:
        with pytest.raises(CouldNotAttempt, match="no method named forward"):
            inspect(shelf.save(f"layer_{name}", module, form, example))
        return
    found = inspect(shelf.save(f"layer_{name}", module, form, example)).model
    assert str(found.contract) == contract
    assert found.probes <= 40


@pytest.mark.parametrize(
    "name", ["linear", "in_order", "embedding", "gru", "conv2d", "encoder_layer", "decoder_layer"]
)
def test_exported_layer_keeps_the_contract_of_its_archive(shelf: Shelf, name: str) -> None:
    module, example, _ = LAYERS[name]
    contract = inspect(shelf.save(f"layer_{name}", module, "exported", example)).model.contract
    assert contract is not None
    assert [str(evidence.kind) for evidence in contract.evidence] == ["exported", "probed"]
    for port, tensor in zip(contract.inputs, example, strict=True):
        assert port.dims is not None
        assert str(port.dims[0]) in ("N", "N2")
        assert len(port.dims) == tensor.dim()


def test_traced_recurrent_layer_has_the_width_of_its_weights(shelf: Shelf) -> None:
    """A traced recurrent layer accepts any width and returns plausible outputs."""
    module, example, _ = LAYERS["lstm"]
    path = shelf.save("layer_lstm", module, "resaved", example)
    assert torch.jit.load(path)(torch.rand(5, 2, 11))[0].shape == (5, 2, 20)
    assert "10]" in str(inspect(path).model.contract)


def test_window_of_sizes_has_both_ends(shelf: Shelf) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 3, stride=4, padding=1),
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    contract = inspect(shelf.save("window", module)).model.contract
    assert str(contract) == "float32[N, 3, 25<=H<=32, 25<=W<=32] -> float32[N, 5]"
    loaded = torch.jit.load(str(shelf.path("window", "scripted")))
    assert loaded(torch.rand(1, 3, 25, 32)).shape == (1, 5)
    with pytest.raises(RuntimeError):
        loaded(torch.rand(1, 3, 24, 32))


def test_sizes_with_holes_are_unknown(shelf: Shelf) -> None:
    class Holed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.size(1) in (1, 2, 5, 6, 19)
            return x

    contract = inspect(shelf.save("holed", Holed()), options=options(inputs=["2,5"])).model.contract
    assert str(contract) == "float32[N, ?] -> float32[N, ?]"
