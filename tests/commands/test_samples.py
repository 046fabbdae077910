"""Samples: check warns of a consumer that mixes or loses those that its producer keeps apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import batch_models
from tests.commands.running import Composecli, Installed
from tests.models import Shelf

TOKENS = torch.zeros((3, 6), dtype=torch.int64)
VECTORS = torch.rand(3, 6, batch_models.WIDTH)
MIXING = batch_models.mixing()
KEEPING = batch_models.keeping()
# Kinds of layers that are also tried in other forms than TorchScript.
SOME_MIXING = ("lstm", "transformer", "softmax", "flat_head", "last", "hard", "pairs")
SOME_KEEPING = ("lstm_bf", "transformer_bf", "rows", "batch_norm", "hard_1", "positive", "last_1")


class View(nn.Module):
    """Takes rows of 1,024 numbers, of whatever sample they are."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1024, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.view(-1, 1024))


class Best(nn.Module):
    """Returns the number of the best of some classes."""

    def __init__(self, classes: int, possible: int) -> None:
        super().__init__()
        self.scores = nn.Linear(16, classes)
        with torch.no_grad():
            self.scores.bias[possible:] = -1e6

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x).argmax(-1)


class FewClasses(nn.Module):
    """Returns numbers of five classes: sorted along an axis of 1,000, or limited in place."""

    def __init__(self, sorts: bool) -> None:
        super().__init__()
        self.sorts = sorts
        self.scores = nn.Linear(16, 5 * 1000)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x).view(-1, 1000, 5)
        if self.sorts:
            return scores.argmax(2).sort(1)[0]
        return scores.argmax(1).clamp_(max=4)


def embedding(shelf: Shelf, form: str = "scripted") -> str:
    """Return the path of a producer that keeps samples and tokens apart."""
    return shelf.save("tokens", nn.Embedding(50, batch_models.WIDTH), form, (TOKENS,))


def consumer(shelf: Shelf, name: str, module: nn.Module, form: str = "scripted") -> str:
    """Return the path of a consumer."""
    return shelf.save(f"{name}_of_batch", module, form, (VECTORS,))


def warnings(report: Any) -> list[str]:
    """Return the titles of the warnings of a report."""
    return [
        finding["title"]
        for seam in report["seams"]
        for finding in seam["findings"]
        if finding["severity"] == "warning"
    ]


@pytest.mark.parametrize("name", MIXING)
def test_a_consumer_that_mixes_the_samples_is_warned_of(
    composecli: Composecli, shelf: Shelf, name: str
) -> None:
    checked = composecli.json("check", embedding(shelf), consumer(shelf, name, MIXING[name]))
    assert checked.json["verdict"] == "compatible", checked.out
    assert len(warnings(checked.json)) == 1
    assert checked.code == 0


@pytest.mark.parametrize("name", KEEPING)
def test_a_consumer_that_keeps_the_samples_is_silent(
    composecli: Composecli, shelf: Shelf, name: str
) -> None:
    checked = composecli.json("check", embedding(shelf), consumer(shelf, name, KEEPING[name]))
    assert checked.json["verdict"] == "compatible", checked.out
    assert warnings(checked.json) == []


@pytest.mark.parametrize("form", ["pickled", "exported", "traced"])
@pytest.mark.parametrize("name", [*SOME_MIXING, *SOME_KEEPING])
def test_every_kind_of_file_is_judged_alike(
    composecli: Composecli, shelf: Shelf, name: str, form: str
) -> None:
    module = {**MIXING, **KEEPING}[name].eval()
    path = consumer(shelf, name, module, form)
    words: tuple[str, ...] = ()
    if form == "pickled":
        words = ("--trust", path)
    checked = composecli.json("check", embedding(shelf), path, *words)
    assert checked.json["verdict"] == "compatible", checked.out
    assert bool(warnings(checked.json)) is (name in MIXING)


def test_the_warning_names_the_layer_and_what_mends_it(installed: Installed, shelf: Shelf) -> None:
    a, b = embedding(shelf), consumer(shelf, "lstm", MIXING["lstm"])
    checked = installed("check", a, b, "--quiet")
    assert "compatible, 1 warning" in checked.out
    assert f"{b} mixes the samples that {a} keeps apart" in " ".join(checked.out.split())
    assert "layer (aten::" in checked.out
    assert "x.permute(1, 0, 2)" in checked.out
    assert "batch_first=True" in checked.out
    assert checked.out.index("CC210") < checked.out.index("verdict:")
    assert checked.code == 0
    assert installed("check", a, b, "--fail-on", "warning").code == 1


def test_a_join_that_fails_on_warnings_writes_nothing(
    installed: Installed, shelf: Shelf, tmp_path: Any
) -> None:
    a, b = embedding(shelf), consumer(shelf, "lstm", MIXING["lstm"])
    output = tmp_path / "both.pt"
    refused = installed("join", a, b, "-o", output, "--fail-on", "warning")
    assert refused.code == 1
    assert not output.exists()
    assert installed("join", a, b, "-o", output).code == 0
    assert output.exists()


