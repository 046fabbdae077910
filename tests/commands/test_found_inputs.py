"""Inputs that are found without a hint: layouts of images, tables, lists, lengths, int8 weights."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.commands.running import Composecli, Installed
from tests.models import Shelf


class Unbatched(nn.Module):
    """Adds the batch to one image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image.unsqueeze(0)).mean((2, 3))


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2))


class UnbatchedChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(2, 0, 1).unsqueeze(0))


class Bytes(nn.Module):
    """Accepts images of bytes only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.uint8, "an image of bytes is expected"
        return self.conv(x.float() / 255)


class BytesChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8:
            raise TypeError("an image of bytes is expected")
        return self.conv(x.permute(0, 3, 1, 2).float() / 255)


class Spectrogram(nn.Module):
    """Halves the frames, and asserts that there are as many as positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(80, 16, 3, padding=1)
        self.halve = nn.Conv1d(16, 16, 3, 2, 1)
        self.positions = nn.Parameter(torch.zeros(1500, 16))

    def forward(self, mel: Tensor) -> Tensor:
        x = self.halve(self.conv(mel)).transpose(1, 2)
        assert x.shape[1:] == self.positions.shape, "incorrect audio shape"
        return x + self.positions


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 16)
        self.register_buffer("table", torch.zeros(137, 16))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 137
        return self.fc(x) + self.table


class Packed(nn.Module):
    """A sequence with its lengths, sorted."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(12, 16, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        out, _ = self.gru(packed)
        return nn.utils.rnn.pad_packed_sequence(out, batch_first=True)[0]


class Unsorted(nn.Module):
    """A sequence with its lengths in any order; torch accepts fewer lengths than sequences."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 6, batch_first=batch_first)
        self.batch_first = batch_first

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=self.batch_first, enforce_sorted=False
        )
        _, state = self.gru(packed)
        return state


class LastState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 12)
        self.lstm = nn.LSTM(12, 16, batch_first=True)

    def forward(self, tokens: Tensor, lens: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(tokens), lens, batch_first=True, enforce_sorted=False
        )
        _, state = self.lstm(packed)
        return state[0][-1]


class MaybeMasked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 16)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.fc(x)
        if mask is not None:
            y = y.masked_fill(mask, 0.0)
        return y


class MaybeState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 16)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> Tensor:
        return self.lstm(x, state)[0]


class ThreeFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(8, 4, 1)
        self.b = nn.Conv2d(16, 4, 1)
        self.c = nn.Conv2d(32, 4, 1)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [self.a(features[0]), self.b(features[1]), self.c(features[2])]


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(30, 8)
        self.fc = nn.Linear(8, 2)

    def forward(self, text: Tensor, offsets: Tensor) -> Tensor:
        return self.fc(self.bag(text, offsets))


