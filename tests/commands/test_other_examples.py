"""An example that composecli chose itself is not held against a pair that fits at other sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.commands.running import Composecli, Installed
from tests.models import Shelf


class ChannelsFirst(nn.Module):
    """Turns an image of `(H, W, C)` into a batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(2, 0, 1).unsqueeze(0)


class Split(nn.Module):
    """Splits a row into 4 channels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], 4, -1)


class Truncated(nn.Module):
    def forward(self, ids: Tensor) -> Tensor:
        return ids[:, :16]


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class Sequences(nn.Module):
    """Accepts sequences and no single rows."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dim() == 3
        return self.gru(x)[0]


MODELS = {
    "rows": nn.Linear(5, 4),
    "sequences": Sequences(),
    "channels_first": ChannelsFirst(),
    "split": Split(),
    "truncated": Truncated(),
    "swapped": Transposed(),
    "relu": nn.ReLU(),
    "flatten": nn.Flatten(),
    "flat_features": nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()),
    "pooled_features": nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
    "conv2d": nn.Conv2d(3, 8, 3),
    "conv1d": nn.Conv1d(4, 8, 3),
    "strided": nn.Conv2d(3, 4, 3, 2, 1),
    "flat_head": nn.Sequential(nn.Flatten(), nn.Linear(4 * 7 * 7, 3)),
    "embedding": nn.Embedding(100, 8),
    "of_20": nn.Linear(20, 2),
    "half_of_20": nn.Linear(20, 2).half(),
}


@pytest.mark.parametrize(
    ("chain", "title", "example"),
    [
        ("channels_first conv2d", "compatible when L==3 and N>=3 and T>=3", "[3, 3, 3]"),
        ("channels_first relu conv2d", "compatible when L==3 and N>=3 and T>=3", "[3, 3, 3]"),
        ("split conv1d", "compatible when D>=12", "[2, 12]"),
        (
            "strided flat_head",
            "compatible when 13<=H<=14 and 13<=W<=14",
            "[2, 3, 14, 14]",
        ),
        ("flatten of_20", "compatible when D==20", "[2, 20]"),
        ("swapped of_20", "compatible when W==20", "[2, 3, 64, 20]"),
        ("flat_features of_20", "compatible when 4*(H - 2)*(W - 2) == 20", "[2, 3, 3, 7]"),
    ],
)
def test_sizes_are_chosen_at_which_the_pair_fits(
    chain: str, title: str, example: str, composecli: Composecli, shelf: Shelf
) -> None:
    paths = [shelf.save(f"example_{name}", MODELS[name]) for name in chain.split()]
    checked = composecli.json("check", *paths)
    assert checked.code == 0
    assert title in [f["title"] for seam in checked.json["seams"] for f in seam["findings"]]
    assert checked.json["example"] == f"float32{example}"
    result = torch.rand([int(size) for size in example.strip("[]").split(",")])
    for path in paths:
        result = torch.jit.load(path)(result)
    assert composecli("check", *paths, "--strict").code == 1


@pytest.mark.parametrize(
    ("chain", "example"),
    [
        ("truncated embedding", "int64[2, 3]"),
        ("relu embedding", "int64[2, 3]"),
        ("relu conv2d", "float32[2, 3, 64, 64]"),
        ("relu half_of_20", "float16[2, 20]"),
        ("rows sequences", "float32[8, 2, 5]"),
    ],
)
def test_dtype_and_rank_follow_the_consumer(
    chain: str, example: str, composecli: Composecli, shelf: Shelf
) -> None:
    paths = [shelf.save(f"example_{name}", MODELS[name]) for name in chain.split()]
    checked = composecli.json("check", *paths)
    assert (checked.code, checked.json["example"]) == (0, example)


@pytest.mark.parametrize(
    ("chain", "words", "code"),
    [
        # No size of the image changes the width.
        ("pooled_features of_20", (), 1),
        # The user stated other sizes, or a dtype.
        ("split conv1d", ("--input", "2,4"), 1),
        ("split conv1d", ("--input", "N,D%4==0"), 0),
        ("truncated embedding", ("--input", "float32[N,T]"), 1),
        ("channels_first conv2d", ("--input", "float32[H,W,3]"), 0),
        ("channels_first conv2d", ("--input", "float32[H,W,4]"), 1),
    ],
)
def test_what_is_fixed_stays_an_error(
    chain: str, words: tuple[str, ...], code: int, composecli: Composecli, shelf: Shelf
) -> None:
    paths = [shelf.save(f"example_{name}", MODELS[name]) for name in chain.split()]
    assert composecli("check", *paths, *words).code == code


def test_join_verifies_at_the_example_that_fits(
    installed: Installed, shelf: Shelf, here: Path
) -> None:
    paths = [shelf.save(f"example_{name}", MODELS[name]) for name in ("channels_first", "conv2d")]
    written = installed.json("join", *paths, "-o", "image.pt")
    assert written.code == 0
    tried = [check["detail"] for check in written.json["written"]["checks"]]
    assert "float32[3, 3, 3] -> float32[1, 8, 1, 1]" in tried
    assert "float32[4, 4, 3] -> float32[1, 8, 2, 2]" in tried
    joined = torch.jit.load("image.pt")
    assert joined(torch.rand(9, 7, 3)).shape == (1, 8, 7, 5)


class Square(nn.Module):
    """Views a square number of tokens as an image."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        side = int(x.size(1) ** 0.5)
        return self.fc(x).transpose(1, 2).reshape(x.size(0), 6, side, side)


@pytest.fixture
def squares(shelf: Shelf) -> tuple[str, str]:
    head = nn.Sequential(nn.Flatten(), nn.Linear(600, 3))
    return shelf.save("square_tokens", Square()), shelf.save("behind_squares", head)


def test_sizes_that_are_not_known_may_fit(installed: Installed, squares: tuple[str, str]) -> None:
    checked = installed.json("check", *squares)
    assert (checked.code, checked.codes) == (3, ["CC207"])
    assert checked.json["seams"][0]["holds"] == "unknown"
    (finding,) = checked.json["seams"][0]["findings"]
    assert "at the example: C*H*W is 96, not 600" in finding["notes"][0]


def test_stated_sizes_are_judged_though_others_are_not_known(
    installed: Installed, squares: tuple[str, str]
) -> None:
    assert installed("check", *squares, "--input", "2,100,4").code == 0
    assert installed("check", *squares, "--input", "2,16,4").code == 1


def test_channels_that_differ_at_every_size_are_incompatible(
    installed: Installed, squares: tuple[str, str], shelf: Shelf
) -> None:
    head = shelf.save("seven_channels", nn.Conv2d(7, 2, 1))
    assert installed("check", squares[0], head).code == 1
