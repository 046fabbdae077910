"""Pickled modules of torch's own classes load without trust, pruned or in a wrapper, too."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from tests.commands.running import Composecli, Installed
from tests.safety.fixtures import Touch

pytestmark = pytest.mark.filterwarnings("ignore")


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def changed(change: Callable[[nn.Module], object]) -> nn.Module:
    """Return layers, the first of which is changed."""
    module = layers()
    change(module[0])
    return module


def pruned_twice(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", 0.5)
    prune.random_unstructured(layer, "weight", 0.2)
    prune.random_unstructured(layer, "bias", 0.2)


def tied() -> nn.Module:
    module = layers()
    module.append(nn.Linear(4, 8)).append(nn.Linear(8, 4))
    module[4].weight = module[2].weight
    return module


def used_twice() -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(8, 4))


def attention(activation: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=activation, batch_first=True)
    return nn.Sequential(nn.Unflatten(0, (1, -1)), layer, nn.Flatten(0, 1), nn.Linear(8, 4))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "pruned": lambda: changed(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "pruned twice": lambda: changed(pruned_twice),
    "pruned by a mask": lambda: changed(
        lambda layer: prune.custom_from_mask(layer, "weight", torch.ones(8, 8).tril())
    ),
    "old weight norm": lambda: changed(nn.utils.weight_norm),
    "old spectral norm": lambda: changed(nn.utils.spectral_norm),
    "a normed layer alone": lambda: nn.utils.weight_norm(nn.Linear(8, 4)),
    "DataParallel": lambda: nn.DataParallel(layers()),
    "AveragedModel": lambda: AveragedModel(layers()),
    "compiled": lambda: torch.compile(layers()),
    "compiled in parallel": lambda: nn.DataParallel(torch.compile(layers())),
    "torch.tanh": lambda: attention(torch.tanh),
    "torch.sigmoid": lambda: attention(torch.sigmoid),
    "a layer used twice": used_twice,
    "a deep copy": lambda: copy.deepcopy(used_twice()),
    "tied weights": tied,
}


@pytest.fixture
def behind(here: Path) -> Path:
    """A model that takes what the modules return."""
    torch.jit.script(nn.Linear(4, 2)).save("behind.pt")
    return Path("behind.pt")


def save(name: str) -> nn.Module:
    torch.manual_seed(1)
    module = MODULES[name]().eval()
    torch.save(module, "module.pt")
    return module


def assert_joined(module: nn.Module, behind: Path) -> None:
    both = torch.jit.load("both.pt")
    for rows in (2, 5):
        x = torch.rand(rows, 8)
        with torch.no_grad():
            expected = torch.jit.load(behind)(getattr(module, "_orig_mod", module)(x))
            torch.testing.assert_close(both(x), expected)


@pytest.mark.parametrize("name", MODULES)
def test_it_is_checked_and_joined_without_trust(
    composecli: Composecli, behind: Path, name: str
) -> None:
    module = save(name)
    checked = composecli("check", "module.pt", behind)
    assert checked.code == 0, checked.out + checked.err
    joined = composecli("join", "module.pt", behind, "-o", "both.pt")
    assert joined.code == 0, joined.out + joined.err
    if name != "compiled in parallel":
        assert_joined(module, behind)


@pytest.mark.parametrize("name", ["pruned twice", "old spectral norm", "compiled", "torch.tanh"])
def test_the_installed_command_joins_it_too(installed: Installed, behind: Path, name: str) -> None:
    module = save(name)
    joined = installed("join", "module.pt", behind, "-o", "both.pt")
    assert joined.code == 0, joined.out + joined.err
    assert_joined(module, behind)


def test_hooks_of_a_file_are_kept_whatever_their_numbers(installed: Installed, here: Path) -> None:
    """PyTorch numbers hooks from 0 in every process: those of a file and ours must not be mixed."""
    torch.jit.script(nn.Linear(4, 2)).save("behind.pt")
    module = nn.utils.weight_norm(nn.LSTM(8, 4, batch_first=True), "weight_hh_l0").eval()
    (hook,) = module._forward_pre_hooks.values()
    module._forward_pre_hooks.clear()
    module._forward_pre_hooks.update(dict.fromkeys(range(3), hook))
    torch.save(module, "module.pt")
    ran = installed("join", "module.pt", "behind.pt", "--select", "[0]", "-o", "both.pt")
    assert ran.code == 0, ran.out + ran.err


@pytest.mark.parametrize("options", [(), ("--trust", "module.pt")])
def test_a_module_in_a_wrapper_is_taken_out_of_it(
    installed: Installed, here: Path, options: tuple[str, ...]
) -> None:
    torch.save({"model": nn.DataParallel(layers()), "epoch": 3}, "module.pt")
    ran = installed("inspect", "module.pt", *options)
    assert ran.code == 0, ran.err
    assert "contract: float32[N, 8] -> float32[N, 4]" in ran.out
    assert "note: the module is taken out of its wrapper: module" in ran.out


def test_a_wrapper_with_a_hook_of_its_own_is_refused(installed: Installed, here: Path) -> None:
    marker = here / "marker"
    module = nn.DataParallel(layers())
    module._forward_pre_hooks[0] = Touch(marker)
    torch.save(module, "module.pt")
    ran = installed("inspect", "module.pt")
    assert ran.code == 3
    assert "CC909" in ran.err
    assert not marker.exists()


def test_a_hook_with_another_state_than_torchs_is_refused(installed: Installed, here: Path) -> None:
    marker = here / "marker"
    module = changed(nn.utils.weight_norm)
    (hook,) = module[0]._forward_pre_hooks.values()
    hook.compute_weight = Touch(marker)
    torch.save(module, "module.pt")
    ran = installed("inspect", "module.pt")
    assert ran.code == 3
    assert "CC909" in ran.err
    assert not marker.exists()


def test_a_file_that_torch_did_not_complete_is_told(composecli: Composecli, here: Path) -> None:
    """PyTorch refuses to pickle parametrizations, and leaves an archive behind."""
    module = changed(nn.utils.parametrizations.weight_norm)
    with pytest.raises(RuntimeError, match="state_dict"):
        torch.save(module, "module.pt")
    ran = composecli("inspect", "module.pt")
    assert ran.code == 3
    assert "torch.save did not complete it" in ran.err