class Positioned(nn.Module):
    """Adds a table of positions to each sequence of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.rand(1000, 16))
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(x + self.positions[: x.size(1)])
        return result


class Indexed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(30, 8))

    def forward(self, idx: Tensor) -> Tensor:
        return self.weight[idx].mean(1)


CONTRACTS: dict[type[nn.Module], str] = {
    Unbatched: "float32[3, H, W] -> float32[1, 8]",
    ChannelsLast: "float32[N, H>=5, W>=5, 3] -> float32[N, 8, H - 4, W - 4]",
    UnbatchedChannelsLast: (
        "float32[H>=7, W>=7, 3] -> float32[1, 8, ceil(H/2) - 3, ceil(W/2) - 3]"
    ),
    Bytes: "uint8[N, 3, H>=5, W>=5] -> float32[N, 8, H - 4, W - 4]",
    BytesChannelsLast: "uint8[N, H>=5, W>=5, 3] -> float32[N, 8, H - 4, W - 4]",
    Spectrogram: "float32[N, 80, 2999<=L<=3000] -> float32[N, 1500, 16]",
    Table: "float32[N, 137, 12] -> float32[N, 137, 16]",
    Packed: "float32[N, T, 12], int64[N] -> float32[N, ?, 16]",
    LastState: "int64[N, T], int64[N] -> float32[N, 16]",
    MaybeMasked: "float32[N, 12], None -> float32[N, 16]",
    MaybeState: "float32[N, T, 12], None -> float32[N, T, 16]",
    ThreeFeatures: (
        "[float32[N, 8, H, W], float32[N2, 16, H2, W2], float32[N3, 32, H3, W3]]"
        " -> [float32[N, 4, H, W], float32[N2, 4, H2, W2], float32[N3, 4, H3, W3]]"
    ),
    Bag: "int64[N], int64[N2] -> float32[N2, 2]",
    Indexed: "int64[N, T] -> float32[N, 8]",
    Positioned: "float32[N, T<=1000, 16] -> float32[N, T<=1000, 2]",
}


@pytest.mark.parametrize("kind", CONTRACTS)
def test_input_is_found(kind: type[nn.Module], composecli: Composecli, shelf: Shelf) -> None:
    path = shelf.save(f"found_{kind.__name__}", kind().eval())
    assert _contract(composecli, path) == CONTRACTS[kind]


@pytest.mark.parametrize(
    ("batch_first", "contract"),
    [
        (True, "float32[N, T, 5], int64[N] -> float32[1, N, 6]"),
        (False, "float32[N, T, 5], int64[T] -> float32[1, T, 6]"),
    ],
)
def test_there_is_one_length_for_each_sequence(
    batch_first: bool, contract: str, composecli: Composecli, shelf: Shelf
) -> None:
    path = shelf.save(f"found_unsorted_{batch_first}", Unsorted(batch_first))
    assert _contract(composecli, path) == contract


def test_input_of_an_image_without_a_batch_is_found(installed: Installed, shelf: Shelf) -> None:
    path = shelf.save("found_Unbatched", Unbatched().eval())
    assert _contract(installed, path) == CONTRACTS[Unbatched]


def _contract(command: Composecli | Installed, path: str) -> str:
    """Return the contract that the command prints."""
    text: str = command.json("inspect", path).json["model"]["contract"]["text"]
    return text


def test_int8_weights_tell_their_sizes(composecli: Composecli, tmp_path: Path) -> None:
    path = str(tmp_path / "dynamic.pt")
    floats = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    with warnings.catch_warnings(action="ignore"):
        quantized = torch.ao.quantization.quantize_dynamic(floats, {nn.Linear}, torch.qint8)
        torch.jit.script(quantized).save(path)
    assert _contract(composecli, path) == "float32[N, 12] -> float32[N, 3]"


def test_static_int8_weights_tell_their_sizes(composecli: Composecli, tmp_path: Path) -> None:
    path = str(tmp_path / "static.pt")
    with warnings.catch_warnings(action="ignore"):
        from torch.ao import quantization

        module = nn.Sequential(
            quantization.QuantStub(),
            nn.Conv2d(4, 8, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
            quantization.DeQuantStub(),
        ).eval()
        module.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
        quantization.prepare(module, inplace=True)
        module(torch.rand(2, 4, 16, 16))
        quantization.convert(module, inplace=True)
        torch.jit.script(module).save(path)
    assert _contract(composecli, path) == "float32[N, 4, H>=3, W>=3] -> float32[N, 3]"


class Recorder(nn.Module):
    """Accepts one sampling rate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 16)

    def forward(self, wav: Tensor, sr: int, gain: float = 1.0) -> Tensor:
        assert sr == 44100
        return self.conv(wav) * gain


@pytest.mark.parametrize(
    ("module", "words", "contract"),
    [
        (
            Recorder,
            ("--input", "sr:=44100"),
            "float32[N, 1, L>=16], 44100 -> float32[N, 4, L - 15]",
        ),
        (
            Recorder,
            ("--input", "sr:=44100", "--input", "gain:=0.5"),
            "float32[N, 1, L>=16], 44100, gain=0.5 -> float32[N, 4, L - 15]",
        ),
        (
            MaybeMasked,
            ("--input", "mask=bool[N,16]"),
            "float32[N, 12], bool[N, 16] -> float32[N, 16]",
        ),
    ],
)
def test_arguments_that_are_not_stated_are_found(
    module: type[nn.Module],
    words: tuple[str, ...],
    contract: str,
    composecli: Composecli,
    shelf: Shelf,
) -> None:
    path = shelf.save(f"found_{module.__name__}", module().eval())
    inspected = composecli.json("inspect", path, *words).json["model"]
    assert inspected["contract"]["text"] == contract
    assert inspected["contract"]["evidence"][0]["kind"] == "declared"


