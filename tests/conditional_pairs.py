"""Pairs of models that fit at some sizes of their input, and how the sizes are told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.models import Shelf


class Positions(nn.Module):
    """Adds a table of positions to all tokens, so that it takes one number of them."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, count, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class FirstPositions(nn.Module):
    """Adds the first rows of a table of positions."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, count, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[:, : x.shape[1]]


class Patches(nn.Module):
    """Turns an image into tokens: `(N, 3, H, W) -> (N, (H//side)*(W//side), width)`."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, side, side)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(2).transpose(1, 2)


class Multiples(nn.Module):
    """Takes images whose sides are multiples."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.conv = nn.Conv2d(channels, 4, side, side)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] % self.side == 0
        assert x.shape[3] % self.side == 0
        return self.conv(x).mean((2, 3))


class Skipped(nn.Module):
    """Halves an image and doubles it again, and adds both: its sides are even."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels, 2, 2)
        self.up = nn.ConvTranspose2d(channels, channels, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.down(x))


class Windows(nn.Module):
    """Cuts a sequence into windows."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size, self.width = size, width
        self.fc = nn.Linear(size * width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.reshape(x.shape[0], x.shape[1] // self.size, self.size * self.width))


class Mixer(nn.Module):
    """Mixes the tokens of a sequence of one length."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.fc = nn.Linear(length, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.transpose(1, 2))


class Single(nn.Module):
    """Takes one sample."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[0] == 1
        return x.squeeze(0)


class Square(nn.Module):
    """Takes square matrices."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ x


class Short(nn.Module):
    """Takes at most so many tokens."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] <= self.most
        return x.mean(1)


class Frames(nn.Module):
    """Cuts a waveform into overlapping frames."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unfold(1, 25, 10)


class Doubled(nn.Module):
    """Repeats each token."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.repeat_interleave(x, 2, 1)


class OneMore(nn.Module):
    """Repeats each token, and puts another one in front."""

    def forward(self, x: Tensor) -> Tensor:
        twice = torch.repeat_interleave(x, 2, 1)
        return torch.cat([twice[:, :1], twice], 1)


class Even(nn.Module):
    """Takes an even number of tokens."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] % 2 == 0
        return x.mean(1)


def strided(stride: int = 4, channels: int = 16) -> nn.Module:
    """Return convolutions `(N, 3, H, W) -> (N, channels, ceil(H/stride), ceil(W/stride))`."""
    layers = list[nn.Module]()
    given = 3
    while stride > 1:
        layers += [nn.Conv2d(given, channels, 3, 2, 1), nn.ReLU()]
        given, stride = channels, stride // 2
    return nn.Sequential(*layers)


def flat_head(features: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(features, 10))


def audio() -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 8, 10, 5), nn.ReLU(), nn.Conv1d(8, 8, 8, 4), nn.ReLU())


def frames_head(count: int) -> nn.Module:
    return nn.Sequential(nn.Conv1d(8, 4, count), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())


@dataclass(frozen=True)
class Pair:
    """Two modules with the form in which each is saved, and the sizes at which they fit.

    `at` are the sizes that the consumer is exported or traced at.
    """

    producer: nn.Module
    consumer: nn.Module
    holds: str
    when: tuple[str, ...] = ()
    given: tuple[int, ...] = (2, 3, 32, 32)
    at: tuple[int, ...] = ()
    forms: tuple[str, str] = ("scripted", "scripted")


