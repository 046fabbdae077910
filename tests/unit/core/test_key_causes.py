"""Causes: why weights do not fit, from names and sizes alone."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from composecli.core.key_causes import CauseKind, KeyDifferences, find_causes
from tests.networks_with_numbers import (
    Convolutional,
    Language,
    Recurrent,
    Residual,
    Transformer,
)

Build = Callable[..., nn.Module]
BUILDERS: tuple[Build, ...] = (Convolutional, Transformer, Recurrent, Residual, Language)
Sizes = dict[str, tuple[int, ...] | None]
Mutate = Callable[[Build], Sizes]


def sizes(module: nn.Module) -> Sizes:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def prefixed(build: Build) -> Sizes:
    return {f"backbone.{name}": value for name, value in sizes(build()).items()}


def adapted(build: Build) -> Sizes:
    found = Sizes()
    for name, value in sizes(build()).items():
        part, _, last = name.rpartition(".")
        if last == "weight" and value is not None and len(value) == 2:
            found[f"{part}.base_layer.weight"] = value
            found[f"{part}.lora_A.default.weight"] = (8, value[1])
            found[f"{part}.lora_B.default.weight"] = (value[0], 8)
        elif f"{part}.base_layer.weight" in found and last == "bias":
            found[f"{part}.base_layer.bias"] = value
        else:
            found[name] = value
    return found


def quantized(build: Build) -> Sizes:
    found = Sizes()
    for name, value in sizes(build()).items():
        part, _, last = name.rpartition(".")
        if last == "weight" and value is not None and len(value) == 2:
            found[f"{part}.qweight"] = (value[1] // 8, value[0])
            found[f"{part}.scales"] = (1, value[0])
            found[f"{part}.qzeros"] = (1, value[0] // 8)
        else:
            found[name] = value
    return found


def without_head(build: Build) -> Sizes:
    own = sizes(build())
    last = list(own)[-1].rpartition(".")[0]
    return {name: value for name, value in own.items() if not name.startswith(f"{last}.")}


def other(_build: Build) -> Sizes:
    return sizes(nn.ModuleDict({"features": nn.Conv2d(1, 2, 3), "classifier": nn.Linear(4, 5)}))


MUTATIONS: dict[str, tuple[CauseKind, Mutate]] = {
    "prefix": (CauseKind.PREFIX, prefixed),
    "classes": (CauseKind.CLASSES, lambda build: sizes(build(classes=7))),
    "width": (CauseKind.WIDTH, lambda build: sizes(build(width=64))),
    "adapters": (CauseKind.ADAPTERS, adapted),
    "quantized": (CauseKind.QUANTIZED, quantized),
    "another architecture": (CauseKind.ARCHITECTURE, other),
}


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_cause_is_named(mutation: str, build: Build) -> None:
    kind, mutate = MUTATIONS[mutation]
    causes = find_causes(KeyDifferences(sizes(build()), mutate(build)))
    assert causes[0].kind is kind, causes
    assert len(causes) == 1 or kind is CauseKind.WIDTH, causes


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("depth", [2, 5])
def test_another_depth_is_named_with_its_container(build: Build, depth: int) -> None:
    causes = find_causes(KeyDifferences(sizes(build()), sizes(build(depth=depth))))
    assert {cause.kind for cause in causes} == {CauseKind.DEPTH}
    assert all(f"{depth} parts in the file, and 3 in the module" in cause.text for cause in causes)
    assert causes[0].change == (3, depth)


@pytest.mark.parametrize("build", BUILDERS)
def test_a_part_that_the_file_lacks_is_named(build: Build) -> None:
    (cause,) = find_causes(KeyDifferences(sizes(build()), without_head(build)))
    assert cause.kind is CauseKind.PART
    assert "the file lacks" in cause.text


@pytest.mark.parametrize("build", BUILDERS)
def test_several_causes_are_all_named(build: Build) -> None:
    causes = find_causes(KeyDifferences(sizes(build()), sizes(build(classes=7, depth=4))))
    assert {cause.kind for cause in causes} == {CauseKind.DEPTH, CauseKind.CLASSES}


def test_tied_weights_are_named() -> None:
    module = {"wte.weight": (9, 4), "lm_head.weight": (9, 4)}
    keys = KeyDifferences(module, {"wte.weight": (9, 4)})
    (cause,) = find_causes(keys, [("wte.weight", "lm_head.weight")])
    assert cause.kind is CauseKind.TIED
    assert cause.text.startswith("lm_head.weight of the module is the same tensor as wte.weight")


NAMES = st.lists(
    st.lists(st.sampled_from(("a", "b", "0", "1", "weight", "lora_A")), min_size=1, max_size=4),
    max_size=8,
).map(lambda lists: [".".join(words) for words in lists])
SIZES = st.one_of(st.none(), st.lists(st.integers(0, 3), max_size=3).map(tuple))


@given(st.data(), NAMES, NAMES)
def test_every_difference_has_a_cause(
    data: st.DataObject, ours: list[str], theirs: list[str]
) -> None:
    module = {name: data.draw(SIZES) for name in ours}
    file = {name: data.draw(SIZES) for name in theirs}
    keys = KeyDifferences(module, file)
    differ = bool(keys.missing or keys.unexpected or keys.resized)
    assert bool(find_causes(keys)) == differ


def test_a_name_may_have_a_word_of_many_digits() -> None:
    name = f"layers.{'9' * 5000}.weight"
    keys = KeyDifferences({"layers.0.weight": (2,)}, {"layers.0.weight": (2,), name: (2,)})
    (cause,) = find_causes(keys)
    assert cause.kind is CauseKind.PART


def test_causes_of_very_many_names_are_found_in_time() -> None:
    layers = [f"layers.{number}.q" for number in range(20_000)]
    module = {f"{layer}.weight": (4, 4) for layer in layers}
    file = {f"{layer}.base_layer.weight": (4, 4) for layer in layers}
    file |= {f"{layer}.lora_A.weight": (2, 4) for layer in layers}
    started = time.monotonic()
    (cause,) = find_causes(KeyDifferences(module, file))
    assert cause.kind is CauseKind.ADAPTERS
    tied = module | {f"{layer}.tied": (4, 4) for layer in layers}
    shared = [(f"{layer}.weight", f"{layer}.tied") for layer in layers]
    assert len(find_causes(KeyDifferences(tied, module), shared)) == len(layers)
    # A search of all names for each of them takes minutes.
    assert time.monotonic() - started < 30
