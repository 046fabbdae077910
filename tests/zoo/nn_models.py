"""The layers of torch.nn, and small networks of the usual kinds built from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo.specimens import Entry, Specimen


class LeNet(nn.Module):
    """LeNet-5 for images of 28 by 28."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.f1, self.f2 = nn.Linear(400, 120), nn.Linear(120, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(torch.relu(self.c1(x)), 2)
        x = torch.max_pool2d(torch.relu(self.c2(x)), 2)
        return self.f2(torch.relu(self.f1(torch.flatten(x, 1))))


class FlatView(nn.Module):
    """A view of a fixed width, so that a smaller image turns several samples into one row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(2048, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(torch.max_pool2d(self.conv(x), 2)).view(-1, 2048))


class Tokens(nn.Module):
    """A text classifier with learned positions."""

    def __init__(self, positions: int = 64) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(100, 16), nn.Embedding(positions, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.size(1), device=ids.device)
        return self.head(self.layer(self.words(ids) + self.places(places)).mean(1))


class Masked(nn.Module):
    """A bag of words with a mask over the ids."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(50, 12), nn.Linear(12, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.words(ids).masked_fill(mask.unsqueeze(-1), 0.0)
        return self.head(hidden.sum(1))


class PatchNet(nn.Module):
    """Patches with a learned table of positions that is cut to the number of patches."""

    def __init__(self, patch: int = 8, max_patches: int = 64) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Conv2d(3, 16, patch, stride=patch)
        self.places = nn.Parameter(torch.rand(1, max_patches, 16))
        self.head = nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        assert x.size(2) % self.patch == 0
        assert x.size(3) % self.patch == 0
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.head((x + self.places[:, : x.size(1)]).mean(1))


class FixedPatches(nn.Module):
    """A vision transformer's embedding with a fixed number of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 16, stride=16)
        self.token, self.places = (
            nn.Parameter(torch.rand(1, 1, 16)),
            nn.Parameter(torch.rand(1, 197, 16)),
        )
        self.head = nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.size(0), -1, -1), x], 1) + self.places
        return self.head(x[:, 0])


class UNet(nn.Module):
    """Skip connections that only match if the sizes can be halved twice."""

    def __init__(self) -> None:
        super().__init__()
        self.d1, self.d2, self.d3 = (
            nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 8), (8, 16), (16, 16))
        )
        self.u2, self.u1 = nn.ConvTranspose2d(16, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.out = nn.Conv2d(16, 2, 1)
        self.mix = nn.Conv2d(32, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.d1(x))
        b = torch.relu(self.d2(torch.max_pool2d(a, 2)))
        c = torch.relu(self.d3(torch.max_pool2d(b, 2)))
        b = self.mix(torch.cat([b, self.u2(c)], 1))
        return self.out(torch.cat([a, self.u1(b)], 1))


class Wave(nn.Module):
    """A classifier of raw audio."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(1, 8, 10, 5), nn.ReLU(), nn.Conv1d(8, 16, 8, 4), nn.ReLU()
        )
        self.head = nn.Linear(16, 3)

    def forward(self, wave: Tensor) -> Tensor:
        return self.head(self.net(wave.unsqueeze(1)).mean(-1))


class Spectrogram(nn.Module):
    """A convolution and a GRU over mel spectrograms with 40 bins."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn = nn.Conv2d(1, 4, 3, padding=1), nn.GRU(4 * 40, 16, batch_first=True)
        self.head = nn.Linear(16, 6)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.conv(mel.unsqueeze(1)).permute(0, 3, 1, 2).flatten(2)
        return self.head(self.rnn(x)[0])


class Graph(nn.Module):
    """A graph convolution: node features and an adjacency matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Linear(7, 16), nn.Linear(16, 3)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        return self.w2(adjacency @ torch.relu(adjacency @ self.w1(nodes)))


class TwoImages(nn.Module):
    """Two images of the same size, stacked as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 4, 3, padding=1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.conv(torch.cat([left, right], 1))


class TwoTowers(nn.Module):
    """A text tower and an image tower that share the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.image = nn.EmbeddingBag(80, 16), nn.Conv2d(3, 16, 3)

    def forward(self, ids: Tensor, pixels: Tensor) -> Tensor:
        return self.text(ids) * self.image(pixels).mean((2, 3))


