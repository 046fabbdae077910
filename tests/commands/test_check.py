"""What check finds at a seam, and that its exit code can be trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli
from tests.models import (
    Argmax,
    Baked,
    Biased,
    Deep,
    DictOutput,
    Ids,
    NanCheck,
    Shelf,
    encoder,
    rewrite,
)


def test_a_refusal_deep_inside_names_the_submodule_and_the_op(
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
    assert composecli.json("check", a, b).codes == ["CC201", "CC203"]


def test_a_seam_that_only_broadcasts_is_not_green(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("one_wide", nn.Linear(10, 1)), shelf.save("biased", Biased())
    checked = composecli.json("check", a, b)
    assert checked.code == 3
    assert checked.codes == ["CC208"]


def test_a_refusal_of_values_is_not_a_mismatch(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("nan_check", NanCheck(), "pickled")
    checked = composecli.json("check", a, b, "--trust", a, "--trust", b)
    assert checked.code == 3
    assert checked.codes == ["CC302"]


def test_ids_out_of_range_are_a_matter_of_values(composecli: Composecli, shelf: Shelf) -> None:
    a, b = (
        shelf.save("ids", Ids(), "traced", (torch.rand(2, 4),)),
        shelf.save("vocabulary_5", nn.Embedding(5, 3)),
    )
    checked = composecli.json("check", a, b)
    assert checked.code == 3
    assert checked.codes == ["CC302"]


def test_sizes_are_a_condition_and_with_strict_an_error(
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


def test_strict_is_green_where_every_size_fits(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    assert composecli("check", a, b, "--strict").code == 0


def test_a_batch_of_one_in_train_mode_says_that_eval_mends_it(
    composecli: Composecli, shelf: Shelf
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("norm", nn.BatchNorm1d(5))
    checked = composecli.json("check", a, b, "--input", "1,10")
    assert checked.code == 1
    notes = [note for finding in checked.json["seams"][0]["findings"] for note in finding["notes"]]
    assert any("--training eval" in note for note in notes)
    assert composecli("check", a, b, "--input", "1,10", "--training", "eval").code == 0
    assert composecli("check", a, b, "--input", "4,10").code == 0


def test_meta_explores_and_the_cpu_decides(composecli: Composecli, shelf: Shelf) -> None:
    a, b = (
        shelf.save("double_linear", nn.Linear(10, 5).double()),
        shelf.save("five", nn.Linear(5, 2)),
    )
    checked = composecli.json("check", a, b, "--device", "meta")
    assert checked.code == 1
    assert "CC201" in checked.codes
    fits = shelf.save("linear", nn.Linear(10, 5))
    green = composecli.json("check", fits, b, "--device", "meta")
    assert green.code == 0
    assert green.codes == ["CC309"]


@pytest.mark.parametrize("form", ["scripted", "traced", "exported", "pickled"])
def test_every_form_is_explored_on_meta(composecli: Composecli, shelf: Shelf, form: str) -> None:
    a, b = (
        shelf.save("linear", nn.Linear(10, 5), form, (torch.rand(2, 10),)),
        shelf.save("five", nn.Linear(5, 2)),
    )
    checked = composecli.json("check", a, b, "--device", "meta")
    assert checked.code == 0
    contract = checked.json["models"][0]["contract"]
    assert contract["text"] == "float32[N, 10] -> float32[N, 5]"
    assert "meta at" in contract["evidence"][-1]["detail"]


def test_what_cannot_run_on_meta_is_explored_where_it_runs(
    composecli: Composecli, shelf: Shelf
) -> None:
    gru = shelf.save("gru", nn.GRU(8, 12, batch_first=True), "traced", (torch.rand(2, 6, 8),))
    for device in ("cpu", "meta"):
        inspected = composecli.json("inspect", gru, "--device", device)
        text = inspected.json["model"]["contract"]["text"]
        assert text == "float32[N, T, 8] -> (float32[N, T, 12], float32[1, N, 12])"


def test_a_baked_device_is_noted(composecli: Composecli, shelf: Shelf) -> None:
    a = shelf.save("baked", Baked(), "traced", (torch.rand(2, 10),))
    inspected = composecli.json("inspect", a)
    assert "cpu as a constant" in inspected.json["portability"][0]
    elsewhere = shelf.folder / "baked_elsewhere.pt"
    rewrite(
        Path(a),
        elsewhere,
        "code/",
        lambda code: code.replace(b'torch.device("cpu")', b'torch.device("cuda:3")'),
    )
    checked = composecli.json("check", elsewhere, shelf.save("five", nn.Linear(5, 2)))
    assert "CC305" in checked.codes
    assert checked.code == 3


def test_a_chain_judges_every_seam(composecli: Composecli, shelf: Shelf) -> None:
    a, b, c = (
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("narrow", nn.Linear(3, 2)),
        shelf.save("two", nn.Linear(2, 1)),
    )
    checked = composecli.json("check", a, b, c)
    assert [seam["verdict"] for seam in checked.json["seams"]] == ["bridgeable", "compatible"]
    assert checked.code == 1


def test_unknown_is_never_green(composecli: Composecli, shelf: Shelf) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dim() == 3
            assert x.size(1) == 17
            return x

    a, b = shelf.save("odd", Odd()), shelf.save("relu", nn.ReLU())
    checked = composecli.json("check", a, b)
    assert checked.code == 3
    assert checked.codes[0] == "CC304"
    assert "--input" in checked.json["seams"][0]["findings"][0]["fix"]["command"]
    assert composecli("check", a, b, "--input", "2,17,4").code in (0, 2, 3)
    assert composecli("check", a, b, "--input", "float32[N,17,4]").code == 0


def test_what_is_stated_and_refused_is_said_so(composecli: Composecli, shelf: Shelf) -> None:
    checked = composecli.json(
        "check",
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("relu", nn.ReLU()),
        "--input",
        "2,11",
    )
    assert checked.code == 3
    assert checked.codes[0] == "CC308"


@pytest.mark.parametrize("port", ["nothing", "2:logits", "7:logits", "[4]"])
@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_a_selection_that_is_not_there(
    composecli: Composecli, shelf: Shelf, port: str, mode: str
) -> None:
    a, b = shelf.save("dict", DictOutput()), shelf.save("five", nn.Linear(5, 2))
    if mode == "parallel":
        b = shelf.save("linear", nn.Linear(10, 5))
    checked = composecli.json("check", a, b, "--select", port, "--mode", mode)
    assert checked.code == 1
    assert checked.codes == ["CC103"]


def test_a_selection_finds_its_model_in_a_chain(composecli: Composecli, shelf: Shelf) -> None:
    a, b, c = (
        shelf.save("ten", nn.Linear(4, 10)),
        shelf.save("dict", DictOutput()),
        shelf.save("five", nn.Linear(5, 2)),
    )
    for port in ("logits", "2:logits"):
        assert composecli("check", a, b, c, "--select", port).code == 0
    wrong = composecli.json("check", a, b, c, "--select", "1:logits")
    assert wrong.code == 1
    assert wrong.codes[0] == "CC103"
    missing = composecli.json("check", a, b, c)
    fix = missing.json["seams"][1]["findings"][0]["fix"]["command"]
    assert fix.endswith("--select 2:logits")


@pytest.mark.parametrize(
    ("stated", "contract"),
    [
        ("float32[N>=7,10]", "float32[N>=7, 10] -> float32[N>=7, 5]"),
        ("float32[N%8==0,10]", "float32[N%8==0, 10] -> float32[N%8==0, 5]"),
        ("float32[3<=N<=4,10]", "float32[3<=N<=4, 10] -> float32[3<=N<=4, 5]"),
        ("2,3,10", "float32[N, T, 10] -> float32[N, T, 5]"),
        ("0,10", "float32[0, 10] -> float32[0, 5]"),
        ("input=2,10", "float32[N, 10] -> float32[N, 5]"),
    ],
)
def test_what_is_stated_is_the_contract(
    composecli: Composecli, shelf: Shelf, stated: str, contract: str
) -> None:
    inspected = composecli.json(
        "inspect", shelf.save("linear", nn.Linear(10, 5)), "--input", stated
    )
    assert inspected.json["model"]["contract"]["text"] == contract


def test_what_is_stated_and_not_so_is_not_believed(composecli: Composecli, shelf: Shelf) -> None:
    flat = shelf.save("flat", nn.Sequential(nn.Flatten(), nn.Linear(1024, 3)))
    inspected = composecli.json(
        "inspect", flat, "--input", "float32[N,64,H,4]", "--input", "float32[N,64,H,4]"
    )
    assert inspected.code == 3
    inspected = composecli.json("inspect", flat, "--input", "float32[N,64,H%4==0,4]")
    assert inspected.code == 3
    inspected = composecli.json(
        "inspect", flat, "--input", "float32[N,C,4,4]", "--input", "float32[N,C,4,4]"
    )
    assert inspected.code == 3
    wide = shelf.save("wide_enough", nn.Sequential(nn.Flatten(), nn.Linear(8 * 4, 3)))
    inspected = composecli.json("inspect", wide, "--input", "float32[N,C,4]")
    assert inspected.json["model"]["contract"]["text"] == "float32[N, ?, 4] -> float32[N, 3]"


def test_an_input_that_the_model_does_not_have(composecli: Composecli, shelf: Shelf) -> None:
    refused = composecli("inspect", shelf.save("linear", nn.Linear(10, 5)), "--input", "x=2,10")
    assert refused.code == 3
    assert "CC925" in refused.err
    assert "its inputs: input" in refused.err


def test_an_input_too_large_to_be_made(composecli: Composecli, shelf: Shelf) -> None:
    inspected = composecli.json(
        "inspect", shelf.save("linear", nn.Linear(10, 5)), "--input", "100000000000000,10"
    )
    assert inspected.code == 3
    assert inspected.json["finding"]["code"] == "CC307"


def test_stated_names_are_free_and_shown(composecli: Composecli, shelf: Shelf) -> None:
    checked = composecli.json(
        "check",
        shelf.save("encoder", encoder()),
        shelf.save("relu", nn.ReLU()),
        "--input",
        "float32[B,3,H>=64,W>=64]",
    )
    model = checked.json["models"][0]["contract"]
    assert model["text"].startswith("float32[B, 3, H>=64, W>=64] -> float32[B, 64, ceil(H/8)")
    assert model["evidence"][0]["kind"] == "declared"


def test_a_sample_file_is_an_input(composecli: Composecli, shelf: Shelf) -> None:
    sample = shelf.folder / "sample.pt"
    torch.save(torch.full((4, 5), 3.0), sample)
    a, b = shelf.save("nan_check", NanCheck(), "pickled"), shelf.save("two", nn.Linear(2, 1))
    assert composecli("check", a, b, "--trust", a, "--trust", b, "--input", f"@{sample}").code == 0
    torch.save(torch.full((4, 5), -3.0), sample)
    assert composecli("check", a, b, "--trust", a, "--trust", b, "--input", f"@{sample}").code == 3


def test_parallel_asks_for_one_input_that_all_take(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("narrow", nn.Linear(3, 2))
    checked = composecli.json("check", "--mode", "parallel", a, b)
    assert checked.code == 1
    assert checked.codes == ["CC401"]
    relu = shelf.save("relu", nn.ReLU())
    assert composecli("check", "--mode", "parallel", relu, a).code == 0


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["--dim", "7"], 1, "CC403"),
        (["--dim", "-1"], 0, None),
        (["--dim", "0"], 1, "CC402"),
        (["--merge", "stack"], 1, "CC402"),
        (["--merge", "tuple"], 0, None),
    ],
)
def test_parallel_merges(
    composecli: Composecli, shelf: Shelf, words: list[str], code: int, found: str | None
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("wider", nn.Linear(10, 7))
    checked = composecli.json("check", "--mode", "parallel", a, b, *words)
    assert checked.code == code
    assert found is None or found in checked.codes


def test_parallel_needs_a_tensor_of_each(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("dict", DictOutput()), shelf.save("linear", nn.Linear(10, 5))
    checked = composecli.json("check", "--mode", "parallel", a, b)
    assert checked.code == 1
    assert checked.codes == ["CC405"]
    assert composecli("check", "--mode", "parallel", a, b, "--select", "1:logits").code == 0


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
    assert checked.json["seams"][0]["findings"][0]["title"] == "compatible when N <= 64"
    strict = composecli.json("check", a, path, "--strict")
    assert (strict.code, strict.codes) == (1, ["CC206"])
    outside = composecli.json("check", a, path, "--input", "100,4")
    assert (outside.code, outside.codes) == (1, ["CC204"])
    stated = composecli.json(
        "check", path, shelf.save("five", nn.Linear(5, 2)), "--input", "100,10"
    )
    assert (stated.code, stated.codes[0]) == (3, "CC308")


def test_a_model_that_runs_on_what_it_is_given_and_on_nothing_made_up(
    composecli: Composecli, shelf: Shelf
) -> None:
    """Its contract is not found, the seam before it holds all the same, and the chain goes on behind it."""
    parts = [
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("relu", nn.ReLU()),
        shelf.save("nan_check", NanCheck(), "pickled"),
        shelf.save("two", nn.Linear(2, 1)),
    ]
    trust = ("--trust", parts[2])
    checked = composecli.json("check", *parts, *trust)
    assert [seam["verdict"] for seam in checked.json["seams"]] == [
        "compatible",
        "compatible",
        "compatible",
    ]
    assert checked.code == 0
    strict = composecli.json("check", *parts, *trust, "--strict")
    assert (strict.code, strict.codes) == (3, ["CC207"])
    wrong = composecli.json("check", *parts[:3], shelf.save("narrow", nn.Linear(3, 2)), *trust)
    assert (wrong.code, wrong.codes) == (1, ["CC203"])
