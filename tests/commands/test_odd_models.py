"""Models with other inputs and outputs than one tensor: their contracts, and their joins."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Optional

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli, Installed
from tests.models import Shelf


class Scalar(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> None:
        return None


class Number(nn.Module):
    def forward(self, x: torch.Tensor) -> int:
        return 3


class NoInput(nn.Module):
    def forward(self) -> torch.Tensor:
        return torch.ones(2, 5)


class Pair(NamedTuple):
    mean: torch.Tensor
    scale: torch.Tensor


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> Pair:
        y = self.fc(x)
        return Pair(y, y * 2)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor, mask: Optional[torch.Tensor] = None) -> torch.Tensor:  # noqa: UP045 (scripted)
        y = self.fc(x)
        return y if mask is None else y * mask


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.fc(x), x]


class Gathered(nn.Module):
    def forward(self, xs: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(xs, 1)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.add_(1))


class Rated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor, rate: int) -> torch.Tensor:
        return self.fc(x) * rate


class Guarded(nn.Module):
    """Rejects the same inputs as a voice detector, each with an error of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 256, 64)

    def forward(self, x: torch.Tensor, rate: int) -> torch.Tensor:
        if x.dim() > 2:
            raise ValueError("too many dimensions")
        if rate not in (8000, 16000):
            raise ValueError("a rate of 8000 or 16000 is wanted")
        if rate / x.shape[-1] > 31.25:
            raise ValueError("too short")
        if x.shape[-1] != 512:
            raise ValueError("512 samples are wanted")
        return self.conv(x.unsqueeze(1)).mean(-1)


class Squared(nn.Module):
    """Views its tokens as a square image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        side = int(length**0.5)
        return self.conv(x.transpose(1, 2).view(n, width, side, side))


class Steps(nn.Module):
    """Returns a tensor for each step of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        steps: list[torch.Tensor] = []
        for step in range(x.size(1)):
            steps.append(self.fc(x[:, step]))
        return steps


