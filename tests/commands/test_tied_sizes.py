"""Sizes that follow from each other are found, across inputs and within one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.commands.running import Composecli, Installed
from tests.models import Shelf


class Encoder(nn.Module):
    """Returns features of half and of a quarter of the size, rounded up."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, 2, 1)
        self.b = nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        a = self.a(x)
        return [a, self.b(a)]


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return self.up(x) + skip


class ThreeLevels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.mix = nn.Conv2d(20, 4, 3, padding=1)
        self.up4 = nn.ConvTranspose2d(4, 4, 4, 4)
        self.head = nn.Conv2d(9, 2, 1)

    def forward(self, f1: Tensor, f2: Tensor, f3: Tensor) -> Tensor:
        x = self.mix(torch.cat([self.up(f3), f2], 1))
        return self.head(torch.cat([self.up4(x), f1], 1))


class Features(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose1d(16, 8, 4, 4)

    def forward(self, features: list[Tensor]) -> Tensor:
        return torch.cat([self.up(features[1]), features[0]], 1)


class Cropped(nn.Module):
    """A convolution without padding: its input is larger by 4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(x) + y


class Strided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 16, 3, 2, 1)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return self.conv(x) * gate


class Cached(nn.Module):
    """Attends to cached and new tokens, with a mask over both."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor, cache: Tensor, mask: Tensor) -> Tensor:
        keys = torch.cat([cache, self.fc(x)], 1)
        scores = x @ keys.transpose(1, 2) + mask.unsqueeze(1)
        return torch.softmax(scores, -1) @ keys


class PixelMask(nn.Module):
    """Has a mask with one entry for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.conv(x).flatten(2).masked_fill(mask.unsqueeze(1) > 0, 0.0)


class Masking(nn.Module):
    """Returns an image with a mask for its pixels, or for its columns."""

    def __init__(self, *, each_pixel: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, 2, 1)
        self.rows = 1000 if each_pixel else 1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        return y, (y[:, 0, : self.rows].flatten(1) > 0).to(torch.int64)


class Attention(nn.Module):
    """Keys and values have one length, and queries another."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.attention(q, k, v)[0]


class TwoStrides(nn.Module):
    """Strides of 4 and 6 lead to one length."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(4, 8, 4, stride=4)
        self.b = nn.Conv1d(4, 8, 6, stride=6)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) + self.b(y)


class Conditioned(nn.Module):
    """Adds one row to each token of a sequence: a batch of 1 is broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 8)
        self.fc = nn.Linear(8, 8)

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        return self.tokens(ids) + self.fc(x).unsqueeze(1)


