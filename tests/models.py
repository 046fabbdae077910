"""Small models for tests, saved in each form that PyTorch has."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

FORMS = ("scripted", "traced", "resaved", "exported", "pickled")


class Shelf:
    """Real saved files. A module is saved once for each name and form."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules = dict[str, str]()

    def path(self, name: str, form: str) -> Path:
        suffix = "pt2" if form == "exported" else "pt"
        return self.folder / f"{name}.{form}.{suffix}"

    def save(
        self,
        name: str,
        module: nn.Module,
        form: str = "scripted",
        example: tuple[torch.Tensor, ...] = (),
    ) -> str:
        """The path of the saved module, as text; made where it is not there yet. A name is one module's alone."""
        assert self.modules.setdefault(name, repr(module)) == repr(module), (
            f"{name} is another module already"
        )
        path = self.path(name, form)
        if not path.exists():
            with warnings.catch_warnings(action="ignore"):
                _save(module, form, example, path)
        return str(path)


def _save(module: nn.Module, form: str, example: tuple[torch.Tensor, ...], path: Path) -> None:
    if form == "scripted":
        torch.jit.script(module).save(str(path))
    elif form == "traced":
        torch.jit.trace(module, example, check_trace=False, strict=False).save(str(path))
    elif form == "resaved":
        traced = torch.jit.trace(module, example, check_trace=False, strict=False)
        traced.save(str(path))
        torch.jit.load(str(path)).save(str(path))
    elif form == "exported":
        auto = torch.export.Dim.AUTO
        dynamic = tuple({0: auto, 1: auto} if tensor.dim() > 2 else {0: auto} for tensor in example)
        torch.export.save(torch.export.export(module, example, dynamic_shapes=dynamic), path)
    else:
        torch.save(module, path)


def rewrite(source: Path, target: Path, prefix: str, change: Callable[[bytes], bytes]) -> None:
    """A copy of an archive with the members below `prefix` changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.partition("/")[2].startswith(prefix) else data)


def encoder() -> nn.Module:
    """`(N, 3, H, W) -> (N, 64, ceil(H/8), ceil(W/8))`"""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
    )


class TwoInputs(nn.Module):
    """`(N, 5), (N, 5) -> (N, 5)`"""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(5, 5)
        self.right = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.left(x) + self.right(y)


class TwoOutputs(nn.Module):
    """`(N, 10) -> ((N, 5), (N, 5))`"""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(10, 5)
        self.other = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.one(x), self.other(x)


class DictOutput(nn.Module):
    """`(N, 10) -> {"logits": (N, 5), "features": (N, 16)}`"""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(10, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = torch.relu(self.body(x))
        return {"logits": self.head(features), "features": features}


class Deep(nn.Module):
    """`(N, 5) -> (N, 2)` whose second layer takes what the first does not give, where `inner` is not 8."""

    def __init__(self, inner: int = 8) -> None:
        super().__init__()
        self.stem = nn.Identity()
        self.fc1 = nn.Linear(inner, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dim() == 2
        return self.fc1(torch.cat([self.stem(x), x[:, :3]], 1))


class Biased(nn.Module):
    """Adds a parameter of width 5: takes width 5, and width 1 by broadcasting."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.norm.bias)


class Counter(nn.Module):
    """Counts its calls in a buffer, a number and a list, and draws from the random state."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 5)
        self.calls = 0
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen += 1
        return self.fc(x) + torch.rand(1)


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(5, 5)
        self.other = nn.Linear(5, 5)
        self.other.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(torch.relu(self.one(x)))


class NanCheck(nn.Module):
    """Refuses values, not shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x < 0).any()):
            raise ValueError("negative values")
        return self.fc(x)


class Argmax(nn.Module):
    """`(N, 5) -> (N)` ids: no gradient passes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.argmax(-1)


class Baked(nn.Module):
    """A trace of it holds the device as a constant."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.fc = nn.Linear(10, 5)
        self.device = device

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + torch.zeros(1, device=self.device)


class Table(nn.Module):
    """Where it looks is a matter of values."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, self.table]


class Ids(nn.Module):
    """Ids in, and the same ids out larger: past the vocabulary of an embedding behind it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 0 + 7).to(torch.int64)
