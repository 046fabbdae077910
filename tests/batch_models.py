"""Consumers of `float32[N, T, 8]`: some mix or lose the samples of the batch, some keep them."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

WIDTH = 8
Modules: TypeAlias = dict[str, nn.Module]


class First(nn.Module):
    """Returns only the first result of a recurrent or attention layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Attention(nn.Module):
    """Attends to itself."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.attention(x, x, x)[0]
        return attended


class Mean(nn.Module):
    """Takes the mean over one axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dim)


class Largest(nn.Module):
    """Takes the largest values along one axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.max(self.dim)[0]


class Sorted(nn.Module):
    """Sorts along one axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.sort(self.dim)[0]


class Running(nn.Module):
    """Adds up along one axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(self.dim)


class Selected(nn.Module):
    """Selects the last slice of one axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.select(self.dim, -1)


class Reversed(nn.Module):
    """Reverses one axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.flip([self.dim])


class Rolled(nn.Module):
    """Moves every slice of one axis by one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.roll(1, self.dim)


class Pairs(nn.Module):
    """Puts two tokens in one row, of whatever sample they are."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2 * WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.view(-1, 2 * x.size(2)))


class Scaled(nn.Module):
    """Divides by the spread of all values."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.std()


class Centred(nn.Module):
    """Subtracts the mean of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class Similar(nn.Module):
    """Compares every sample with every other."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(1)
        return pooled @ pooled.t()


class Hard(nn.Module):
    """Looks up what is largest along one axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.table = nn.Embedding(1000, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.argmax(self.dim))


class Rows(nn.Module):
    """Puts all tokens in rows, and the rows back into samples."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.head(x.reshape(-1, x.size(2)))
        return rows.view(x.size(0), x.size(1), 3)


class Channels(nn.Module):
    """Runs a layer that takes channels on axis 1."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(1, 2))


class TimeFirst(nn.Module):
    """Runs a layer that takes time on axis 0, and puts the axes back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x.transpose(0, 1))[0]
        return result.transpose(0, 1)


class Positive(nn.Module):
    """Keeps what is positive, in several ways that NaN does not pass."""

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.where(x > 0, x, torch.zeros_like(x))
        return kept.masked_fill(x > 1, 1.0).nan_to_num()


def transformer(*, batch_first: bool) -> nn.Module:
    """Return a layer that runs in its fast path."""
    return nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=batch_first).eval()


def mixing() -> Modules:
    """Return consumers that mix the samples of axis 0, or lose their axis."""
    return {
        "lstm": First(nn.LSTM(WIDTH, 4)),
        "gru": First(nn.GRU(WIDTH, 4, num_layers=2)),
        "rnn": First(nn.RNN(WIDTH, 4)),
        "both_ways": First(nn.LSTM(WIDTH, 4, bidirectional=True)),
        "deep_lstm": nn.Sequential(nn.Linear(WIDTH, WIDTH), First(nn.LSTM(WIDTH, 4))),
        "attention": Attention(batch_first=False),
        "transformer": transformer(batch_first=False),
        "softmax": nn.Softmax(dim=0),
        "log_softmax": nn.LogSoftmax(dim=0),
        "flat": nn.Flatten(0, 1),
        "flat_head": nn.Sequential(nn.Flatten(0, 1), nn.Linear(WIDTH, 4)),
        "mean": Mean(0),
        "largest": Largest(0),
        "sorted": Sorted(0),
        "running": Running(0),
        "last": Selected(0),
        "reversed": Reversed(0),
        "rolled": Rolled(0),
        "pairs": Pairs(),
        "scaled": Scaled(),
        "centred": Centred(),
        "similar": Similar(),
        "hard": Hard(0),
    }


def keeping() -> Modules:
    """Return consumers that keep the samples of axis 0 apart."""
    return {
        "linear": nn.Linear(WIDTH, 3),
        "lstm_bf": First(nn.LSTM(WIDTH, 4, batch_first=True)),
        "gru_bf": First(nn.GRU(WIDTH, 4, num_layers=2, batch_first=True)),
        "both_ways_bf": First(nn.LSTM(WIDTH, 4, bidirectional=True, batch_first=True)),
        "attention_bf": Attention(batch_first=True),
        "transformer_bf": transformer(batch_first=True),
        "time_first": TimeFirst(),
        "layer_norm": nn.LayerNorm(WIDTH),
        "group_norm": Channels(nn.GroupNorm(2, WIDTH)),
        "instance_norm": Channels(nn.InstanceNorm1d(WIDTH)),
        "batch_norm": Channels(nn.BatchNorm1d(WIDTH)).eval(),
        "conv": Channels(nn.Conv1d(WIDTH, 4, 1)),
        "pool": Channels(nn.AdaptiveMaxPool1d(2)),
        "softmax_1": nn.Softmax(dim=1),
        "mean_1": Mean(1),
        "largest_1": Largest(1),
        "sorted_1": Sorted(1),
        "running_1": Running(1),
        "last_1": Selected(1),
        "reversed_1": Reversed(1),
        "rows": Rows(),
        "hard_1": Hard(-1),
        "positive": Positive(),
        "dropout": nn.Sequential(nn.Dropout(0.5), nn.Linear(WIDTH, 3)),
    }
