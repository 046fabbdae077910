"""The files that are loaded, those that are refused, and the messages."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.commands.running import Composecli
from tests.models import Shelf

FACTORY = """
    from torch import nn

    def make():
        return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 5))

    def broken():
        raise RuntimeError("no such checkpoint")

    def number():
        return 3

    def needs(width):
        return nn.Linear(width, 1)
"""


@pytest.fixture
def module(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[nn.Module]:
    """The module that the factory `net.py:make` makes, in the working directory."""
    import sys

    Path("net.py").write_text(textwrap.dedent(FACTORY))
    monkeypatch.syspath_prepend(str(here))
    # Another test may have imported a file of this name.
    sys.modules.pop("net", None)
    yield nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 5))
    sys.modules.pop("net", None)


def five(shelf: Shelf) -> str:
    return shelf.save("five", nn.Linear(5, 2))


def test_a_factory_and_its_weights_are_a_model(
    composecli: Composecli, shelf: Shelf, module: nn.Module
) -> None:
    torch.save(module.state_dict(), "w.pt")
    for name in ("net:make@w.pt", "net.py:make@w.pt"):
        assert composecli("check", name, five(shelf)).code == 0
        joined = composecli("join", name, five(shelf), "-o", "both.pt", "--force")
        assert joined.code == 0, joined.err
    x = torch.rand(2, 10)
    by_hand = torch.jit.load(five(shelf))(module(x))
    torch.testing.assert_close(torch.jit.load("both.pt")(x), by_hand)


@pytest.mark.parametrize("wrapped", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_and_prefixes_are_seen_through(
    composecli: Composecli, shelf: Shelf, module: nn.Module, wrapped: str, prefix: str
) -> None:
    state = {prefix + name: value for name, value in module.state_dict().items()}
    torch.save({wrapped: state, "epoch": 3}, "w.pt")
    assert composecli("check", "net:make@w.pt", five(shelf)).code == 0


def test_key_selects_the_entry_with_the_weights(
    composecli: Composecli, shelf: Shelf, module: nn.Module
) -> None:
    other = {name: value[:1] for name, value in module.state_dict().items()}
    torch.save({"model": other, "ema": {"shadow": module.state_dict()}}, "w.pt")
    refused = composecli("check", "net:make@w.pt", five(shelf), "--key", "model")
    assert refused.code == 3
    assert "resized     0.weight  [1, 10] in the file, [16, 10] in the module" in refused.err
    assert composecli("check", "net:make@w.pt", five(shelf), "--key", "ema.shadow").code == 0
    chosen = composecli("inspect", "net:make@w.pt")
    assert "note: the weights are the entry ema.shadow of the checkpoint" in chosen.out
    missing = composecli("check", "net:make@w.pt", five(shelf), "--key", "nothing")
    assert missing.code == 3
    assert "available keys: model, ema" in missing.err


def test_keys_that_do_not_fit_come_as_a_table(
    composecli: Composecli, shelf: Shelf, module: nn.Module
) -> None:
    state = module.state_dict()
    state["extra"] = state.pop("2.bias")
    torch.save(state, "w.pt")
    refused = composecli("check", "net:make@w.pt", five(shelf))
    assert refused.code == 3
    assert "1 missing, 1 unexpected and 0 resized keys" in refused.err
    assert "missing     2.bias  [5]" in refused.err
    assert "unexpected  extra" in refused.err


def test_safetensors_are_read(composecli: Composecli, shelf: Shelf, module: nn.Module) -> None:
    save_file(module.state_dict(), "w.safetensors")
    assert composecli("check", "net:make@w.safetensors", five(shelf)).code == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net:broken@w.pt", "RuntimeError: no such checkpoint"),
        ("net:number@w.pt", "returned a int, not a module"),
        ("net:needs@w.pt", "missing 1 required positional argument"),
        ("net:nothing@w.pt", "has no attribute 'nothing'"),
        ("nowhere.at.all:make@w.pt", "No module named 'nowhere'"),
        ("nowhere.py:make@w.pt", "there is no file nowhere.py"),
    ],
)
def test_a_failing_factory_is_a_problem(
    composecli: Composecli, shelf: Shelf, module: nn.Module, name: str, words: str
) -> None:
    torch.save(module.state_dict(), "w.pt")
    refused = composecli("check", name, five(shelf))
    assert refused.code == 3
    assert "CC914" in refused.err
    assert words in refused.err


def test_weights_alone_ask_for_a_factory(
    composecli: Composecli, shelf: Shelf, module: nn.Module
) -> None:
    torch.save(module.state_dict(), "w.pt")
    refused = composecli("check", "w.pt", five(shelf))
    assert refused.code == 3
    assert "CC907" in refused.err
    assert "package.module:factory@w.pt" in refused.err


def test_a_whole_model_is_not_accepted_as_weights(
    composecli: Composecli, shelf: Shelf, module: nn.Module
) -> None:
    refused = composecli("check", f"net:make@{five(shelf)}", five(shelf))
    assert refused.code == 3
    assert "a whole model (TorchScript archive), not weights" in refused.err


class Own(nn.Linear):
    """A class outside torch.nn."""


def test_imports_of_a_pickle_are_listed_and_refused(composecli: Composecli, shelf: Shelf) -> None:
    own = shelf.save("own", Own(10, 5), "pickled")
    refused = composecli("check", own, five(shelf))
    assert refused.code == 3
    assert "CC909" in refused.err
    assert "it would import tests.commands.test_loading.Own" in refused.err
    assert "--trust" in refused.err
    assert composecli("check", own, five(shelf), "--trust", own).code == 0


def test_hooks_are_refused_with_the_reason(composecli: Composecli, shelf: Shelf) -> None:
    module = nn.Sequential(nn.Linear(10, 5))
    module[0].register_forward_hook(_double)
    hooked = shelf.save("hooked", module, "pickled")
    refused = composecli("check", hooked, five(shelf))
    assert refused.code == 3
    assert "_double" in refused.err
    assert composecli("check", hooked, five(shelf), "--trust", hooked).code == 0

    shadowed = nn.Linear(10, 5)
    shadowed.__dict__["forward"] = nn.Identity()
    refused = composecli("check", shelf.save("shadowed", shadowed, "pickled"), five(shelf))
    assert refused.code == 3
    assert "CC910" in refused.err
    assert "forward is overridden" in refused.err


def _double(module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
    return output * 2


@pytest.mark.parametrize(
    "module",
    [
        nn.Transformer(8, 2, 1, 1, 8),
        nn.TransformerEncoderLayer(8, 2, activation="gelu"),
        nn.LSTM(8, 4),
        nn.MultiheadAttention(8, 2),
        nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(),
        ),
        nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4), nn.Softmax(-1)).double(),
        nn.Bilinear(3, 4, 2),
    ],
    ids=lambda module: type(module).__name__,
)
def test_torch_nn_loads_without_trust(
    composecli: Composecli, shelf: Shelf, module: nn.Module
) -> None:
    path = shelf.folder / f"plain_{type(module).__name__}.pt"
    torch.save(module, path)
    inspected = composecli("inspect", path)
    assert "error" not in inspected.err
    assert inspected.code in (0, 3)
    assert "parameters:" in inspected.out


def test_a_missing_device_is_a_problem(composecli: Composecli, shelf: Shelf) -> None:
    refused = composecli("check", five(shelf), five(shelf), "--device", "cuda:7")
    assert refused.code == 3
    assert "CC915" in refused.err


@pytest.mark.parametrize("sample", [b"nothing", None])
def test_an_unreadable_sample_is_a_problem(
    composecli: Composecli, shelf: Shelf, here: Path, sample: bytes | None
) -> None:
    if sample is not None:
        Path("sample.pt").write_bytes(sample)
    refused = composecli("check", five(shelf), five(shelf), "--input", "@sample.pt")
    assert refused.code == 3
    assert "CC925" in refused.err


def test_a_problem_has_a_json_report(composecli: Composecli, shelf: Shelf) -> None:
    refused = composecli.json("check", "nothing.pt", five(shelf))
    assert refused.code == 3
    assert refused.json["exit_code"] == 3
    assert refused.json["error"]["code"] == "CC901"
