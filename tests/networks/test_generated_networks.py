"""Networks that are generated from a contract have exactly that contract."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from composecli import inspect, options


@dataclass(frozen=True)
class Made:
    module: nn.Module
    example: tuple[torch.Tensor, ...]
    contract: str


class Patches(nn.Module):
    """Takes multiples of a patch and nothing else."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.size(2) % self.patch == 0
        assert x.size(3) % self.patch == 0
        return self.embed(x).flatten(2).transpose(1, 2)


class Places(nn.Module):
    """Ids with a learned table of positions."""

    def __init__(self, words: int, places: int, width: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(places, width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.words(ids) + self.places(torch.arange(ids.size(1), device=ids.device))


class Beside(nn.Module):
    """Two inputs of one batch."""

    def __init__(self, left: int, right: int, width: int) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(left, width), nn.Linear(right, width)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.left(left), self.right(right)], 1)


def strided(channels: int, stride: int, width: int) -> Made:
    module = nn.Sequential(nn.Conv2d(channels, width, stride, stride=stride), nn.ReLU())
    h, w = (f"{name}>={stride}" if stride > 1 else name for name in "HW")
    out = f"H//{stride}, W//{stride}" if stride > 1 else "H, W"
    text = f"float32[N, {channels}, {h}, {w}] -> float32[N, {width}, {out}]"
    return Made(module, (torch.rand(2, channels, 32, 32),), text)


def patched(channels: int, patch: int, width: int) -> Made:
    dims = f"H%{patch}==0, W%{patch}==0"
    text = f"float32[N, {channels}, {dims}] -> float32[N, (H//{patch})*(W//{patch}), {width}]"
    return Made(
        Patches(channels, patch, width), (torch.rand(2, channels, 4 * patch, 4 * patch),), text
    )


def flattened(channels: int, stride: int, side: int, width: int) -> Made:
    """A head that takes one number of features: a window of sizes, as wide as the stride."""
    layers = (
        nn.Conv2d(channels, 4, stride, stride=stride),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * side * side, width),
    )
    low, high = side * stride, side * stride + stride - 1
    sides = ", ".join(f"{low}<={name}<={high}" for name in "HW")
    where = ""
    if stride == 1:
        sides = "1, 1"
    if stride == 1 and side > 1:
        sides, where = "H, W", f" where H*W == {side**2}"
    return Made(
        nn.Sequential(*layers),
        (torch.rand(2, channels, low, low),),
        f"float32[N, {channels}, {sides}]{where} -> float32[N, {width}]",
    )


def placed(words: int, places: int, width: int) -> Made:
    ids = torch.randint(0, words, (2, 5))
    text = f"int64[N, T<={places}] -> float32[N, T<={places}, {width}]"
    return Made(Places(words, places, width), (ids,), text)


def of_one_length(words: int, length: int, width: int) -> Made:
    module = nn.Sequential(nn.Embedding(words, 3), nn.Flatten(), nn.Linear(3 * length, width))
    return Made(
        module,
        (torch.randint(0, words, (2, length)),),
        f"int64[N, {length}] -> float32[N, {width}]",
    )


def heard(channels: int, kernel: int, stride: int, width: int) -> Made:
    module = nn.Sequential(
        nn.Conv1d(channels, 4, kernel, stride=stride), nn.AdaptiveAvgPool1d(1), nn.Flatten()
    )
    text = f"float32[N, {channels}, L>={kernel}] -> float32[N, {width}]"
    return Made(
        nn.Sequential(module, nn.Linear(4, width)), (torch.rand(2, channels, 3 * kernel),), text
    )


def beside(left: int, more: int, width: int) -> Made:
    right = left + more
    text = f"float32[N, {left}], float32[N, {right}] -> float32[N, {2 * width}]"
    return Made(Beside(left, right, width), (torch.rand(2, left), torch.rand(2, right)), text)


CHANNELS, WIDTHS = st.sampled_from([1, 3, 4, 6]), st.sampled_from([5, 7, 9])
MADE: st.SearchStrategy[Made] = st.one_of(
    st.builds(strided, CHANNELS, st.integers(1, 6), WIDTHS),
    st.builds(patched, CHANNELS, st.sampled_from([2, 4, 8, 16]), WIDTHS),
    st.builds(flattened, CHANNELS, st.integers(1, 4), st.integers(3, 8), WIDTHS),
    st.builds(placed, st.integers(70, 90), st.sampled_from([9, 12, 32, 50, 64]), WIDTHS),
    st.builds(of_one_length, st.integers(20, 60), st.integers(3, 20), WIDTHS),
    st.builds(heard, CHANNELS, st.integers(2, 30), st.integers(1, 5), WIDTHS),
    st.builds(beside, st.integers(2, 9), st.integers(1, 7), WIDTHS),
)


def save(made: Made, form: str, path: Path) -> None:
    module = made.module.eval()
    if form == "scripted":
        torch.jit.script(module).save(str(path))
    elif form == "resaved":
        torch.jit.freeze(torch.jit.trace(module, made.example)).save(str(path))
    else:
        torch.save(module, path)


@settings(max_examples=60)
@given(MADE, st.sampled_from(["scripted", "pickled", "resaved"]))
def test_generated_network_has_its_contract(made: Made, form: str) -> None:
    if form == "resaved" and isinstance(made.module, Patches):
        form = "pickled"  # tracing drops the asserts, and with them the contract
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        path = Path(folder, "model.pt")
        save(made, form, path)
        model = inspect(path, options=options(trust=[path])).model
    assert str(model.contract) == made.contract
    assert model.probes <= 100
