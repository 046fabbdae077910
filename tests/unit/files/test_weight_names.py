"""Names of weights are fitted to a module, and nothing is left out to make them fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.files.weight_names import (
    Candidate,
    choose,
    first_difference,
    fit_names,
    fitting_parts,
)

WANTED = {"0.weight": (3, 4), "0.bias": (3,), "1.fc.weight": (2, 3), "scale": ()}
WORDS = st.sampled_from(["fc", "0", "1", "encoder", "attn", "model", "net"])
NAMES = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
SIZES = st.lists(st.integers(1, 9), max_size=3).map(tuple)
MODULES = st.dictionaries(NAMES, SIZES, min_size=1, max_size=6)
WRAPPING = st.sampled_from(["module", "_orig_mod", "_fsdp_wrapped_module"])


def prefixed(prefix: str) -> dict[str, tuple[int, ...]]:
    return {prefix + name: sizes for name, sizes in WANTED.items()}


@given(MODULES, st.data())
def test_wrapping_words_anywhere_are_seen_through(
    wanted: dict[str, tuple[int, ...]], data: st.DataObject
) -> None:
    stored = dict[str, tuple[int, ...]]()
    names = dict[str, str]()
    for name, sizes in wanted.items():
        words = name.split(".")
        for word in data.draw(st.lists(WRAPPING, max_size=3)):
            words.insert(data.draw(st.integers(0, len(words) - 1)), word)
        stored[".".join(words)] = sizes
        names[".".join(words)] = name
    fit = fit_names(Candidate((), stored), wanted)
    assert fit.exact
    assert fit.renamed == names


@given(MODULES, st.data())
def test_a_weight_that_is_missing_or_has_other_sizes_never_fits(
    wanted: dict[str, tuple[int, ...]], data: st.DataObject
) -> None:
    stored = dict(wanted)
    changed = data.draw(st.sampled_from(sorted(wanted)))
    if data.draw(st.booleans()):
        del stored[changed]
    else:
        stored[changed] = (*wanted[changed], 2)
    assert not fit_names(Candidate((), stored), wanted).exact


@given(MODULES, NAMES)
def test_a_weight_too_many_never_fits(wanted: dict[str, tuple[int, ...]], name: str) -> None:
    stored = {**wanted, f"{name}.extra": (1,)}
    fit = fit_names(Candidate((), stored), wanted)
    assert not fit.exact
    assert not fit.left_out


@pytest.mark.parametrize("prefix", ["model.", "net.", "net.model.", "module.model._orig_mod."])
def test_the_attribute_of_a_training_class_is_stripped(prefix: str) -> None:
    fit = fit_names(Candidate((), prefixed(prefix)), WANTED)
    assert fit.exact
    assert set(fit.renamed.values()) == set(WANTED)


def test_a_prefix_that_not_all_weights_have_is_kept() -> None:
    stored = {**prefixed("model."), "head.weight": (2,)}
    fit = fit_names(Candidate((), stored), WANTED)
    assert not fit.matched
    assert list(fitting_parts(Candidate((), stored), WANTED)) == ["model"]


def test_the_words_of_wrappers_are_put_back_where_the_module_has_them() -> None:
    wanted = {"module.0.weight": (3,), "_orig_mod.1.weight": (2,)}
    fit = fit_names(Candidate((), {"0.weight": (3,), "module.1.weight": (2,)}), wanted)
    assert fit.exact
    assert fit.module_path("0") == "module.0"
    assert fit.module_path("module.1") == "_orig_mod.1"


def test_two_names_never_become_one() -> None:
    wanted = {"fc.weight": (2,)}
    fit = fit_names(Candidate((), {"fc.weight": (2,), "module.fc.weight": (2,)}), wanted)
    assert not fit.exact
    assert fit.renamed == {"fc.weight": "fc.weight", "module.fc.weight": "module.fc.weight"}


@pytest.mark.parametrize(
    ("name", "sizes", "is_left_out"),
    [
        ("n_averaged", (), True),
        ("best_val_loss", (), True),
        ("epoch", None, True),
        ("hyper_parameters", None, True),
        ("_extra_state", None, False),
        ("logit_scale", (), False),
        ("best_val_loss", (1,), False),
        ("loss.weight", (), False),
    ],
)
def test_only_numbers_of_the_training_are_left_out(
    name: str, sizes: tuple[int, ...] | None, is_left_out: bool
) -> None:
    fit = fit_names(Candidate((), {**prefixed("module."), name: sizes}), WANTED)
    assert fit.exact is is_left_out
    assert fit.left_out == (name,) * is_left_out


def test_a_number_that_the_module_has_is_a_weight() -> None:
    wanted = {**WANTED, "step": ()}
    fit = fit_names(Candidate((), wanted), wanted)
    assert fit.exact
    assert not fit.left_out


def test_the_loss_of_a_training_class_is_left_out() -> None:
    stored = {**prefixed("model."), "criterion.weight": (2,), "train_loss.total": ()}
    assert not fit_names(Candidate((), stored), WANTED).exact
    fit = fit_names(Candidate((), stored, beside_training=True), WANTED)
    assert fit.exact
    assert fit.left_out == ("criterion.weight", "train_loss.total")


def test_paths_of_submodules_lose_the_same_words() -> None:
    fit = fit_names(Candidate((), prefixed("module.model.")), WANTED)
    assert [fit.module_path(path) for path in ("", "module", "module.model.1.fc")] == [
        "",
        "",
        "1.fc",
    ]


def candidate(key: str, **changes: tuple[int, ...]) -> Candidate:
    return Candidate(tuple(key.split(".")), {**WANTED, **changes})


@pytest.mark.parametrize(
    ("candidates", "chosen", "rivals"),
    [
        (["ema", "model"], "model", ("ema",)),
        (["model", "state_dict"], "state_dict", ("model",)),
        (["ema.shadow"], "ema.shadow", ()),
    ],
)
def test_the_usual_entry_is_taken_of_several_that_fit(
    candidates: list[str], chosen: str, rivals: tuple[str, ...]
) -> None:
    choice = choose([candidate(key) for key in candidates], WANTED)
    assert choice is not None
    assert candidates[choice.place] == chosen
    assert choice.rivals == rivals


def test_none_is_taken_of_several_that_fit_if_no_name_is_usual() -> None:
    assert choose([candidate("netG_A"), candidate("netG_B")], WANTED) is None


def test_sizes_tell_apart_what_names_do_not() -> None:
    other = Candidate(("model",), {name: (9, *sizes) for name, sizes in WANTED.items()})
    choice = choose([other, candidate("generator")], WANTED)
    assert choice is not None
    assert choice.place == 1


@pytest.mark.parametrize(("held", "wanted"), [((), (2, 3)), ((2, 3), ())])
def test_a_number_in_place_of_a_matrix_is_said_to_be_one(
    held: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    candidate = Candidate(("ema",), {"weight": held})
    names = {"weight": wanted}
    said = first_difference(candidate, fit_names(candidate, names), names)
    assert said == f"its weight is {list(held)}, and {list(wanted)} in the module"
