"""The findings of check at a seam, and its exit codes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli, Installed
from tests.models import (
    Argmax,
    Biased,
    Deep,
    DictOutput,
    Ids,
    NanCheck,
    Shelf,
    encoder,
)


def test_a_failure_inside_a_model_names_the_submodule_and_the_op(
    composecli: Composecli, shelf: Shelf
) -> None:
    a = shelf.save("linear", nn.Linear(10, 5))
    for form in ("scripted", "pickled"):
        path = shelf.save("deep_7", Deep(7), form)
        checked = composecli.json(
            "check", a, path, *(["--trust", path] if form == "pickled" else [])
        )
        assert checked.code == 1
        (finding,) = checked.json["seams"][0]["findings"]
        assert finding["code"] == "CC203"
        assert "fc1 (aten::addmm)" in finding["notes"][0]
        assert "float32[2, 8]" in finding["notes"][0]
        assert "float32[7, 2]" in finding["notes"][0]


def test_every_difference_is_found_and_not_just_the_first(
    composecli: Composecli, shelf: Shelf
) -> None:
    a = shelf.save("double", nn.Conv2d(3, 8, 3, padding=1).double())
    b = shelf.save("conv_4", nn.Conv2d(4, 2, 3))
    # CC205 says from which height and width on the bridge fits.
    assert composecli.json("check", a, b).codes == ["CC201", "CC203", "CC205"]


def test_a_seam_that_only_broadcasts_is_not_compatible(
    composecli: Composecli, shelf: Shelf
) -> None:
    a, b = shelf.save("one_wide", nn.Linear(10, 1)), shelf.save("biased", Biased())
    checked = composecli.json("check", a, b)
    assert checked.code == 3
    assert checked.codes == ["CC208"]


def test_a_refusal_of_values_is_not_a_mismatch(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("nan_check", NanCheck(), "pickled")
    checked = composecli.json("check", a, b, "--trust", a, "--trust", b)
    assert checked.code == 3
    assert checked.codes == ["CC302"]


def test_ids_without_a_row_in_the_table_do_not_fit(composecli: Composecli, shelf: Shelf) -> None:
    a, b = (
        shelf.save("ids", Ids(), "traced", (torch.rand(2, 4),)),
        shelf.save("vocabulary_5", nn.Embedding(5, 3)),
    )
    checked = composecli.json("check", a, b)
    assert checked.code == 1
    assert checked.codes == ["CC311"]


def test_other_sizes_are_a_condition_and_with_strict_an_error(
    composecli: Composecli, shelf: Shelf
) -> None:
    a, b = (
        shelf.save("encoder", encoder()),
        shelf.save("flat", nn.Sequential(nn.Flatten(), nn.Linear(1024, 3))),
    )
    checked = composecli.json("check", a, b, "--input", "1,3,32,32")
    assert checked.code == 0
    strict = composecli.json("check", a, b, "--input", "1,3,32,32", "--strict")
    assert strict.code == 1
    assert strict.codes == ["CC206"]


def test_strict_passes_if_every_size_fits(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    assert composecli("check", a, b, "--strict").code == 0


def test_a_batch_of_one_in_train_mode_suggests_eval_mode(
    composecli: Composecli, shelf: Shelf
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("norm", nn.BatchNorm1d(5))
    checked = composecli.json("check", a, b, "--input", "1,10")
    assert checked.code == 1
    notes = [note for finding in checked.json["seams"][0]["findings"] for note in finding["notes"]]
    assert any("--training eval" in note for note in notes)
    assert composecli("check", a, b, "--input", "1,10", "--training", "eval").code == 0
    assert composecli("check", a, b, "--input", "4,10").code == 0


def test_unknown_never_exits_with_0(composecli: Composecli, shelf: Shelf) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dim() == 3
            assert x.size(1) == 17
            return x

    a, b = shelf.save("odd", Odd()), shelf.save("relu", nn.ReLU())
    checked = composecli.json("check", a, b)
    assert checked.code == 3
    assert checked.codes[0] == "CC304"
    assert "--input" in checked.json["seams"][0]["findings"][0]["help"][0]
    assert composecli("check", a, b, "--input", "2,17,4").code in (0, 2, 3)
    assert composecli("check", a, b, "--input", "float32[N,17,4]").code == 0


class Never(nn.Module):
    """Accepts no input that a search could find."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.size(0) == 17
        assert x.size(1) == 1234
        return x


@pytest.mark.parametrize("mode", ["sequential", "parallel", "pairs"])
def test_a_model_that_no_input_runs_is_unknown_on_either_side(
    composecli: Composecli, shelf: Shelf, mode: str
) -> None:
    never, other = shelf.save("never", Never()), shelf.save("linear", nn.Linear(10, 5))
    for pair in ((never, other), (other, never)):
        checked = composecli.json("check", *pair, "--mode", mode)
        assert checked.code == 3
        assert set(checked.codes) == {"CC304"}


def test_a_stated_input_that_the_first_model_refuses_is_an_answer(
    installed: Installed, shelf: Shelf
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    for mode in ("sequential", "parallel"):
        checked = installed.json("check", a, b, "--input", "2,11", "--mode", mode)
        assert (checked.code, checked.json["verdict"]) == (1, "incompatible")
    assert checked.codes[0] == "CC310"


@pytest.mark.parametrize("port", ["nothing", "2:logits", "7:logits", "[4]"])
@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_a_missing_output_cannot_be_selected(
    composecli: Composecli, shelf: Shelf, port: str, mode: str
) -> None:
    a, b = shelf.save("dict", DictOutput()), shelf.save("five", nn.Linear(5, 2))
    if mode == "parallel":
        b = shelf.save("linear", nn.Linear(10, 5))
    checked = composecli.json("check", a, b, "--select", port, "--mode", mode)
    assert checked.code == 1
    assert checked.codes == ["CC103"]


def test_an_argmax_at_the_seam_is_compatible_with_ids(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("argmax", Argmax()), shelf.save("vocabulary_9", nn.Embedding(9, 3))
    assert composecli("check", a, b, "--input", "2,5").code == 0


def test_the_ranges_of_an_exported_consumer_are_a_condition(
    composecli: Composecli, shelf: Shelf
) -> None:
    path = shelf.folder / "at_most_64.pt2"
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(
        nn.Linear(10, 5), (torch.rand(2, 10),), dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, path)
    a = shelf.save("ten", nn.Linear(4, 10))
    checked = composecli.json("check", a, path)
    assert (checked.code, checked.codes) == (0, ["CC205"])
    assert checked.json["seams"][0]["findings"][0]["title"] == "compatible when N<=64"
    strict = composecli.json("check", a, path, "--strict")
    assert (strict.code, strict.codes) == (1, ["CC206"])
    outside = composecli.json("check", a, path, "--input", "100,4")
    assert (outside.code, outside.codes) == (1, ["CC204"])
    stated = composecli.json(
        "check", path, shelf.save("five", nn.Linear(5, 2)), "--input", "100,10"
    )
    assert (stated.code, stated.codes[0]) == (1, "CC310")