def test_a_view_that_is_blind_to_the_batch_is_warned_of(installed: Installed, shelf: Shelf) -> None:
    encoder = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4))
    a, b = shelf.save("quarters", encoder), shelf.save("view_1024", View())
    checked = installed.json("check", a, b, "--input", "2,3,64,64")
    assert checked.codes == ["CC205", "CC210"]
    condition, finding = checked.json["seams"][0]["findings"]
    assert condition["title"] == "compatible when N*(H//4)*(W//4) % 64 == 0"
    assert finding["severity"] == "warning"
    assert finding["op"] == "aten::view"
    assert finding["axis"] == 0
    assert checked.json["warnings"] == 1


def test_one_stated_sample_cannot_be_mixed(composecli: Composecli, shelf: Shelf) -> None:
    a, b = embedding(shelf), consumer(shelf, "softmax", MIXING["softmax"])
    assert composecli.json("check", a, b, "--input", "int64[1,6]").codes == []
    assert composecli.json("check", a, b, "--input", "int64[2,6]").codes == ["CC210"]


def test_the_channels_of_one_image_are_no_samples(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("relu", nn.ReLU()), shelf.save("conv_of_image", nn.Conv2d(3, 4, 3))
    assert composecli.json("check", a, b, "--input", "float32[3,16,17]").codes == []


def test_what_the_producer_has_mixed_is_not_blamed_on_the_consumer(
    composecli: Composecli, shelf: Shelf
) -> None:
    a = shelf.save("softmax_0", nn.Softmax(dim=0))
    b = consumer(shelf, "softmax", MIXING["softmax"])
    assert composecli.json("check", a, b).codes == []


def test_the_samples_of_a_producer_that_takes_time_first_are_on_axis_1(
    composecli: Composecli, shelf: Shelf
) -> None:
    time_first = consumer(shelf, "transformer", MIXING["transformer"])
    batch_first = consumer(shelf, "transformer_bf", KEEPING["transformer_bf"])
    checked = composecli.json("check", time_first, batch_first)
    assert checked.codes == ["CC210"]
    (finding,) = checked.json["seams"][0]["findings"]
    assert finding["axis"] == 1
    assert composecli.json("check", time_first, time_first).codes == []
    assert composecli.json("check", batch_first, batch_first).codes == []


def test_a_chain_warns_at_the_seam_where_samples_meet(composecli: Composecli, shelf: Shelf) -> None:
    a, b = embedding(shelf), consumer(shelf, "linear_8", nn.Linear(8, 8))
    c = consumer(shelf, "attention", MIXING["attention"])
    checked = composecli.json("check", a, b, c, b)
    found = [[finding["code"] for finding in seam["findings"]] for seam in checked.json["seams"]]
    assert found == [[], ["CC210"], []]


def test_batch_norm_in_train_mode_is_told_as_itself(composecli: Composecli, shelf: Shelf) -> None:
    a, b = embedding(shelf), shelf.save("norm_in_train", batch_models.Channels(nn.BatchNorm1d(8)))
    checked = composecli.json("check", a, b)
    assert "CC211" in checked.codes
    assert checked.json["warnings"] == 0
    assert "CC211" not in composecli.json("check", a, b, "--training", "eval").codes


def test_a_branch_that_mixes_the_samples_of_another_is_warned_of(
    composecli: Composecli, shelf: Shelf
) -> None:
    a = consumer(shelf, "transformer_bf", KEEPING["transformer_bf"])
    b = consumer(shelf, "transformer", MIXING["transformer"])
    for models in ((a, b), (b, a)):
        checked = composecli.json("check", "--mode", "parallel", "--merge", "add", *models)
        assert checked.codes == ["CC210"]
    assert composecli.json("check", "--mode", "parallel", "--merge", "add", a, a).codes == []


class Scaled(nn.Module):
    """Mixes the samples, if it is given a number."""

    def forward(self, x: torch.Tensor, rate: int) -> torch.Tensor:
        return (x + x.mean(0)) * rate


class Reshaped(nn.Module):
    """Takes multiples of a width only, and may mix the samples."""

    def __init__(self, width: int, mixes: bool) -> None:
        super().__init__()
        self.width = width
        self.mixes = mixes
        self.scale = nn.Parameter(torch.rand(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(x.shape[0], -1, self.width).flatten(1) * self.scale
        if self.mixes:
            x = x + x.mean(0)
        return x


def test_a_branch_with_a_plain_value_is_followed(installed: Installed, shelf: Shelf) -> None:
    a = shelf.save("keeps_samples", nn.Linear(6, 6))
    b = shelf.save("mixes_at_a_rate", Scaled())
    words = ("check", "--mode", "parallel", a, b, "--input", "2:rate:=3")
    assert installed.json(*words).codes == ["CC210"]


def test_branches_are_followed_at_sizes_that_both_take(
    composecli: Composecli, shelf: Shelf
) -> None:
    a = shelf.save("keeps_tens", Reshaped(10, mixes=False))
    b = shelf.save("mixes_sevens", Reshaped(7, mixes=True))
    assert "CC210" in composecli.json("check", "--mode", "parallel", a, b).codes


def test_pairs_show_which_are_warned_of(composecli: Composecli, shelf: Shelf) -> None:
    a, b = embedding(shelf), consumer(shelf, "lstm", MIXING["lstm"])
    assert f"{a} -> {b}  (warning: CC210)" in composecli("check", "--mode", "pairs", a, b).out


def test_inspect_says_what_becomes_of_each_dim(installed: Installed, shelf: Shelf) -> None:
    path = consumer(shelf, "lstm_bf", KEEPING["lstm_bf"])
    text = " ".join(installed("inspect", path, "--quiet").out.split())
    assert "evidence: N is kept apart on axis 0 of output 0; T is mixed" in text
    first, second = installed.json("inspect", path).json["axes"]
    kept = {"output": "output 0", "fate": "kept", "axis": 0}
    inputs = [{"input": "x", "axis": 0}]
    assert first == {"dim": "N", "inputs": inputs, "outputs": [kept], "reason": None}
    assert second["outputs"] == [{"output": "output 0", "fate": "mixed", "axis": None}]


def test_the_answer_is_cached(installed: Installed, shelf: Shelf) -> None:
    a, b = embedding(shelf), consumer(shelf, "lstm", MIXING["lstm"])
    assert installed("check", a, b).out == installed("check", a, b).out


def test_an_id_without_a_row_is_an_error_with_the_id(installed: Installed, shelf: Shelf) -> None:
    a = shelf.save("best_of_1000", Best(1000, 1000))
    small, large = (
        shelf.save("rows_500", nn.Embedding(500, 8)),
        shelf.save("rows_1000", nn.Embedding(1000, 8)),
    )
    checked = installed.json("check", a, small)
    assert checked.code == 1
    assert checked.codes == ["CC311"]
    (finding,) = checked.json["seams"][0]["findings"]
    assert "looks them up in 500 rows" in finding["title"]
    assert installed.json("check", a, large).codes == []


def test_other_values_are_tried_if_larger_ids_are_possible(
    composecli: Composecli, shelf: Shelf
) -> None:
    a, b = shelf.save("best_of_520", Best(520, 520)), shelf.save("rows_500", nn.Embedding(500, 8))
    checked = composecli.json("check", a, b)
    assert checked.codes == ["CC311"]


def test_ids_that_are_possible_but_do_not_come_up_are_a_note(
    composecli: Composecli, shelf: Shelf
) -> None:
    a, b = shelf.save("best_of_some", Best(1000, 400)), shelf.save("rows_500", nn.Embedding(500, 8))
    checked = composecli.json("check", a, b)
    assert checked.code == 0
    assert checked.codes == ["CC312"]


@pytest.mark.parametrize("sorts", [True, False])
def test_ids_are_not_taken_for_positions(installed: Installed, shelf: Shelf, sorts: bool) -> None:
    a, b = shelf.save(f"sorts_{sorts}", FewClasses(sorts)), shelf.save("rows_5", nn.Embedding(5, 8))
    checked = installed.json("check", a, b)
    assert (checked.code, checked.codes) == (0, [])


class Identity(nn.Module):
    """Multiplies by a matrix whose zeros keep the samples apart."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.eye(x.size(0)) @ x.flatten(1)


class Distinct(nn.Module):
    """Returns the distinct samples in order: an op that is not followed."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.unique(x, dim=0)


class Finite(nn.Module):
    """Refuses NaN."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.isnan().any()):
            raise ValueError("NaN in the input")
        return x * 2


class Chosen(nn.Module):
    """Returns the places of what is positive, as many as there are."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).nonzero()


NOT_KNOWN = {
    "identity": (Identity(), "no change of the others' values changed one of them"),
    "chosen": (Chosen(), "its slices cannot be followed through aten::nonzero"),
    "finite": (Finite(), "a run with NaN in some of its slices fails: ValueError: NaN in"),
}


@pytest.mark.parametrize("name", NOT_KNOWN)
def test_samples_that_cannot_be_followed_are_a_note_with_the_reason(
    composecli: Composecli, shelf: Shelf, name: str
) -> None:
    module, reason = NOT_KNOWN[name]
    checked = composecli.json("check", embedding(shelf), consumer(shelf, name, module))
    assert checked.codes == ["CC212"]
    (finding,) = checked.json["seams"][0]["findings"]
    assert finding["severity"] == "note"
    assert finding["axis"] == 0
    assert reason in " ".join(finding["notes"])
    assert (checked.code, checked.json["warnings"]) == (0, 0)


def test_samples_that_the_producer_may_have_mixed_are_not_noted(
    composecli: Composecli, shelf: Shelf
) -> None:
    a = shelf.save("mixes_first", nn.Softmax(dim=0))
    checked = composecli.json("check", a, consumer(shelf, "identity", Identity()))
    assert not {"CC210", "CC212"} & set(checked.codes)


def test_samples_that_meet_in_an_op_that_is_not_followed_are_warned_of(
    composecli: Composecli, shelf: Shelf
) -> None:
    a, b = embedding(shelf), consumer(shelf, "distinct", Distinct())
    assert composecli.json("check", a, b).codes == ["CC210"]