class Timestep(nn.Module):
    """A denoiser: images, and one integer for each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.time = nn.Embedding(1000, 8)

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(sample) + self.time(timestep)[:, :, None, None]))


class Stateful(nn.Module):
    """An LSTM that takes and returns its state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(6, 9, batch_first=True), nn.Linear(9, 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out, (h, c) = self.cell(x, (h, c))
        return self.head(out), h, c


class Many(nn.Module):
    """A list of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return [self.head(item) for item in items]


class Rated(nn.Module):
    """A tensor and a sampling rate, which is an int."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv1d(1, 4, 400, 160)

    def forward(self, wave: Tensor, rate: int) -> Tensor:
        if rate == 16000:
            return self.head(wave.unsqueeze(1))
        return self.head(wave[:, ::2].unsqueeze(1))


class Optional(nn.Module):
    """An optional mask, and a dict as output."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(50, 12), nn.Linear(12, 3)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        hidden = self.words(ids)
        if mask is not None:
            hidden = hidden * mask.unsqueeze(-1)
        return {"hidden": hidden, "logits": self.head(hidden.mean(1))}


class Frames(nn.Module):
    """A classifier of videos."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv3d(3, 8, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        )

    def forward(self, video: Tensor) -> Tensor:
        return self.net(video)


class Generator(nn.Module):
    """The generator of a GAN: a vector to an image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(20, 8 * 4 * 4)
        self.net = nn.Sequential(
            nn.ConvTranspose2d(8, 4, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 3, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.net(self.first(z).view(-1, 8, 4, 4))


class Series(nn.Module):
    """A forecaster over a window of fixed length."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.ahead = nn.Linear(7, 16), nn.Linear(96, 24)

    def forward(self, history: Tensor) -> Tensor:
        return self.ahead(self.mix(history).transpose(1, 2)).transpose(1, 2)


class Tabular(nn.Module):
    """A table with categories and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds = nn.ModuleList([nn.Embedding(n, 4) for n in (12, 30, 7)])
        self.net = nn.Sequential(
            nn.Linear(3 * 4 + 5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1)
        )

    def forward(self, kinds: Tensor, numbers: Tensor) -> Tensor:
        found = [table(kinds[:, n]) for n, table in enumerate(self.kinds)]
        return self.net(torch.cat([*found, numbers], 1))


class Causal(nn.Module):
    """A language model with a causal mask for its maximum length, as in minimal GPTs."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(65, 16), nn.Parameter(torch.rand(1, 32, 16))
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 65)
        self.register_buffer("mask", torch.tril(torch.ones(32, 32)).bool())

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.size(1)
        x = self.words(ids) + self.places[:, :length]
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = (q @ k.transpose(1, 2)).masked_fill(~self.mask[:length, :length], float("-inf"))
        return self.head(x + self.out(scores.softmax(-1) @ v))


class PixelShuffle(nn.Module):
    """A super-resolution network that doubles the size."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Decoder(nn.Module):
    """A transformer decoder over ids and the encoder's output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True)
        self.words = nn.Embedding(40, 16)

    def forward(self, ids: Tensor, memory: Tensor) -> Tensor:
        return self.layer(self.words(ids), memory)


class SkipDecoder(nn.Module):
    """The last level of a U-Net's decoder: one input is twice as large as the other."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.mix = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return self.mix(torch.cat([self.up(x), skip], 1))


class RoundingUp(nn.Module):
    """A U-Net with strided convolutions, which accept sizes with two of four remainders."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return self.up(self.b(a)) + a