class ScaledChannels(nn.Module):
    """Scales the channels of images, and rows by broadcasting."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale[:, None, None]


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 4)
        self.b = nn.Linear(7, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.a(x) + self.b(y)


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(x)


class HalvesMultiplied(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, 1)
        return left * right


class EvenPlusOdd(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, ::2] + x[:, 1::2]


class RealAndImaginary(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(x).flatten(-2)


class Pieces(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.unbind(x.reshape(-1, 40), 1))


class NoWidth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight)


CONTRACTS = {
    "scalar": (Scalar(), [], "float32[N, D] -> float32[]"),
    "nothing": (Nothing(), [], "float32[N, D] -> None"),
    "number": (Number(), [], "float32[N, D] -> 3"),
    "no_input": (NoInput(), [], "nothing -> float32[2, 5]"),
    "named": (Named(), [], "float32[N, 10] -> (float32[N, 5], float32[N, 5])"),
    "masked": (Masked(), [], "float32[N, 5] -> float32[N, 2]"),
    "listed": (Listed(), [], "float32[N, 10] -> [float32[N, 5], float32[N, 10]]"),
    "in_place": (InPlace(), [], "float32[N, 5] -> float32[N, 5]"),
    "weighted": (Weighted(), [], "float32[N, 5], float32[N, 7] -> float32[N, 4]"),
    "spectrum": (Spectrum(), [], "float32[N, D] -> complex64[N, D//2 + 1]"),
    "rated": (
        Rated(),
        ["--input", "float32[N,5]", "--input", "rate:=2"],
        "float32[N, 5], rate=2 -> float32[N, 2]",
    ),
    "guarded": (Guarded(), [], "float32[N, 512], 16000 -> float32[N, 4]"),
    "halves": (HalvesMultiplied(), [], "float32[N, D%2==0] -> float32[N, D//2]"),
    "even_plus_odd": (EvenPlusOdd(), [], "float32[N, D%2==0] -> float32[N, D//2]"),
    "shuffled": (
        nn.PixelShuffle(2),
        [],
        "float32[N, C%4==0, H, W] -> float32[N, C//4, 2*H, 2*W]",
    ),
    "complex": (RealAndImaginary(), [], "complex64[N, D] -> float32[N, 2*D]"),
    "no_width": (NoWidth(), [], "float32[N, 0] -> float32[N, 3]"),
    "brain": (nn.Linear(10, 5).bfloat16(), [], "bfloat16[N, 10] -> bfloat16[N, 5]"),
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_contract_of_an_odd_model(composecli: Composecli, shelf: Shelf, name: str) -> None:
    module, words, contract = CONTRACTS[name]
    inspected = composecli.json("inspect", shelf.save(f"odd_{name}", module), *words)
    assert inspected.json["model"]["contract"]["text"] == contract


@pytest.mark.parametrize(
    ("producer", "consumer", "words", "inputs"),
    [
        (NoInput(), nn.Linear(5, 2), [], 0),
        (Named(), nn.Linear(5, 2), ["--select", "scale"], 1),
        (nn.Linear(10, 5), Masked(), [], 1),
        (Listed(), Gathered(), [], 1),
        (nn.Linear(10, 5), InPlace(), [], 1),
        (InPlace(), nn.Linear(5, 2), [], 1),
        (Weighted(), nn.Linear(4, 2), ["--input", "y=2,7", "--input", "x=2,5"], 2),
        (Rated(), nn.Linear(2, 3), ["--input", "float32[N,5]", "--input", "rate:=2"], 2),
        (nn.Linear(10, 5).bfloat16(), nn.Linear(5, 2), ["--bridge", "auto"], 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_odd_models_join(
    composecli: Composecli,
    shelf: Shelf,
    here: Path,
    producer: nn.Module,
    consumer: nn.Module,
    words: list[str],
    inputs: int,
) -> None:
    a, b = here / "a.pt", here / "b.pt"
    torch.jit.script(producer).save(str(a))
    torch.jit.script(consumer).save(str(b))
    joined = composecli("join", a, b, *words, "-o", "both.pt")
    assert joined.code == 0, joined.out + joined.err
    assert len(torch.jit.load("both.pt").forward.schema.arguments) == inputs + 1


@pytest.mark.parametrize(
    ("producer", "consumer", "code"),
    [
        (Nothing(), nn.Linear(5, 2), "CC102"),
        (Number(), nn.Linear(5, 2), "CC102"),
        (Scalar(), nn.Linear(5, 2), "CC202"),
        (nn.Linear(10, 5), Gathered(), "CC102"),
        (Spectrum(), nn.Linear(5, 2), "CC201"),
        (Listed(), nn.Linear(5, 2), "CC102"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_odd_models_that_do_not_fit(
    composecli: Composecli, here: Path, producer: nn.Module, consumer: nn.Module, code: str
) -> None:
    torch.jit.script(producer).save("a.pt")
    torch.jit.script(consumer).save("b.pt")
    checked = composecli.json("check", "a.pt", "b.pt")
    assert checked.code == 1
    assert checked.codes[0] == code


def test_sizes_that_broadcast_by_chance_do_not_decide(composecli: Composecli, shelf: Shelf) -> None:
    halves = shelf.save("halves", HalvesMultiplied())
    wide = shelf.save("ten_wide", nn.Linear(10, 5))
    checked = composecli.json("check", halves, wide)
    assert checked.code == 0
    assert checked.json["seams"][0]["when"] == ["D==20"]


def test_an_image_that_is_shuffled_fits_a_convolution(composecli: Composecli, shelf: Shelf) -> None:
    shuffled = shelf.save("shuffled", nn.PixelShuffle(2))
    convolution = shelf.save("convolution", nn.Conv2d(3, 8, 3, padding=1))
    checked = composecli.json("check", shuffled, convolution)
    assert checked.json["seams"][0]["when"] == ["C==12"]


def test_no_untrained_layer_has_no_columns(
    composecli: Composecli, shelf: Shelf, tmp_path: Path
) -> None:
    ten_to_five = shelf.save("ten_to_five", nn.Linear(10, 5))
    no_width = shelf.save("no_width", NoWidth())
    output = str(tmp_path / "both.pt")
    joined = composecli("join", ten_to_five, no_width, "--bridge", "linear", "-o", output)
    assert joined.code == 1
    assert "incompatible" in joined.out
    assert "help: composecli join" not in joined.out


class Sparse(nn.Module):
    """Holds a sparse parameter and returns a sparse tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(5).to_sparse())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sparse.mm(self.weight, x).to_sparse()


