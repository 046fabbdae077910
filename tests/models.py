"""Small models for tests, in each form that PyTorch can save."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

FORMS = ("scripted", "traced", "resaved", "exported", "pickled")


class Shelf:
    """A folder of saved models. Each is saved once for each form, when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules = dict[str, str]()

    def path(self, name: str, form: str) -> Path:
        """Return the path of a model in this form, whether it has been saved or not."""
        suffix = "pt2" if form == "exported" else "pt"
        return self.folder / f"{name}.{form}.{suffix}"

    def save(
        self,
        name: str,
        module: nn.Module,
        form: str = "scripted",
        example: tuple[torch.Tensor, ...] = (),
    ) -> str:
        """Return the path of the saved module; save it first if it is not there yet.

        No two modules may have one name.
        """
        assert self.modules.setdefault(name, repr(module)) == repr(module), (
            f"{name} is already the name of another module"
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
    """Copy an archive and change the members below `prefix`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.partition("/")[2].startswith(prefix) else data)


def encoder() -> nn.Module:
    """Return a model `(N, 3, H, W) -> (N, 64, ceil(H/8), ceil(W/8))`."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
    )


class TwoInputs(nn.Module):
    """`(N, 5), (N, 5) -> (N, 5)`."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(5, 5)
        self.right = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.left(x) + self.right(y)


class TwoOutputs(nn.Module):
    """`(N, 10) -> ((N, 5), (N, 5))`."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(10, 5)
        self.other = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.one(x), self.other(x)


class DictOutput(nn.Module):
    """`(N, 10) -> {"logits": (N, 5), "features": (N, 16)}`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(10, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = torch.relu(self.body(x))
        return {"logits": self.head(features), "features": features}


class Deep(nn.Module):
    """`(N, 5) -> (N, 2)`; if `inner` is not 8, the second layer does not accept the output of the
    first."""

    def __init__(self, inner: int = 8) -> None:
        super().__init__()
        self.stem = nn.Identity()
        self.fc1 = nn.Linear(inner, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dim() == 2
        return self.fc1(torch.cat([self.stem(x), x[:, :3]], 1))


class Biased(nn.Module):
    """Adds a parameter of width 5: accepts width 5, and width 1 by broadcasting."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.norm.bias)


class Counter(nn.Module):
    """Counts its calls in a buffer and a number, and uses the random number generator."""

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
    """Fails on some values, but not on any shape that fits."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x < 0).any()):
            raise ValueError("negative values")
        return self.fc(x)


class Argmax(nn.Module):
    """`(N, 5) -> (N)` ids, without a gradient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.argmax(-1)


class Baked(nn.Module):
    """Its trace contains the device as a constant."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.fc = nn.Linear(10, 5)
        self.device = device

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + torch.zeros(1, device=self.device)


class Table(nn.Module):
    """Which columns it returns depends on the values of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, self.table]


class Ids(nn.Module):
    """Maps ids to larger ids, which are out of range for the embedding after it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 0 + 7).to(torch.int64)
