"""Random pairs of small networks, and the truth about them by running at many sizes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.conditional_pairs import (
    Doubled,
    Even,
    FirstPositions,
    Frames,
    Mixer,
    Multiples,
    OneMore,
    Patches,
    Positions,
    Short,
    Single,
    Skipped,
    Windows,
)
from tests.models import Shelf

FORMS = ("scripted", "traced", "pickled", "exported")


@dataclass(frozen=True)
class RandomPair:
    """Two modules, the forms in which they are saved, and sizes at which each runs."""

    producer: nn.Module
    consumer: nn.Module
    forms: tuple[str, str]
    given: Tensor
    taken: Tensor


Pick = random.Random


def _images(pick: Pick) -> tuple[nn.Module, Tensor, int]:
    """Return a model of images, an input, and the channels of its result."""
    channels = pick.choice([2, 4, 6])
    stride = pick.choice([1, 2, 4])
    kernel = pick.choice([1, 3, 4])
    padding = pick.randrange(0, 2)
    layers: list[nn.Module] = [nn.Conv2d(3, channels, kernel, stride, padding)]
    layers += pick.choice(
        [
            [],
            [nn.MaxPool2d(2)],
            [nn.Upsample(scale_factor=2)],
            [nn.BatchNorm2d(channels)],
            [nn.AdaptiveAvgPool2d(4)],
        ]
    )
    size = pick.choice([32, 40, 64])
    return nn.Sequential(*layers).eval(), torch.zeros(2, 3, size, size), channels


def _image_consumer(pick: Pick, channels: int) -> tuple[nn.Module, Tensor]:
    """Return a model of feature maps, and an input."""
    side = pick.choice([4, 5, 8])
    example = torch.zeros(2, channels, side, side)
    kind = pick.randrange(8)
    if kind == 0:
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, 3)), example
    if kind == 1:
        features = channels * (side - 2) ** 2
        layers = nn.Conv2d(channels, channels, 3), nn.Flatten(), nn.Linear(features, 3)
        return nn.Sequential(*layers), example
    if kind == 2:
        return Multiples(channels, side), example
    if kind == 3:
        return Skipped(channels), torch.zeros(2, channels, 8, 8)
    if kind == 4:
        return nn.Conv2d(channels, 2, side), torch.zeros(2, channels, 12, 12)
    if kind == 5:
        return nn.Conv2d(channels + pick.choice([0, 2]), 2, 1), torch.zeros(2, channels, 8, 8)
    if kind == 6:
        tokens = nn.Sequential(nn.Flatten(2), nn.Linear(side * side, 4))
        return tokens, example
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)), example


def _tokens(pick: Pick) -> tuple[nn.Module, Tensor, int]:
    """Return a model that gives sequences, an input, and their width."""
    width = pick.choice([4, 6])
    length = pick.choice([8, 12, 20])
    kind = pick.randrange(5)
    ids = torch.zeros(2, length, dtype=torch.int64)
    if kind == 0:
        return nn.Embedding(30, width), ids, width
    if kind == 1:
        return nn.Sequential(nn.Embedding(30, width), Doubled()), ids, width
    if kind == 2:
        return nn.Sequential(nn.Embedding(30, width), OneMore()), ids, width
    if kind == 3:
        return Patches(8, width), torch.zeros(2, 3, 32, 32), width
    return Frames(), torch.zeros(2, 200), 25


def _token_consumer(pick: Pick, width: int) -> tuple[nn.Module, Tensor]:
    """Return a model of sequences, and an input."""
    length = pick.choice([4, 7, 9, 16])
    example = torch.zeros(2, length, width)
    consumers: list[nn.Module] = [
        Positions(length, width),
        FirstPositions(length, width),
        Windows(length, width),
        Mixer(length),
        Short(length),
        Even(),
        nn.Linear(width + pick.choice([0, 1]), 2),
        nn.Sequential(nn.Flatten(), nn.Linear(length * width, 2)),
    ]
    return pick.choice(consumers), example


def _waves(pick: Pick) -> tuple[nn.Module, Tensor, int]:
    """Return a model of waveforms, an input, and the channels of its result."""
    channels = pick.choice([3, 8])
    stride = pick.choice([2, 5, 10])
    layers = nn.Conv1d(1, channels, stride + 2, stride), nn.ReLU(), nn.Conv1d(channels, channels, 3)
    return nn.Sequential(*layers), torch.zeros(2, 1, 400), channels


def _wave_consumer(pick: Pick, channels: int) -> tuple[nn.Module, Tensor]:
    """Return a model of frames, and an input."""
    count = pick.choice([5, 13, 20])
    example = torch.zeros(2, channels, count)
    consumers: list[nn.Module] = [
        nn.Conv1d(channels, 2, count),
        nn.Sequential(nn.Flatten(), nn.Linear(channels * count, 2)),
        nn.Linear(count, 2),
        nn.MaxPool1d(count),
    ]
    return pick.choice(consumers), example


def _rows(pick: Pick) -> tuple[nn.Module, Tensor, int]:
    """Return a model of rows, an input, and the width of its result."""
    width = pick.choice([4, 6])
    return nn.Sequential(nn.Linear(5, width), nn.ReLU()), torch.zeros(2, 5), width


def _row_consumer(pick: Pick, width: int) -> tuple[nn.Module, Tensor]:
    """Return a model of rows, and an input."""
    consumers: list[nn.Module] = [
        nn.Linear(width, 2),
        nn.Linear(width + 1, 2),
        Single(),
        nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2)),
    ]
    return pick.choice(consumers), torch.zeros(1, width)


_KINDS: list[
    tuple[Callable[..., tuple[nn.Module, Tensor, int]], Callable[..., tuple[nn.Module, Tensor]]]
] = [
    (_images, _image_consumer),
    (_images, _image_consumer),
    (_tokens, _token_consumer),
    (_waves, _wave_consumer),
    (_rows, _row_consumer),
]


def random_pair(seed: int) -> RandomPair:
    """Return the pair of this seed."""
    pick = random.Random(seed)
    torch.manual_seed(seed)
    gives, takes = pick.choice(_KINDS)
    producer, given, width = gives(pick)
    consumer, taken = takes(pick, width)
    forms = (pick.choice(FORMS[:3]), pick.choice(FORMS))
    return RandomPair(producer.eval(), consumer.eval(), forms, given, taken)


def save_random(pair: RandomPair, seed: int, folder: Path) -> list[str] | None:
    """Return the paths of both models; None if one cannot be saved in its form."""
    shelf = Shelf(folder)
    paths = list[str]()
    modules = (pair.producer, pair.consumer)
    examples = (pair.given, pair.taken)
    for number, (module, form, example) in enumerate(
        zip(modules, pair.forms, examples, strict=True)
    ):
        try:
            if form == "exported":
                path = folder / f"{seed}_{number}.pt2"
                torch.export.save(torch.export.export(module, (example,)), path)
                paths.append(str(path))
            else:
                paths.append(shelf.save(f"random_{seed}_{number}", module, form, (example,)))
        except Exception:
            return None
    return paths


def load(path: str, form: str) -> nn.Module:
    """Return the saved model: a trace has lost the checks of its module."""
    if form == "exported":
        return torch.export.load(path).module()
    if form == "pickled":
        return torch.load(path, weights_only=False)
    return torch.jit.load(path)


def truth(models: tuple[nn.Module, nn.Module], example: Tensor) -> bool | None:
    """Return whether a saved pair runs on this input; None if the producer does not."""
    producer, consumer = models
    with torch.no_grad():
        try:
            middle = producer(example)
        except Exception:
            return None
        try:
            consumer(middle)
        except Exception:
            return False
    return True


def grid(names: list[str], base: dict[str, int], numbers: set[int]) -> Iterator[dict[str, int]]:
    """Yield sizes: each symbol at each number, both sides of an image together, and small ones."""
    near = {number + step for number in numbers for step in (-1, 0, 1)}
    seen = list[dict[str, int]]()
    for size in sorted({*near, 1, 2, 5, 16, 33, 64}):
        if not 0 < size < 5000:
            continue
        points = [{**base, name: size} for name in names]
        points.append({**base, **{name: size for name in names if name != "N"}})
        for point in points:
            if point not in seen:
                seen.append(point)
                yield point