class Nested(nn.Module):
    """Returns a nested tensor, whose second axis has several sizes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nested.nested_tensor([x[0], x[0, :1]])


@pytest.mark.parametrize(("module", "stated"), [(Sparse(), "5,3"), (Nested(), "2,4")])
def test_tensors_without_plain_storage_or_sizes(
    composecli: Composecli, shelf: Shelf, here: Path, module: nn.Module, stated: str
) -> None:
    torch.save(module, "module.pt")
    inspected = composecli("inspect", "module.pt", "--trust", "module.pt", "--input", stated)
    assert inspected.code in (0, 3)
    checked = composecli(
        "check",
        "module.pt",
        shelf.save("five", nn.Linear(5, 2)),
        "--trust",
        "module.pt",
        "--input",
        stated,
    )
    assert checked.code in (1, 3)


def test_a_frozen_module_is_a_model(composecli: Composecli, shelf: Shelf, here: Path) -> None:
    """Freezing turns the weights into constants and removes the training mode."""
    module = nn.Sequential(nn.Linear(10, 5), nn.BatchNorm1d(5)).eval()
    torch.jit.freeze(torch.jit.script(module)).save("frozen.pt")
    five = shelf.save("five", nn.Linear(5, 2))
    inspected = composecli.json("inspect", "frozen.pt")
    assert inspected.json["model"]["contract"]["text"] == "float32[N, 10] -> float32[N, 5]"
    assert composecli("join", "frozen.pt", five, "-o", "both.pt").code == 0
    assert composecli("check", "frozen.pt", five, "--training", "train").code == 0


def test_a_quantised_module_joins_where_its_input_is_stated(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    with warnings.catch_warnings(action="ignore"):
        module = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(10, 5)), {nn.Linear}, torch.qint8
        )
    torch.jit.script(module).save("quantised.pt")
    joined = composecli(
        "join",
        "quantised.pt",
        shelf.save("five", nn.Linear(5, 2)),
        "--input",
        "float32[N,10]",
        "-o",
        "both.pt",
    )
    assert joined.code == 0, joined.out + joined.err
    assert torch.jit.load("both.pt")(torch.rand(3, 10)).shape == (3, 2)


def test_a_path_that_looks_like_a_factory_is_a_path(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    Path("net:make@w.pt").write_bytes(Path(shelf.save("linear", nn.Linear(10, 5))).read_bytes())
    assert composecli("inspect", "net:make@w.pt").code == 0


def test_one_of_several_outputs_is_inspected(composecli: Composecli, shelf: Shelf) -> None:
    path = shelf.save("odd_named", Named())
    assert "-> float32[N, 5]\n" in composecli("inspect", path, "--select", "mean").out
    refused = composecli("inspect", path, "--select", "nothing")
    assert refused.code == 3
    assert "CC103" in refused.err


def test_outputs_that_are_alike_are_counted(composecli: Composecli, shelf: Shelf) -> None:
    path = shelf.save("pieces", nn.Sequential(nn.Linear(3, 40), Pieces()))
    inspected = composecli("inspect", path)
    assert "N is kept apart on axis 0 of all 40 outputs" in inspected.out


def test_a_model_without_inputs_or_outputs_has_plain_evidence(
    composecli: Composecli, shelf: Shelf
) -> None:
    no_input = composecli("inspect", shelf.save("odd_no_input", NoInput()))
    assert "evidence: probed (cpu without an input)\n" in no_input.out
    nothing = composecli("inspect", shelf.save("odd_nothing", Nothing()))
    assert nothing.out.count("evidence:") == 1


class Defaults(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> defaultdict[str, torch.Tensor]:
        return defaultdict(list, y=self.fc(x))


class Numbered(Defaults):
    def forward(self, x: torch.Tensor) -> dict[int, torch.Tensor]:  # type: ignore[override]
        return {0: self.fc(x), 1: x}


class Powers(Defaults):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """The second size is an exponent, of a guard and of an output size."""
        if x.shape[0] % 2 ** y.shape[0] == 0:
            x = x + 1
        return self.fc(x).unsqueeze(1).expand(-1, 2 ** y.shape[0], -1)


@pytest.mark.parametrize(
    ("module", "selection"), [(Defaults, "y"), (Numbered, '["0"]'), (Numbered, "0")]
)
def test_an_exported_dict_of_another_kind_is_joined(
    installed: Installed, here: Path, module: type[nn.Module], selection: str
) -> None:
    sizes = ({0: torch.export.Dim("n")},)
    program = torch.export.export(module(), (torch.rand(2, 10),), dynamic_shapes=sizes)
    torch.export.save(program, "dicts.pt2")
    torch.jit.script(nn.Linear(5, 2)).save("after.pt")
    words = ("dicts.pt2", "after.pt", "--select", selection)
    ran = installed("join", *words, "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err
    assert torch.jit.load("both.pt")(torch.rand(3, 10)).shape == (3, 2)


def test_a_size_as_an_exponent_needs_no_trust(installed: Installed, here: Path) -> None:
    sizes = ({0: torch.export.Dim("n")}, {0: torch.export.Dim("m", max=20)})
    example = (torch.rand(8, 10), torch.rand(2))
    torch.export.save(torch.export.export(Powers(), example, dynamic_shapes=sizes), "powers.pt2")
    ran = installed("inspect", "powers.pt2")
    assert ran.code == 0, ran.err


class Keys(nn.Module):
    """Has keys beyond ASCII, and keys that need escapes in source code."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.fc(x)
        return {"größe": y, "数 1": y, 'a"\\b': y, "tab\t\x01\x7f": y, "😀": y}


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.größe = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.größe(x)


