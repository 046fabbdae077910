"""Five architectures that are made with numbers, for tests of weights that do not fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Convolutional(nn.Module):
    """Blocks of a convolution and a norm: `(N, 3, H, W) -> (N, classes)`."""

    def __init__(self, classes: int = 10, depth: int = 3, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        blocks = [
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
            for _ in range(depth)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Transformer(nn.Module):
    """A small encoder of tokens: `(N, T) -> (N, T, classes)`."""

    def __init__(self, classes: int = 10, depth: int = 3, width: int = 32) -> None:
        super().__init__()
        self.tokens = nn.Embedding(100, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.tokens(ids)))


class Recurrent(nn.Module):
    """LSTMs on top of each other: `(N, T, width) -> (N, T, classes)`."""

    def __init__(self, classes: int = 10, depth: int = 3, width: int = 32) -> None:
        super().__init__()
        self.rnn = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.rnn:
            x, _ = layer(x)
        return self.head(x)


class Residual(nn.Module):
    """Two named stages: `(N, width, H, W) -> (N, classes)`."""

    def __init__(self, classes: int = 10, depth: int = 3, width: int = 32) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(*[nn.Conv2d(width, width, 1) for _ in range(depth)])
        self.layer2 = nn.Sequential(*[nn.Conv2d(width, width, 1) for _ in range(depth)])
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer1(x)
        return self.fc((x + self.layer2(x)).mean((2, 3)))


class Language(nn.Module):
    """A language model whose head is its table: `(N, T) -> (N, T, classes)`."""

    def __init__(self, classes: int = 10, depth: int = 3, width: int = 32) -> None:
        super().__init__()
        self.wte = nn.Embedding(classes, width)
        self.h = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.lm_head = nn.Linear(width, classes, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids)
        for layer in self.h:
            x = torch.relu(layer(x))
        return self.lm_head(x)
