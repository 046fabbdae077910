"""A pair that fails wherever it was tried is incompatible only if there is a reason for it."""

from __future__ import annotations

import torch
from torch import nn

from tests.commands.running import Composecli, Installed
from tests.conditional_pairs import OneMore, flat_head
from tests.models import Shelf


def hidden_pair(shelf: Shelf) -> tuple[str, str]:
    """Return a producer of images, and a consumer for which a sample without a batch is found.

    The size at which they fit is too small for the steps of the search.
    """
    given = nn.Sequential(nn.Conv2d(3, 6, 4, 1, 1), nn.BatchNorm2d(6)).eval()
    taken = nn.Sequential(nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(24, 3))
    return shelf.save("images_of_6", given), shelf.save("flat_24", taken)


def test_no_size_that_fits_and_no_reason_is_unknown(installed: Installed, shelf: Shelf) -> None:
    paths = hidden_pair(shelf)
    checked = installed.json("check", *paths)
    (seam,) = checked.json["seams"]
    assert (checked.code, seam["verdict"], seam["holds"]) == (3, "unknown", "unknown")
    models = [torch.jit.load(path) for path in paths]
    assert models[1](models[0](torch.zeros(1, 3, 5, 5))).shape == (1, 3)


def test_every_mode_says_the_same(composecli: Composecli, shelf: Shelf) -> None:
    given, taken = hidden_pair(shelf)
    before = shelf.save("colours", nn.Conv2d(1, 3, 1))
    chain = composecli.json("check", before, given, taken)
    assert [seam["verdict"] for seam in chain.json["seams"]] == ["compatible", "unknown"]
    pairs = composecli.json("check", "--mode", "pairs", given, taken)
    assert pairs.json["seams"][0]["verdict"] == "unknown"


def test_a_stated_size_is_judged_as_stated(composecli: Composecli, shelf: Shelf) -> None:
    checked = composecli.json("check", *hidden_pair(shelf), "--input", "1,3,64,64")
    assert checked.code == 1
    fitting = composecli.json("check", *hidden_pair(shelf), "--input", "1,3,5,5")
    assert fitting.code == 0


def test_a_sum_that_is_never_the_size_that_is_wanted_is_a_reason(
    installed: Installed, shelf: Shelf
) -> None:
    given = shelf.save("one_more", nn.Sequential(nn.Embedding(30, 4), OneMore()))
    taken = shelf.save("flat_64", flat_head(64))
    checked = installed.json("check", given, taken)
    (seam,) = checked.json["seams"]
    assert (checked.code, seam["verdict"], seam["holds"]) == (1, "incompatible", "never")
    assert "no size of T has 2*T + 1 == 16" in seam["findings"][0]["notes"]