def _export(module: nn.Module, path: str) -> None:
    torch.export.save(torch.export.export(module, (torch.rand(2, 10),)), path)


KEYS: dict[str, Callable[[], object]] = {
    "scripted": lambda: torch.jit.script(Keys()).save("keys.pt"),
    "traced": lambda: torch.jit.trace(Keys(), torch.rand(2, 10), strict=False).save("keys.pt"),
    "exported": lambda: _export(Keys(), "keys.pt"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_beyond_ascii_are_joined(composecli: Composecli, here: Path, kind: str) -> None:
    KEYS[kind]()
    torch.jit.script(nn.Linear(5, 2)).save("after.pt")
    torch.jit.script(nn.Linear(3, 10)).save("before.pt")
    behind = composecli("join", "before.pt", "keys.pt", "-o", "both.pt")
    assert behind.code == 0, behind.out + behind.err
    result = torch.jit.load("both.pt")(torch.rand(2, 3))
    assert list(result) == list(Keys()(torch.rand(2, 10)))
    for port in ("größe", '["数 1"]', '["😀"]'):
        selected = ("--select", port, "--force", "-o", "both.pt")
        ran = composecli("join", "keys.pt", "after.pt", *selected)
        assert ran.code == 0, ran.out + ran.err
        assert torch.jit.load("both.pt")(torch.rand(2, 10)).shape == (2, 2)


def test_a_submodule_beyond_ascii_is_named(composecli: Composecli, here: Path) -> None:
    """PyTorch would write a file that it cannot load."""
    _export(Words(), "words.pt2")
    torch.jit.script(nn.Linear(5, 2)).save("after.pt")
    assert composecli("check", "words.pt2", "after.pt").code == 0
    ran = composecli("join", "words.pt2", "after.pt", "-o", "both.pt")
    assert ran.code == 3
    assert "with a name beyond ASCII: größe" in " ".join(ran.err.split())
    torch.jit.script(Words()).save("words.pt")
    refused = composecli("check", "words.pt", "after.pt")
    assert refused.code == 3


class Rows(nn.Module):
    def __init__(self, copies: int) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 5)
        self.copies = copies

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        rows: list[torch.Tensor] = []
        for row in self.fc(x):
            for _ in range(self.copies):
                rows.append(row)
        return rows


def test_very_many_outputs_are_refused_at_once(installed: Installed, here: Path) -> None:
    torch.jit.script(Rows(100_000)).save("many.pt")
    torch.jit.script(nn.Linear(3, 10)).save("before.pt")
    for words in (("inspect", "many.pt"), ("check", "before.pt", "many.pt")):
        ran = installed(*words)
        assert ran.code == 3
        assert "CC932" in ran.err
        assert "returns 200,000 tensors, and composecli describes up to 10,000" in " ".join(
            ran.err.split()
        )


def test_an_output_for_each_of_very_many_rows_is_no_reason_to_refuse(
    composecli: Composecli, here: Path
) -> None:
    torch.jit.script(Rows(1)).save("rows.pt")
    ran = composecli("inspect", "rows.pt", "--input", "float32[10001,10]")
    assert "CC932" not in ran.err


def test_a_length_that_must_be_a_square_is_not_fixed(installed: Installed, shelf: Shelf) -> None:
    path = shelf.save("odd_squared", Squared())
    contract = installed.json("inspect", path).json["model"]["contract"]
    assert contract["text"] == "float32[N, ?, 8] -> float32[N, 4, ?, ?]"
    shown = installed("inspect", path)
    assert "the sizes that it takes are squares; took 1, 4, 9; refused" in " ".join(
        shown.out.split()
    )


def test_channels_that_are_scaled_are_those_of_images(installed: Installed, shelf: Shelf) -> None:
    path = shelf.save("odd_scaled", ScaledChannels())
    contract = installed.json("inspect", path).json["model"]["contract"]
    assert contract["text"] == "float32[N, 8, H, W] -> float32[N, 8, H, W]"


def test_a_list_that_grows_with_its_input_says_so(installed: Installed, shelf: Shelf) -> None:
    path = shelf.save("odd_steps", Steps())
    shown = installed("inspect", path, "--input", "float32[N,T,8]")
    text = " ".join(shown.out.split())
    assert "[0] axis 0: the number of outputs changes with T: 8 at T = 8, 9 at T = 9" in text
