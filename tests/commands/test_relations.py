"""Models whose dims are related by a product: what is said of them is held against running them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from composecli import inspect, options
from tests.commands.running import Composecli, Installed
from tests.models import Shelf
from tests.zoo.judge import judge


class Flat(nn.Module):
    """Flatten all axes but the batch."""

    def __init__(self, width: int, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis
        self.fc = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(x, self.axis))


class View(nn.Module):
    """Read all elements as rows of a width, whatever axes they come from."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.fc = nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.reshape(-1, self.width))


class FlatBesideRows(nn.Module):
    """Flatten all axes but the batch, and return the rows of all samples, too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(1024, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.fc(x.flatten(1)), x.flatten(0, 1)


class RowsOfSample(nn.Module):
    """Read the elements of each sample as rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.fc = nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.reshape(x.size(0), -1, self.width))


class Heads(nn.Module):
    """Split the features among heads."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = x.view(x.size(0), x.size(1), 4, x.size(2) // 4)
        return (heads * self.scale).transpose(1, 2)


class Groups(nn.Module):
    """Add up the groups of the channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        return x.view(n, 4, c // 4, h, w).sum(1)


class Patches(nn.Module):
    """Cut an image into patches."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(48, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        cut = x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5)
        return self.fc(cut.reshape(n, -1, c * 16))


class Table(nn.Module):
    """Read whole rows of the first samples."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(4, 6)


class Columns(nn.Module):
    """Reads the columns of an image with a recurrent layer of as many features."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 4:
            x = x.flatten(1, 2)
        return self.lstm(x.transpose(1, 2))[0]


class PointwiseView(nn.Module):
    """A convolution of pixels before a view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).reshape(-1, 512))


# A module, an example of its input, and its contract at the rank of that.
MODULES: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "flat_beside_rows": (
        FlatBesideRows(),
        (2, 16, 8, 8),
        "float32[N, C, H, W] where C*H*W == 1024 -> (float32[N, 10], float32[N*C, H, W])",
    ),
    "flat_image": (
        Flat(1024),
        (2, 16, 8, 8),
        "float32[N, C, H, W] where C*H*W == 1024 -> float32[N, 10]",
    ),
    "flat_frames": (Flat(96), (2, 8, 12), "float32[N, T, L] where T*L == 96 -> float32[N, 10]"),
    "flat_volume": (
        Flat(192),
        (2, 3, 4, 4, 4),
        "float32[N, C, D, H, W] where C*D*H*W == 192 -> float32[N, 10]",
    ),
    "flat_pixels": (
        Flat(49, 2),
        (2, 3, 7, 7),
        "float32[N, C, H, W] where H*W == 49 -> float32[N, C, 10]",
    ),
    "pointwise": (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(256, 10)),
        (2, 3, 8, 8),
        "float32[N, 3, H, W] where H*W == 64 -> float32[N, 10]",
    ),
    "view": (
        View(1024),
        (2, 16, 8, 8),
        "float32[N, C, H, W] where N*C*H*W % 1024 == 0 -> float32[N*C*H*W//1024, 4]",
    ),
    "view_of_frames": (
        View(64),
        (2, 8, 8),
        "float32[N, T, L] where N*T*L % 64 == 0 -> float32[N*T*L//64, 4]",
    ),
    "rows_of_sample": (
        RowsOfSample(16),
        (2, 3, 32),
        "float32[N, T, L] where T*L % 16 == 0 -> float32[N, T*L//16, 4]",
    ),
    "rows_of_features": (RowsOfSample(16), (2, 32), "float32[N, D%16==0] -> float32[N, D//16, 4]"),
    "heads": (Heads(), (2, 3, 8), "float32[N, T, L%4==0] -> float32[N, 4, T, L//4]"),
    "groups": (Groups(), (2, 8, 6, 6), "float32[N, C%4==0, H, W] -> float32[N, C//4, H, W]"),
    "shuffle": (
        nn.Sequential(nn.PixelShuffle(2)),
        (2, 8, 6, 6),
        "float32[N, C%4==0, H, W] -> float32[N, C//4, 2*H, 2*W]",
    ),
    "unshuffle": (
        nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 1)),
        (2, 3, 8, 8),
        "float32[N, 3, H%2==0, W%2==0] -> float32[N, 4, H//2, W//2]",
    ),
    "patches": (
        Patches(),
        (2, 3, 16, 16),
        "float32[N, 3, H%4==0, W%4==0] -> float32[N, (H//4)*(W//4), 8]",
    ),
    "table": (Table(), (2, 3, 4), "float32[N, T, L] where N*T*L == 24 -> float32[4, 6]"),
    "pointwise_view": (
        PointwiseView(),
        (2, 3, 16, 16),
        "float32[N, 3, H, W] where N*H*W % 64 == 0 -> float32[N*H*W//64, 10]",
    ),
}


@pytest.mark.parametrize("form", ["scripted", "pickled"])
@pytest.mark.parametrize("name", MODULES)
def test_related_dims_are_found_and_hold(
    composecli: Composecli, shelf: Shelf, name: str, form: str
) -> None:
    module, sizes, contract = MODULES[name]
    path = shelf.save(f"related_{name}", module.eval(), form)
    stated = ",".join(map(str, sizes))
    ran = composecli.json("inspect", path, "--input", stated, "--trust", path)
    assert ran.json["model"]["contract"]["text"] == contract
    assert ran.json["model"]["contract"]["unknown"] == []