def test_a_parallel_model_may_lack_an_argument_that_is_stated(
    installed: Installed, shelf: Shelf
) -> None:
    masked = shelf.save("found_MaybeMasked", MaybeMasked())
    plain = shelf.save("found_12_to_16", nn.Linear(12, 16))
    words = ("check", "--mode", "parallel", masked, plain, "--input")
    assert installed(*words, "mask=bool[N,16]").code == 1
    assert installed("check", "--mode", "parallel", plain, plain, "--input", "N,12").code == 0


def test_a_stated_argument_is_never_replaced(composecli: Composecli, shelf: Shelf) -> None:
    path = shelf.save("found_Recorder", Recorder().eval())
    inspected = composecli("inspect", path, "--input", "sr:=8000")
    assert inspected.code == 3
    assert "CC304" in inspected.out


class Asserting(nn.Module):
    """Accepts one length, of which nothing in the file tells."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 777
        return self.fc(x)


def test_input_of_a_later_model_may_be_stated(composecli: Composecli, shelf: Shelf) -> None:
    first = shelf.save("found_four_to_eight", nn.Linear(4, 8))
    second = shelf.save("found_Asserting", Asserting())
    assert composecli("check", first, second).code == 3
    checked = composecli.json("check", first, second, "--input", "2:float32[N,777,8]")
    contract = checked.json["models"][1]["contract"]["text"]
    assert contract == "float32[N, 777, 8] -> float32[N, 777, 3]"
    assert (checked.code, checked.json["example"]) == (0, "float32[2, 777, 4]")
    words = ("--input", "2:float32[N,777,8]", "--input", "N,777,4")
    assert composecli("check", first, second, *words).code == 0
    assert composecli("inspect", first, *words).code == 3


KEYWORD_ONLY = """
from torch import nn

class Masked(nn.Linear):
    def forward(self, x, *, mask):
        return super().forward(x) * mask.unsqueeze(1)

class OnlyByName(nn.Linear):
    def forward(self, *, x):
        return super().forward(x)

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return x, self.fc(x)

class Taking(nn.Linear):
    def forward(self, x, *, other):
        return super().forward(x) + other
"""


@pytest.fixture
def by_name(here: Path) -> Path:
    """A folder with models that take arguments by name alone."""
    Path("by_name.py").write_text(KEYWORD_ONLY)
    torch.manual_seed(0)
    torch.save(nn.Linear(8, 4).state_dict(), "w.pth")
    torch.save({f"fc.{name}": value for name, value in torch.load("w.pth").items()}, "pair.pth")
    torch.jit.script(nn.Linear(4, 2)).save("behind.pt")
    torch.jit.script(nn.Linear(3, 8)).save("before.pt")
    return here


def test_required_arguments_by_name_alone_are_found(installed: Installed, by_name: Path) -> None:
    ran = installed.json("inspect", "by_name.py:Masked(8, 4)@w.pth")
    assert ran.code == 0, ran.out
    inputs = ran.json["model"]["contract"]["inputs"]
    assert [port["name"] for port in inputs] == ["x", "mask"]
    assert installed("check", "by_name.py:Masked(8, 4)@w.pth", "behind.pt").code == 0


@pytest.mark.parametrize(
    ("models", "width"),
    [
        (("before.pt", "by_name.py:OnlyByName(8, 4)@w.pth"), 3),
        (("by_name.py:OnlyByName(8, 4)@w.pth", "behind.pt"), 8),
        (("by_name.py:Pair()@pair.pth", "by_name.py:Taking(8, 4)@w.pth"), 8),
        (("by_name.py:Masked(8, 4)@w.pth", "behind.pt"), None),
    ],
)
def test_models_with_arguments_by_name_alone_are_joined(
    installed: Installed, by_name: Path, models: tuple[str, ...], width: int | None
) -> None:
    assert installed("check", *models).code == 0
    ran = installed("join", *models, "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    both = torch.jit.load("both.pt")
    if width is None:
        assert both(torch.rand(5, 8), mask=torch.rand(5)).shape == (5, 2)
    else:
        assert both(torch.rand(5, width)).shape[0] == 5
