"""Weights are found in every layout of a checkpoint, and never those of another network."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt
from composecli.core.model_ref import FactoryReference, ModelKind
from composecli.core.rules import Rule
from composecli.runtime.loading import load, load_whole, with_values
from composecli.workers.protocol import OpenRequest, Training
from tests.checkpoints import (
    FOREIGN_MODULE,
    LAYOUTS,
    NAMES,
    NETWORKS,
    OLD_FORMAT,
    PICKLED_NAMES,
    WHOLE_LAYOUTS,
    foreign_classes,
)
from tests.unit.runtime.opening import same_state, state

# How torch.save writes a file: the zip format, its newer pickles, and the old format.
FORMS: dict[str, dict[str, Any]] = {
    "zip": {},
    "protocol 5": {"pickle_protocol": 5},
    "old": OLD_FORMAT,
}
NEARLY = {name: [f"narrow_{name}"] for name in NAMES}
NEARLY["mlp"] += ["deep_mlp", "shallow_mlp"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("networks") / "networks.py"
    path.write_text(NETWORKS)
    return path


def made(networks: Path, name: str) -> nn.Module:
    """Return a network with its own values, which differ in every tensor."""
    names: dict[str, Any] = {"__name__": "networks"}
    exec(networks.read_text(), names)  # noqa: S102
    torch.manual_seed(3)
    module: nn.Module = names[name]()
    with torch.no_grad():
        for number, tensor in enumerate(module.state_dict().values()):
            tensor.copy_(torch.rand(tensor.shape) + number)
    return module


def save(path: Path, module: nn.Module, layout: str, **options: Any) -> None:
    with foreign_classes() as (own, own_dict):
        layouts = {**LAYOUTS, **WHOLE_LAYOUTS}
        torch.save(layouts[layout](module, own, own_dict), path, **options)


def request(networks: Path, factory: str, path: Path, key: str | None = None) -> OpenRequest:
    reference = FactoryReference(str(networks), factory, str(path))
    return OpenRequest(reference, ModelKind.FACTORY, "cpu", Training.SAVED, trusted=False, key=key)


def _all_pairs() -> Iterator[tuple[str, str]]:
    """Yield every network with every layout that it can be saved in."""
    for names, layouts in ((NAMES, LAYOUTS), (PICKLED_NAMES, WHOLE_LAYOUTS)):
        for layout in layouts:
            yield from ((name, layout) for name in names)


def _cases() -> Iterator[tuple[str, str, str]]:
    """Yield every layout of every network, each in another form than its neighbours."""
    forms = itertools.cycle(FORMS)
    for (name, layout), form in zip(_all_pairs(), forms, strict=False):
        yield name, layout, form


def _others() -> Iterator[tuple[str, str]]:
    """Yield every other network with every layout."""
    yield from itertools.islice(_all_pairs(), 0, None, 2)


@pytest.mark.parametrize(("name", "layout", "form"), list(_cases()))
def test_the_weights_are_found_and_have_their_values(
    networks: Path, tmp_path: Path, name: str, layout: str, form: str
) -> None:
    module = made(networks, name)
    expected = {key: value.clone() for key, value in module.state_dict().items()}
    path = tmp_path / "weights.pt"
    save(path, module, layout, **FORMS[form])
    asked = request(networks, name, path)
    assert same_state(state(with_values(load(asked))), expected)
    assert same_state(state(load_whole(asked)), expected)
    assert FOREIGN_MODULE not in sys.modules


@pytest.mark.parametrize(("name", "layout"), list(_others()))
def test_they_are_not_loaded_into_another_network(
    networks: Path, tmp_path: Path, name: str, layout: str
) -> None:
    path = tmp_path / "weights.pt"
    save(path, made(networks, name), layout)
    for other in itertools.chain(NEARLY[name], set(NAMES) - {name}):
        with pytest.raises(CouldNotAttempt) as raised:
            load(request(networks, other, path))
        assert raised.value.problem.rule is Rule.KEYS_DO_NOT_FIT