IMAGE = ("29<=H<=32", "29<=W<=32")
PAIRS = {
    "flatten": Pair(strided(), flat_head(1024), "sometimes", IMAGE),
    "flatten_traced": Pair(
        strided(), flat_head(1024), "sometimes", IMAGE, at=(2, 16, 8, 8), forms=("traced", "traced")
    ),
    "flatten_resaved": Pair(
        strided(),
        flat_head(1024),
        "sometimes",
        IMAGE,
        at=(2, 16, 8, 8),
        forms=("resaved", "resaved"),
    ),
    "flatten_pickled": Pair(
        strided(), flat_head(1024), "sometimes", IMAGE, forms=("pickled", "pickled")
    ),
    "flatten_stride_2": Pair(
        strided(2, 4), flat_head(196), "sometimes", ("13<=H<=14", "13<=W<=14")
    ),
    "flatten_conv": Pair(
        strided(),
        nn.Sequential(nn.Conv2d(16, 8, 3), nn.ReLU(), flat_head(8 * 36)),
        "sometimes",
        IMAGE,
    ),
    "flatten_pool": Pair(
        strided(),
        nn.Sequential(nn.MaxPool2d(2), flat_head(16 * 16)),
        "sometimes",
        ("29<=H<=36", "29<=W<=36"),
    ),
    "static": Pair(
        strided(),
        nn.Sequential(nn.Conv2d(16, 4, 3, padding=1), flat_head(256)).eval(),
        "sometimes",
        ("N==1", *IMAGE),
        at=(1, 16, 8, 8),
        forms=("scripted", "static"),
    ),
    "exported": Pair(
        strided(),
        nn.Sequential(nn.Conv2d(16, 4, 3, padding=1), flat_head(256)).eval(),
        "sometimes",
        IMAGE,
        at=(2, 16, 8, 8),
        forms=("pickled", "batched"),
    ),
    "frames": Pair(audio(), frames_head(13), "sometimes", ("L>=285",), given=(2, 1, 400)),
    "frames_pickled": Pair(
        audio(),
        frames_head(5),
        "sometimes",
        ("L>=125",),
        given=(2, 1, 400),
        forms=("pickled", "pickled"),
    ),
    "frames_many": Pair(
        nn.Sequential(nn.Conv1d(1, 8, 400, 320)),
        frames_head(20),
        "sometimes",
        ("L>=6480",),
        given=(2, 1, 8000),
    ),
    "multiples": Pair(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Upsample(scale_factor=2)),
        Multiples(4, 12),
        "sometimes",
        ("H%6==0", "W%6==0"),
    ),
    "multiples_odd": Pair(
        nn.Conv2d(3, 4, 3, padding=1), Multiples(4, 7), "sometimes", ("H%7==0", "W%7==0")
    ),
    "multiples_strided": Pair(
        strided(2, 4), Multiples(4, 4), "sometimes", ("H%8 in {0, 7}", "W%8 in {0, 7}")
    ),
    "skipped": Pair(nn.Conv2d(3, 4, 3), Skipped(4), "sometimes", ("H%2==0", "W%2==0")),
    "batch_of_one": Pair(
        nn.Linear(10, 6),
        nn.Linear(6, 3),
        "sometimes",
        ("N==1",),
        given=(2, 10),
        at=(1, 6),
        forms=("scripted", "static"),
    ),
    "batch_of_four": Pair(
        nn.Linear(10, 6),
        nn.Linear(6, 3),
        "sometimes",
        ("N==4",),
        given=(2, 10),
        at=(4, 6),
        forms=("pickled", "static"),
    ),
    "batch_asserted": Pair(nn.Linear(10, 6), Single(), "sometimes", ("N==1",), given=(2, 10)),
    "positions_of_ids": Pair(
        nn.Embedding(50, 8), Positions(16, 8), "sometimes", ("T==16",), given=(2, 16)
    ),
    "first_positions": Pair(
        nn.Embedding(50, 8), FirstPositions(24, 8), "sometimes", ("T<=24",), given=(2, 16)
    ),
    "patches_positions": Pair(
        Patches(16, 8),
        Positions(196, 8),
        "sometimes",
        ("224<=H<=239", "224<=W<=239"),
        given=(2, 3, 224, 224),
    ),
    "patches_first": Pair(
        Patches(8, 8),
        FirstPositions(64, 8),
        "sometimes",
        ("(H//8)*(W//8) <= 64",),
        given=(2, 3, 64, 64),
    ),
    "patches_mixer": Pair(
        Patches(8, 6), Mixer(16), "sometimes", ("32<=H<=39", "32<=W<=39"), given=(2, 3, 32, 32)
    ),
    "windows": Pair(nn.Embedding(50, 4), Windows(5, 4), "sometimes", ("T%5==0",), given=(2, 10)),
    "short": Pair(nn.Embedding(50, 4), Short(20), "sometimes", ("T<=20",), given=(2, 10)),
    "square": Pair(nn.AvgPool2d(3, 1, 1), Square(), "sometimes", ("H == W",)),
    "frames_of_25": Pair(Frames(), Mixer(12), "sometimes", ("135<=D<=144",), given=(2, 200)),
    "even": Pair(Doubled(), Even(), "always", given=(2, 6, 4)),
    "never_even": Pair(OneMore(), Even(), "never", given=(2, 6, 4)),
    "never_flat": Pair(strided(), flat_head(1000), "never"),
    "never_wide": Pair(nn.Linear(10, 6), nn.Linear(7, 3), "never", given=(2, 10)),
    "never_pooled": Pair(
        nn.Sequential(strided(), nn.AdaptiveAvgPool2d(2)), flat_head(100), "never"
    ),
    "never_channels": Pair(strided(), nn.Conv2d(8, 4, 3), "never"),
    "always": Pair(strided(), nn.Conv2d(16, 4, 3, padding=1), "always"),
    "always_rows": Pair(nn.Linear(10, 6), nn.Linear(6, 3), "always", given=(2, 10)),
    "always_pooled": Pair(
        nn.Sequential(strided(), nn.AdaptiveAvgPool2d(2)), flat_head(64), "always"
    ),
    "least": Pair(strided(), nn.Conv2d(16, 4, 5), "sometimes", ("H>=17", "W>=17")),
}


def save_pair(shelf: Shelf, name: str) -> list[str]:
    """Return the paths of both models of a pair."""
    pair = PAIRS[name]
    example = torch.zeros(pair.given)
    if isinstance(pair.producer, nn.Embedding):
        example = example.long()
    given = (torch.zeros(pair.at),)
    producer = _save(shelf, f"{name}_gives", pair.producer, pair.forms[0], (example,))
    return [producer, _save(shelf, f"{name}_takes", pair.consumer, pair.forms[1], given)]


def _save(
    shelf: Shelf, name: str, module: nn.Module, form: str, example: tuple[Tensor, ...]
) -> str:
    if form not in ("static", "batched"):
        return shelf.save(name, module, form, example)
    path = Path(shelf.folder) / f"{name}.{form}.pt2"
    dims = ({0: torch.export.Dim.AUTO},) if form == "batched" else None
    torch.export.save(torch.export.export(module, example, dynamic_shapes=dims), path)
    return str(path)
