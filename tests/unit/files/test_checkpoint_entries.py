"""Where modules and state dicts are in a checkpoint."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import nn

from composecli.files.checkpoint_entries import (
    entry_at,
    find_modules,
    find_state_dicts,
    items_of,
)
from composecli.files.pickle import parse
from tests.unit.files.pickles import data_pkl

WEIGHTS = {"w": torch.ones(2)}


def value_of(value: Any) -> object:
    return parse(data_pkl(value)).value


def found_weights(value: Any) -> list[str]:
    return [entry.key for entry in find_state_dicts(value_of(value))]


def found_modules(value: Any) -> list[str]:
    return [entry.key for entry in find_modules(value_of(value))]


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        (WEIGHTS, [""]),
        ({"state_dict": WEIGHTS, "epoch": 3}, ["state_dict"]),
        ({"best": torch.ones(()), "model": WEIGHTS}, ["", "model"]),
        ({"a": {"b": dict(WEIGHTS)}, "c": WEIGHTS}, ["c", "a.b"]),
        ([WEIGHTS, 3], ["0"]),
        ({"optimizer": {"state": {0: WEIGHTS}}, "lr_scheduler": WEIGHTS}, []),
        ({0: WEIGHTS, True: 1}, ["0"]),
        ({0: WEIGHTS, "0": dict(WEIGHTS)}, ["[0]", "0"]),
        ({"adam": {"state": {0: WEIGHTS}, "param_groups": []}}, []),
        ({"optimizer_states": [WEIGHTS], "lr_schedulers": [WEIGHTS]}, []),
        ({"optimized_model": WEIGHTS}, ["optimized_model"]),
        ({"model": nn.Linear(2, 2)}, []),
    ],
)
def test_state_dicts_are_found_but_in_the_state_of_training(value: Any, keys: list[str]) -> None:
    assert found_weights(value) == keys


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ({"epoch": -1, "model": nn.Linear(2, 2), "ema": None}, ["model"]),
        ({"model": nn.Linear(2, 2), "ema": nn.Sequential(nn.ReLU())}, ["model", "ema"]),
        ({"model": nn.Linear(2, 2), "criterion": nn.CrossEntropyLoss()}, ["model"]),
        ({"state_dict": WEIGHTS, "hyper_parameters": {"loss": nn.MSELoss()}}, []),
        ({"checkpoint": [nn.Linear(2, 2)]}, ["checkpoint.0"]),
    ],
)
def test_modules_are_found_but_losses(value: Any, keys: list[str]) -> None:
    assert found_modules(value) == keys


def test_one_module_under_two_keys_is_found_once() -> None:
    module = nn.Linear(2, 2)
    assert found_modules({"model": module, "ema": module}) == ["model"]


@pytest.mark.parametrize("key", ["a.b", "a.b.c", "x.0"])
def test_a_dotted_key_leads_to_an_entry(key: str) -> None:
    value = value_of({"a": {"b.c": 1, "b": 2}, "x": [3]})
    entry = entry_at(value, key)
    assert entry is not None
    assert entry.node == {"a.b": 2, "a.b.c": 1, "x.0": 3}[key]
    assert entry_at(value, entry.key) == entry
    assert entry_at(value, f"{key}.absent") is None


def test_the_pairs_of_a_dict_of_python_2_are_read() -> None:
    pairs = b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01]q\x02(U\x01aK\x01ea\x85R."
    assert pickle.loads(pairs) == {"a": 1}
    assert items_of(parse(pairs).value) == [("a", 1)]


def test_dicts_that_contain_each_other_are_searched_once() -> None:
    value: Any = {"w": torch.ones(2)}
    value["self"] = value
    for _ in range(40):
        value = {"a": value, "b": value}
    assert found_weights(value) == []