class FirstRows(nn.Module):
    """Reads as many rows of the second input as the first one has."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 8)
        self.fc = nn.Linear(8, 8)

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        tokens = self.tokens(ids)
        return tokens + self.fc(x)[: tokens.size(0)].unsqueeze(1)


class RoundingUp(nn.Module):
    """A U-Net whose strides round up: the upper level must be even."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, 2, 1)
        self.b = nn.Conv2d(8, 16, 3, 2, 1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return self.up(self.b(a)) + a


class RoundingDown(nn.Module):
    """A U-Net with pooling, which rounds down."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.down = nn.ModuleList([nn.Conv2d(8, 8, 2, 2) for _ in range(levels)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(8, 8, 2, 2) for _ in range(levels - 1)])

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        x = self.stem(x)
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        level = len(skips) - 2
        for layer in self.up:
            x = layer(x) + skips[level]
            level -= 1
        return x


CONTRACTS = {
    "decoder": (
        Decoder(),
        "float32[N, 8, 2*H, 2*W], float32[N, 16, H, W] -> float32[N, 8, 2*H, 2*W]",
    ),
    "three_levels": (
        ThreeLevels(),
        (
            "float32[N, 5, 8*H, 8*W], float32[N, 12, 2*H, 2*W], float32[N, 16, H, W]"
            " -> float32[N, 2, 8*H, 8*W]"
        ),
    ),
    "features": (
        Features(),
        "[float32[N, T, 4*L], float32[N, 16, L]] -> float32[N, T + 8, 4*L]",
    ),
    "cropped": (
        Cropped(),
        "float32[N, 8, H + 4, W + 4], float32[N, 8, H, W] -> float32[N, 8, H, W]",
    ),
    "strided": (
        Strided(),
        "float32[N, 8, L], float32[N, 16, ceil(L/2)] -> float32[N, 16, ceil(L/2)]",
    ),
    "cached": (
        Cached(),
        "float32[N, T, 16], float32[N, T2, 16], int64[N, T + T2] -> float32[N, T, 16]",
    ),
    "pixel_mask": (
        PixelMask(),
        "float32[N, 3, H, W], int64[N, H*W] -> float32[N, 8, H*W]",
    ),
    "attention": (
        Attention(),
        "float32[N, T, 16], float32[N2, T, 16], float32[N2, T, 16] -> float32[N, T, 16]",
    ),
    "two_strides": (
        TwoStrides(),
        "float32[N, 4, L>=4], float32[N, 4, 6*(L//4)] -> float32[N, 8, L//4]",
    ),
    "rounding_up": (
        RoundingUp(),
        "float32[N, 3, H%4 in {0, 3}, W%4 in {0, 3}] -> float32[N, 8, ceil(H/2), ceil(W/2)]",
    ),
    "rounding_down": (
        RoundingDown(2),
        "float32[N, 3, H>=4 & H%4 in {0, 1}, W>=4 & W%4 in {0, 1}] -> float32[N, 8, H//2, W//2]",
    ),
    "rounding_down_deeply": (
        RoundingDown(4),
        (
            "float32[N, 3, H>=16 & H%16 in {0, 1}, W>=16 & W%16 in {0, 1}]"
            " -> float32[N, 8, H//2, W//2]"
        ),
    ),
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_contract_says_how_sizes_follow(name: str, composecli: Composecli, shelf: Shelf) -> None:
    module, expected = CONTRACTS[name]
    path = shelf.save(f"tied_{name}", module)
    report = composecli.json("inspect", path).json
    assert report["model"]["contract"]["text"] == expected


@pytest.mark.parametrize(
    ("module", "batch", "other_batch"),
    [
        (Conditioned(), 2, 2),
        (Conditioned(), 2, 1),
        (Conditioned(), 1, 2),
        (Conditioned(), 1, 1),
        (Conditioned(), 4, 1),
        (FirstRows(), 2, 4),
    ],
)
def test_batches_that_limit_each_other_are_one_batch(
    module: nn.Module, batch: int, other_batch: int, installed: Installed, shelf: Shelf
) -> None:
    example = (torch.zeros(batch, 5, dtype=torch.int64), torch.rand(other_batch, 8))
    name = f"{type(module).__name__}_{batch}_{other_batch}"
    path = shelf.save(name, module, "traced", example)
    report = installed.json("inspect", path).json
    text = "int64[N, T], float32[N, 8] -> float32[N, T, 8]"
    assert report["model"]["contract"]["text"] == text


@pytest.mark.parametrize("words", [(), ("--input", "1,3,128,128")])
def test_decoder_takes_features_whose_sizes_round_to_a_factor_of_two(
    words: tuple[str, ...], installed: Installed, shelf: Shelf
) -> None:
    encoder, decoder = shelf.save("tied_encoder", Encoder()), shelf.save("tied_decoder", Decoder())
    checked = installed.json("check", encoder, decoder, *words)
    (finding,) = checked.json["seams"][0]["findings"]
    assert finding["title"] == "compatible when H%4 in {0, 3} and W%4 in {0, 3}"
    assert checked.code == 0
    strict = installed.json("check", encoder, decoder, *words, "--strict")
    assert strict.codes == ["CC206"]
    joined = torch.nn.Sequential(torch.jit.load(encoder))
    for size in range(3, 20):
        first, second = joined(torch.rand(1, 3, size, size))
        fits = first.shape[2] == 2 * second.shape[2]
        assert fits == (size % 4 in (0, 3))


def test_join_refuses_sizes_that_do_not_follow(
    installed: Installed, shelf: Shelf, here: Path
) -> None:
    encoder, decoder = shelf.save("tied_encoder", Encoder()), shelf.save("tied_decoder", Decoder())
    assert installed("join", encoder, decoder, "-o", "joined.pt").code == 0
    joined = torch.jit.load("joined.pt")
    assert joined(torch.rand(1, 3, 67, 40)).shape == (1, 8, 34, 20)
    with pytest.raises(RuntimeError):
        joined(torch.rand(1, 3, 66, 40))


@pytest.mark.parametrize(
    ("each_pixel", "code", "titles"),
    [
        (True, 0, []),
        (False, 1, ["axis 1 is 32, but H*W is 1024, because H is 32, W is 32"]),
    ],
)
def test_a_mask_has_an_entry_for_each_pixel(
    each_pixel: bool, code: int, titles: list[str], installed: Installed, shelf: Shelf
) -> None:
    producer = shelf.save(f"tied_masking_{each_pixel}", Masking(each_pixel=each_pixel))
    consumer = shelf.save("tied_pixel_mask", PixelMask())
    words = ("--input", "float32[N,1,64,64]")
    checked = installed.json("check", producer, consumer, *words)
    (seam,) = checked.json["seams"]
    assert [finding["title"] for finding in seam["findings"]] == titles
    assert checked.code == code