@pytest.mark.parametrize("name", MODULES)
def test_related_dims_are_those_that_run(shelf: Shelf, name: str) -> None:
    module, sizes, _ = MODULES[name]
    path = shelf.save(f"related_{name}", module.eval())
    found = inspect(path, options=options(inputs=[",".join(map(str, sizes))])).model.contract
    assert found is not None
    judgement = judge(found, torch.jit.load(path), module)
    assert judgement.wrong == ()
    assert judgement.open == ()


@pytest.mark.parametrize("name", ["flat_image", "view", "rows_of_sample", "pointwise"])
def test_an_exported_program_keeps_the_sizes_of_its_archive(shelf: Shelf, name: str) -> None:
    module, sizes, _ = MODULES[name]
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(module.eval(), (torch.rand(sizes),), dynamic_shapes=(batch,))
    path = shelf.folder / f"related_{name}.pt2"
    torch.export.save(program, path)
    found = inspect(str(path)).model.contract
    assert found is not None
    assert judge(found, program.module(), program.module()).wrong == ()


def test_the_installed_command_shows_the_relation(installed: Installed, shelf: Shelf) -> None:
    path = shelf.save("related_flat_image", MODULES["flat_image"][0].eval())
    ran = installed("inspect", path, "--input", "2,16,8,8")
    assert "float32[N, C, H, W] where C*H*W == 1024 -> float32[N, 10]" in ran.out
    assert "?" not in ran.out
    contract = installed.json("inspect", path, "--input", "2,16,8,8").json["model"]["contract"]
    assert contract["where"] == ["C*H*W == 1024"]


@pytest.mark.parametrize(
    ("stated", "contract"),
    [
        (
            "float32[N, C, H, W] where C*H*W == 1024",
            "float32[N, C, H, W] where C*H*W == 1024 -> float32[N, 10]",
        ),
        (
            "float32[N, 4, H, W] where H*W == 256",
            "float32[N, 4, H, W] where H*W == 256 -> float32[N, 10]",
        ),
        ("float32[N, C, H, W] where C*H*W % 1024 == 0", "float32[N, ?, ?, ?] -> float32[?, ?]"),
    ],
)
def test_a_stated_relation_is_confirmed(
    composecli: Composecli, shelf: Shelf, stated: str, contract: str
) -> None:
    path = shelf.save("related_flat_image", MODULES["flat_image"][0].eval())
    ran = composecli.json("inspect", path, "--input", stated)
    assert ran.json["model"]["contract"]["text"] == contract


@pytest.mark.parametrize("stated", ["N,C where C*Q == 4", "N,C where 2*C == 7"])
def test_a_relation_that_no_sizes_meet_is_refused(
    composecli: Composecli, shelf: Shelf, stated: str
) -> None:
    path = shelf.save("related_flat_image", MODULES["flat_image"][0].eval())
    ran = composecli("inspect", path, "--input", stated)
    assert ran.code == 3
    assert "no sizes were found that meet what is stated" in ran.err + ran.out


PRODUCERS = {
    "strided": nn.Sequential(nn.Conv2d(3, 16, 4, stride=4, padding=2)),
    "audio": nn.Sequential(nn.Conv1d(4, 16, 3, padding=1)),
    "volume": nn.Sequential(nn.Conv3d(1, 16, 3, padding=1)),
}


@pytest.mark.parametrize(
    ("producer", "consumer", "when"),
    [
        ("strided", "flat_image", "28<=H<=31 and 28<=W<=31"),
        ("audio", "flat_image", "L==64"),
        ("strided", "view", "N*(H//4 + 1)*(W//4 + 1) % 64 == 0"),
    ],
)
def test_a_producer_of_another_rank_fits_without_a_bridge(
    composecli: Composecli, shelf: Shelf, producer: str, consumer: str, when: str
) -> None:
    paths = (
        shelf.save(f"gives_{producer}", PRODUCERS[producer].eval()),
        shelf.save(f"related_{consumer}", MODULES[consumer][0].eval()),
    )
    checked = composecli.json("check", *paths)
    titles = [finding["title"] for seam in checked.json["seams"] for finding in seam["findings"]]
    assert checked.code == 0
    assert titles[0] == f"compatible when {when}"
    assert checked.json["seams"][0]["holds"] == "sometimes"
    joined = shelf.folder / f"{producer}_{consumer}.pt"
    assert composecli("join", *paths, "-o", joined).code == 0
    assert joined.exists()
    assert composecli("check", *paths, "--strict").code == 1


@pytest.mark.parametrize("form", ["scripted", "traced", "pickled"])
def test_a_sequence_behind_a_transpose_has_any_length(
    composecli: Composecli, shelf: Shelf, form: str
) -> None:
    path = shelf.save("columns", Columns(), form, (torch.rand(2, 64, 9),))
    given = shelf.save("frames_of_wave", nn.Conv1d(1, 64, 10, 5))
    checked = composecli.json("check", given, path, "--trust", path)
    assert checked.json["models"][1]["contract"]["text"] == "float32[N, 64, L] -> float32[N, L, 5]"
    (seam,) = checked.json["seams"]
    assert (seam["verdict"], seam["holds"], seam["when"]) == ("compatible", "always", [])


@pytest.mark.parametrize("form", ["scripted", "pickled"])
def test_the_columns_of_an_image_may_be_as_many_as_they_are_wide(
    composecli: Composecli, shelf: Shelf, form: str
) -> None:
    path = shelf.save("columns", Columns(), form)
    given = shelf.save("map_of_16", nn.Conv2d(3, 16, 8, 8))
    checked = composecli.json("check", given, path, "--trust", path)
    (seam,) = checked.json["seams"]
    assert (seam["verdict"], seam["when"]) == ("compatible", ["32<=H<=39"])