class PixelMask(nn.Module):
    """A mask with one entry for each patch of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.patches(x).flatten(2).masked_fill(mask.unsqueeze(1) > 0, 0.0)


# A name, a function that builds the module, and inputs that the module accepts.
Named = Iterator[tuple[str, Callable[[], nn.Module], tuple[object, ...]]]


def _rand(*sizes: int) -> Tensor:
    return torch.rand(sizes)


def _ids(below: int, *sizes: int) -> Tensor:
    return torch.randint(0, below, sizes)


def _layers() -> Named:
    yield "linear", lambda: nn.Linear(10, 5), (_rand(2, 10),)
    yield "bilinear", lambda: nn.Bilinear(6, 9, 4), (_rand(2, 6), _rand(2, 9))
    yield "conv1d", lambda: nn.Conv1d(4, 8, 3), (_rand(2, 4, 64),)
    yield "conv2d", lambda: nn.Conv2d(6, 8, 3, 2, 1, groups=2), (_rand(2, 6, 32, 32),)
    yield "conv3d", lambda: nn.Conv3d(2, 4, 3, padding=1), (_rand(2, 2, 8, 8, 8),)
    yield "conv_transpose2d", lambda: nn.ConvTranspose2d(3, 8, 4, 2), (_rand(2, 3, 16, 16),)
    yield "embedding", lambda: nn.Embedding(100, 8), (_ids(100, 2, 8),)
    yield "embedding_bag", lambda: nn.EmbeddingBag(100, 8), (_ids(100, 2, 8),)
    yield "lstm", lambda: nn.LSTM(10, 20, 2), (_rand(5, 2, 10),)
    yield "gru", lambda: nn.GRU(10, 20, batch_first=True), (_rand(2, 5, 10),)
    yield "lstm_cell", lambda: nn.LSTMCell(10, 20), (_rand(2, 10),)
    yield "layer_norm", lambda: nn.LayerNorm([4, 6]), (_rand(2, 4, 6),)
    yield "batch_norm", lambda: nn.BatchNorm2d(6), (_rand(2, 6, 8, 8),)
    yield "group_norm", lambda: nn.GroupNorm(2, 6), (_rand(2, 6, 8, 8),)
    yield (
        "attention",
        lambda: nn.MultiheadAttention(16, 4, batch_first=True),
        (_rand(2, 5, 16),) * 3,
    )
    yield (
        "encoder",
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2),
        (_rand(2, 7, 16),),
    )
    yield (
        "transformer",
        lambda: nn.Transformer(16, 4, 1, 1, 32, batch_first=True),
        (_rand(2, 7, 16), _rand(2, 5, 16)),
    )
    yield "max_pool", lambda: nn.MaxPool2d(2), (_rand(2, 3, 8, 8),)
    yield "adaptive_pool", lambda: nn.AdaptiveAvgPool2d(4), (_rand(2, 3, 16, 16),)
    yield "relu", nn.ReLU, (_rand(2, 3),)
    yield "softmax", lambda: nn.Softmax(-1), (_rand(2, 3),)
    yield "prelu", lambda: nn.PReLU(5), (_rand(2, 5, 8),)
    yield "upsample", lambda: nn.Upsample(scale_factor=2), (_rand(2, 3, 8, 8),)
    yield (
        "unflatten",
        lambda: nn.Sequential(nn.Linear(8, 12), nn.Unflatten(1, (3, 4))),
        (_rand(2, 8),),
    )
    yield (
        "mlp",
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10)),
        (_rand(2, 1, 28, 28),),
    )
    yield "glu", lambda: nn.Sequential(nn.Linear(6, 8), nn.GLU()), (_rand(2, 6),)
    yield "cosine", nn.CosineSimilarity, (_rand(2, 8), _rand(2, 8))
    yield (
        "quantised",
        lambda: torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
        ),
        (_rand(2, 16),),
    )


def _networks() -> Named:
    yield "lenet", LeNet, (_rand(2, 1, 28, 28),)
    yield "flat_view", FlatView, (_rand(2, 3, 32, 32),)
    yield "tokens", Tokens, (_ids(100, 2, 16),)
    yield "masked", Masked, (_ids(50, 2, 9), _rand(2, 9) > 0.5)
    yield "patches", PatchNet, (_rand(2, 3, 64, 64),)
    yield "fixed_patches", FixedPatches, (_rand(2, 3, 224, 224),)
    yield "unet", UNet, (_rand(2, 3, 32, 32),)
    yield "wave", Wave, (_rand(2, 800),)
    yield "spectrogram", Spectrogram, (_rand(2, 40, 50),)
    yield "graph", Graph, (_rand(9, 7), _rand(9, 9))
    yield "two_images", TwoImages, (_rand(2, 3, 16, 16), _rand(2, 3, 16, 16))
    yield "two_towers", TwoTowers, (_ids(80, 2, 6), _rand(2, 3, 16, 16))
    yield "timestep", Timestep, (_rand(2, 4, 16, 16), _ids(1000, 2))
    yield "stateful", Stateful, (_rand(2, 5, 6), _rand(1, 2, 9), _rand(1, 2, 9))
    yield "many", Many, ([_rand(2, 5), _rand(3, 5)],)
    yield "rated", Rated, (_rand(2, 4000), 16000)
    yield "optional", Optional, (_ids(50, 2, 9),)
    yield "frames", Frames, (_rand(2, 3, 8, 16, 16),)
    yield "generator", Generator, (_rand(2, 20),)
    yield "series", Series, (_rand(2, 96, 7),)
    yield "tabular", Tabular, (_ids(7, 2, 3), _rand(2, 5))
    yield "causal", Causal, (_ids(65, 2, 16),)
    yield "pixel_shuffle", PixelShuffle, (_rand(2, 3, 8, 8),)
    yield "decoder", Decoder, (_ids(40, 2, 6), _rand(2, 5, 16))
    yield "skip_decoder", SkipDecoder, (_rand(2, 8, 12, 20), _rand(2, 16, 6, 10))
    yield "rounding_up", RoundingUp, (_rand(2, 3, 16, 16),)
    yield "pixel_mask", PixelMask, (_rand(2, 3, 16, 24), _ids(2, 2, 24))


def entries() -> Iterator[Entry]:
    """Yield every layer and every network."""
    for name, build, inputs in (*_layers(), *_networks()):
        yield Entry("torch.nn", name, partial(_specimen, build, inputs))


def _specimen(build: Callable[[], nn.Module], inputs: tuple[object, ...]) -> Specimen:
    return Specimen(build().eval(), inputs)
