"""Pairs: the same verdicts as single checks, with each contract inferred once."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.commands.check import check
from composecli.commands.requests import CheckRequest
from composecli.core.blueprint import Mode
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.protocol import ProbeRequest, R, Request
from tests.commands.running import Composecli, Installed
from tests.models import Ids, Shelf, TwoOutputs, encoder


def models(shelf: Shelf) -> list[str]:
    return [
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("head_5", nn.Linear(5, 2)),
        shelf.save("relu", nn.ReLU()),
        shelf.save("encoder", encoder()),
        shelf.save("flat_40", nn.Sequential(nn.Flatten(), nn.Linear(40, 10))),
        shelf.save("two_outputs", TwoOutputs()),
        shelf.save("ids", Ids()),
    ]


def test_pairs_are_judged_as_checks_of_two_are(composecli: Composecli, shelf: Shelf) -> None:
    paths = models(shelf)
    together = composecli.json("check", "--mode", "pairs", *paths)
    assert together.code == 1
    alone = {
        pair: composecli.json("check", *pair).json["seams"][0] for pair in permutations(paths, 2)
    }
    seams = together.json["seams"]
    assert [(seam["producer"], seam["consumer"]) for seam in seams] == list(alone)
    for seam in seams:
        expected = alone[seam["producer"], seam["consumer"]]
        assert seam["verdict"] == expected["verdict"], (seam, expected)
        assert [finding["code"] for finding in seam["findings"]] == [
            item["code"] for item in expected["findings"]
        ]
    assert len(together.json["models"]) == len(paths)


class _Counting(InProcessWorker):
    def __init__(self) -> None:
        super().__init__()
        self.probes = 0

    def ask(self, request: Request[R]) -> R:
        if isinstance(request, ProbeRequest):
            self.probes += 1
        return super().ask(request)


def test_n_models_cost_n_inferences(shelf: Shelf) -> None:
    """Each pair then costs at most a few forwards."""
    paths = tuple(shelf.save(f"linear_{width}", nn.Linear(width, width)) for width in range(2, 12))
    worker = _Counting()
    report = check(CheckRequest(paths, Mode.PAIRS), worker)
    found = sum(model.probes for model in report.models)
    pairs = len(paths) * (len(paths) - 1)
    assert len(report.seams) == pairs
    assert found <= 12 * len(paths)
    assert worker.probes <= found + 4 * pairs


@pytest.mark.parametrize("words", [("--mode", "pairs", "--input", "1,10")])
def test_an_input_belongs_to_one_first_model(
    composecli: Composecli, shelf: Shelf, words: tuple[str, ...]
) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    refused = composecli("check", path, path, *words)
    assert refused.code == 2
    assert "--mode pairs" in refused.err


def test_nothing_is_joined_of_pairs(composecli: Composecli, shelf: Shelf, tmp_path: Path) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    assert composecli("join", path, path, "--mode", "pairs", "-o", tmp_path / "both.pt").code == 2


BAD = {
    "missing.pt": (None, "CC901"),
    "empty.pt": (b"", "CC903"),
    "text.pt": (b"not a model", "CC908"),
    "cut.pt": (b"PK\x03\x04 cut", "CC904"),
}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_file_is_a_row_of_the_pairs(
    installed: Installed, shelf: Shelf, here: Path, place: int
) -> None:
    """It has the problem that it would have by itself, and the others are judged as without it."""
    good = [shelf.save("linear", nn.Linear(10, 5)), shelf.save("head_5", nn.Linear(5, 2))]
    for name, (content, code) in BAD.items():
        if content is not None:
            Path(name).write_bytes(content)
        paths = [*good[:place], name, *good[place:]]
        together = installed.json("check", "--mode", "pairs", *paths)
        seams = {(seam["producer"], seam["consumer"]): seam for seam in together.json["seams"]}
        assert list(seams) == list(permutations(paths, 2))
        assert seams[good[0], good[1]]["verdict"] == "compatible"
        assert together.code == 1
        for pair, seam in seams.items():
            if name in pair:
                found = [finding["code"] for finding in seam["findings"]]
                assert (seam["verdict"], found) == ("unknown", [code])
        row = together.json["models"][place]
        assert (row["name"], row["contract"]) == (name, None)
        assert row["notes"][0].startswith(f"{code}: ")


def test_a_model_that_hangs_is_a_row_of_the_pairs(
    installed: Installed, shelf: Shelf, here: Path
) -> None:
    Path("slow.py").write_text("import time\ndef make():\n    time.sleep(60)\n")
    weights = shelf.folder / "slow_weights.pt"
    torch.save(nn.Linear(3, 3).state_dict(), weights)
    slow = f"slow.py:make@{weights}"
    good = [shelf.save("linear", nn.Linear(10, 5)), shelf.save("head_5", nn.Linear(5, 2))]
    words = ("--trust", weights, "--timeout", "4", "--no-cache")
    together = installed.json("check", "--mode", "pairs", slow, *good, *words)
    seams = {(seam["producer"], seam["consumer"]): seam for seam in together.json["seams"]}
    assert seams[good[0], good[1]]["verdict"] == "compatible"
    assert seams[slow, good[0]]["findings"][0]["code"] == "CC917"


def test_pairs_of_bad_files_alone_are_a_problem(installed: Installed, here: Path) -> None:
    ran = installed.json("check", "--mode", "pairs", "no.pt", "nor.pt")
    assert (ran.code, ran.json["error"]["code"]) == (3, "CC901")
