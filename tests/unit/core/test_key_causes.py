"""Causes: every difference between names and sizes has one, and the sides are told apart."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from composecli.core.key_causes import CauseKind, KeyDifferences, find_causes


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
