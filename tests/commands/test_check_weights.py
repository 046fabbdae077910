"""Whether a checkpoint fits its code: the causes are named, and what would fit is tried."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests import networks_with_numbers
from tests.commands.running import Composecli, Installed

CODE = Path(networks_with_numbers.__file__).read_text()
NETWORKS = ("Convolutional", "Transformer", "Recurrent", "Residual", "Language")
State = dict[Any, Any]
Mutate = Callable[[str], State]


def made(name: str, **numbers: int) -> nn.Module:
    module: nn.Module = getattr(networks_with_numbers, name)(**numbers)
    return module


def state(name: str, **numbers: int) -> State:
    return dict(made(name, **numbers).state_dict())


def training(name: str) -> State:
    module = made(name)
    optimizer = torch.optim.AdamW(module.parameters())
    return {"state_dict": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}


def adapted(name: str) -> State:
    own = state(name)
    last = [key for key in own if key.endswith(".weight")][-1]
    part = last.removesuffix(".weight")
    tensor = own.pop(last)
    own[f"{part}.base_layer.weight"] = tensor
    own[f"{part}.lora_A.default.weight"] = torch.zeros(4, tensor.shape[1])
    own[f"{part}.lora_B.default.weight"] = torch.zeros(tensor.shape[0], 4)
    return own


def optimizer_alone(name: str) -> State:
    module = made(name)
    return dict(torch.optim.SGD(module.parameters(), momentum=0.9).state_dict())


def quantized(name: str) -> State:
    own = state(name)
    last = [key for key in own if key.endswith(".weight")][-1]
    part = last.removesuffix(".weight")
    del own[last]
    own[f"{part}.qweight"] = torch.zeros(4, 4, dtype=torch.int32)
    own[f"{part}.scales"] = torch.zeros(4)
    return own


FITTING: dict[str, Mutate] = {
    "as it is": state,
    "of DataParallel": lambda name: {f"module.{key}": value for key, value in state(name).items()},
    "of torch.compile": lambda name: {
        f"_orig_mod.{key}": value for key, value in state(name).items()
    },
    "of a training": training,
    "an average beside another model": lambda name: {
        "model": nn.Linear(2, 3).state_dict(),
        "ema": state(name),
    },
    "half precision": lambda name: {key: value.half() for key, value in state(name).items()},
}
MISFITS: dict[str, tuple[Mutate, str, str | None]] = {
    "classes": (lambda name: state(name, classes=7), "outputs or rows", "(classes=7)"),
    "depth": (lambda name: state(name, depth=5), "another depth", "(depth=5)"),
    "less depth": (lambda name: state(name, depth=2), "another depth", "(depth=2)"),
    "width": (lambda name: state(name, width=64), "another width", "(width=64)"),
    "depth and classes": (
        lambda name: state(name, depth=4, classes=7), "another depth", "(depth=4, classes=7)",
    ),
    "a prefix": (
        lambda name: {f"encoder.{key}": value for key, value in state(name).items()},
        "another prefix",
        None,
    ),
    "adapters": (adapted, "adapters of LoRA", None),
    "another architecture": (
        lambda _name: dict(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 3)).state_dict()),
        "another architecture",
        None,
    ),
    "a key that is no text": (
        lambda name: state(name) | {("a", 1): torch.zeros(2)},
        "keys that are not text",
        None,
    ),
    "an optimizer alone": (optimizer_alone, "no weights, but the state of an optimizer", None),
    "quantized": (quantized, "quantized weights", None),
    "a scale of its own": (
        lambda name: state(name) | {"scale": torch.zeros(1)}, "other parts in scale", None,
    ),
}  # fmt: skip


@pytest.fixture
def code(here: Path) -> Path:
    """Write the code of the networks to the current folder."""
    (here / "net.py").write_text(CODE)
    return here


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("case", FITTING)
def test_weights_that_fit_are_said_to_fit(
    case: str, name: str, composecli: Composecli, code: Path
) -> None:
    torch.save(FITTING[case](name), code / "w.pt")
    ran = composecli.json("check", f"net.py:{name}@w.pt")
    assert (ran.code, ran.json["fits"], ran.json["misfit"]) == (0, True, None)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("case", MISFITS)
def test_the_cause_of_a_misfit_is_named_and_the_fix_works(
    case: str, name: str, composecli: Composecli, code: Path
) -> None:
    mutate, cause, call = MISFITS[case]
    torch.save(mutate(name), code / "w.pt")
    ran = composecli.json("check", f"net.py:{name}@w.pt")
    assert (ran.code, ran.json["fits"]) == (1, False)
    assert cause in ran.json["misfit"]["title"]
    if call is None:
        return
    fix = ran.json["misfit"]["help"][0]
    assert f"net.py:{name}{call}@w.pt" in fix
    _, *words = shlex.split(fix)
    assert composecli(*words).code == 0


def test_a_cast_of_the_weights_is_told(installed: Installed, code: Path) -> None:
    torch.save({key: value.half() for key, value in state("Residual").items()}, code / "w.pt")
    ran = installed("check", "net.py:Residual@w.pt")
    assert ran.code == 0
    assert "are float16 in the file and float32 in the module" in " ".join(ran.out.split())


def test_a_scale_and_a_zero_point_together_are_those_of_a_quantized_layer(
    composecli: Composecli, code: Path
) -> None:
    more = {"head.scale": torch.zeros(1), "head.zero_point": torch.zeros(1)}
    torch.save(state("Residual") | more, code / "w.pt")
    assert "quantized weights" in composecli("check", "net.py:Residual@w.pt").out


def test_the_numbers_that_the_call_gives_are_changed(composecli: Composecli, code: Path) -> None:
    torch.save(state("Residual", classes=3, width=16), code / "w.pt")
    ran = composecli.json("check", "net.py:Residual(10, width=8)@w.pt")
    assert "'net.py:Residual(3, width=16)@w.pt'" in ran.json["misfit"]["help"][0]


def test_the_installed_command_says_it_on_a_screen(installed: Installed, code: Path) -> None:
    torch.save(state("Recurrent", classes=7), code / "w.pt")
    ran = installed("check", "net.py:Recurrent@w.pt")
    assert ran.code == 1
    assert ran.out.endswith("verdict: the weights do not fit\n")
    assert "head" in ran.out
    torch.save(state("Recurrent"), code / "w.pt")
    fits = installed("check", "net.py:Recurrent@w.pt")
    assert fits.code == 0
    assert fits.out.endswith("verdict: the weights fit\n")
    assert (
        installed("check", "net.py:Recurrent@w.pt", "--quiet").out == "verdict: the weights fit\n"
    )


def test_names_of_a_tied_tensor_that_the_file_lacks_are_filled(
    installed: Installed, code: Path
) -> None:
    weights = state("Language")
    del weights["lm_head.weight"]
    torch.save(weights, code / "w.pt")
    ran = installed("inspect", "net.py:Language@w.pt")
    assert ran.code == 0
    assert "lm_head.weight is the same tensor as wte.weight" in " ".join(ran.out.split())


@pytest.mark.parametrize("model", ["net.py:Language", "w.pt", "missing.pt"])
def test_a_single_model_without_weights_of_its_own_is_a_usage_error(
    model: str, composecli: Composecli, code: Path
) -> None:
    torch.save(state("Language"), code / "w.pt")
    ran = composecli("check", model)
    assert ran.code == 2
    assert "composecli inspect MODEL" in ran.err


LAZY = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.inner = nn.LazyLinear(6)
        self.head = nn.Linear(6, classes)
"""


@pytest.mark.parametrize(("classes", "code"), [(3, 0), (5, 1)])
def test_a_lazy_layer_takes_the_sizes_of_its_weights(
    classes: int, code: int, composecli: Composecli, tmp_path: Path
) -> None:
    (tmp_path / "lazy_net.py").write_text(LAZY)
    inner, head = nn.Linear(4, 6).state_dict(), nn.Linear(6, classes).state_dict()
    weights = {f"inner.{name}": value for name, value in inner.items()}
    weights |= {f"head.{name}": value for name, value in head.items()}
    torch.save(weights, tmp_path / "weights.pt")
    ran = composecli("check", f"{tmp_path}/lazy_net.py:Net@{tmp_path}/weights.pt")
    assert ran.code == code, ran.err
