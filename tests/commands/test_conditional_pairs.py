"""Pairs that fit at some sizes: the verdict tells which, and running the pair agrees."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.dims import admits, as_free, parse_dim
from tests.commands.running import Composecli, Installed
from tests.conditional_pairs import PAIRS, Pair, save_pair
from tests.models import Shelf

INSTALLED = ("flatten", "static", "frames", "multiples", "batch_of_one", "never_even", "always")


def sizes_around(when: list[str], base: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Yield sizes on both sides of each number that the conditions name, beside the others."""
    for name, condition in itertools.product(base, when):
        if name not in re.findall(r"[A-Z]\d*", condition):
            continue
        numbers = [int(number) for number in re.findall(r"\b\d+", condition)]
        for number in {size + near for size in numbers for near in (-1, 0, 1)}:
            if 0 < number < 10_000:
                yield {**base, name: number}
    for name, size in base.items():
        yield {**base, name: size + 1}


def meets(when: list[str], sizes: Mapping[str, int]) -> bool:
    """Return whether sizes meet all conditions, each of which is a dim or a relation of sizes."""
    for condition in when:
        if len(set(re.findall(r"[A-Z]\d*", condition))) == 1 and "//" not in condition:
            dim = as_free(parse_dim(condition))
            assert dim is not None
            assert str(dim) == condition
            if not admits(dim, sizes[dim.name]):
                return False
        elif not eval(condition, {"ceil": math.ceil, **sizes}):  # noqa: S307
            return False
    return True


def runs(pair: Pair, contract: dict[str, Any], sizes: Mapping[str, int]) -> bool | None:
    """Return whether the modules run in sequence; None if the first one refuses its input."""
    (port,) = contract["inputs"]
    shape = list[int]()
    for text in port["dims"]:
        dim = as_free(parse_dim(text))
        shape.append(int(text) if dim is None else sizes[dim.name])
        if dim is not None and not admits(dim, sizes[dim.name]):
            return None
    example = torch.zeros(shape, dtype=getattr(torch, port["dtype"]))
    with torch.no_grad():
        middle = pair.producer(example)
        if pair.forms[1] in ("static", "batched"):
            exported = list(middle.shape) if pair.forms[1] == "static" else list(middle.shape)[1:]
            if exported != list(pair.at if pair.forms[1] == "static" else pair.at[1:]):
                return False
        try:
            pair.consumer(middle)
        except (RuntimeError, AssertionError, ValueError):
            return False
    return True


@pytest.mark.parametrize("name", PAIRS)
def test_the_condition_is_told_and_running_the_pair_agrees(
    name: str, composecli: Composecli, shelf: Shelf
) -> None:
    pair = PAIRS[name]
    paths = save_pair(shelf, name)
    trust = [word for path in paths for word in ("--trust", path)]
    checked = composecli.json("check", *paths, *trust)
    (seam,) = checked.json["seams"]
    assert (seam["holds"], tuple(seam["when"])) == (pair.holds, pair.when)
    assert checked.code == (1 if pair.holds == "never" else 0)
    contract = checked.json["models"][0]["contract"]
    if seam["fits_at"] is not None:
        assert runs(pair, contract, seam["fits_at"])
    if seam["fails_at"] is not None:
        assert runs(pair, contract, seam["fails_at"]) is False
    assert (seam["fails_at"] is None) == (pair.holds == "always")
    base = seam["fits_at"] or seam["fails_at"]
    for sizes in sizes_around(seam["when"], base):
        ran = runs(pair, contract, sizes)
        if ran is not None:
            said = pair.holds != "never" and meets(seam["when"], sizes)
            assert said == ran, sizes


@pytest.mark.parametrize("name", INSTALLED)
def test_the_installed_command_tells_the_same(
    name: str, installed: Installed, shelf: Shelf
) -> None:
    pair = PAIRS[name]
    checked = installed.json("check", *save_pair(shelf, name))
    (seam,) = checked.json["seams"]
    assert (seam["holds"], tuple(seam["when"])) == (pair.holds, pair.when)


def test_strict_shows_the_refusal_of_the_smallest_size(
    composecli: Composecli, shelf: Shelf
) -> None:
    checked = composecli.json("check", *save_pair(shelf, "flatten"), "--strict")
    (seam,) = checked.json["seams"]
    (finding,) = seam["findings"]
    assert (checked.code, finding["code"]) == (1, "CC206")
    assert seam["fails_at"] == {"N": 2, "H": 1, "W": 32}
    assert "at N = 2, H = 1, W = 32" in finding["notes"][-1]
    assert "aten::addmm" in finding["notes"][-1]


def test_stated_sizes_are_judged_as_stated_and_told_where_they_would_fit(
    composecli: Composecli, shelf: Shelf
) -> None:
    checked = composecli.json("check", *save_pair(shelf, "flatten"), "--input", "1,3,64,64")
    (seam,) = checked.json["seams"]
    assert (checked.code, seam["holds"]) == (1, "sometimes")
    assert tuple(seam["when"]) == PAIRS["flatten"].when
    notes = [note for finding in seam["findings"] for note in finding["notes"]]
    (told,) = (note for note in notes if note.startswith("it would fit when"))
    assert told == "it would fit when 29<=H<=32 and 29<=W<=32"
    assert next(finding["title"] for finding in seam["findings"]) == "C*H*W is 4096, not 1024"
    # The bridge is for those who cannot change the sizes that they stated.
    assert seam["verdict"] == "bridgeable"
    assert (seam["fails_at"], seam["fits_at"]["H"]) == ({"N": 1, "H": 64, "W": 64}, 32)


def test_later_seams_are_solved_within_the_sizes_of_those_before(
    composecli: Composecli, shelf: Shelf
) -> None:
    """`H` is at least 9 for the second model, and 29 to 32 of these for the third."""
    paths = [
        shelf.save("chain_stride_2", nn.Conv2d(3, 8, 3, 2, 1)),
        shelf.save("chain_five", nn.Sequential(nn.Conv2d(8, 8, 5, 2, 2), nn.Conv2d(8, 16, 1))),
        shelf.save("chain_head", nn.Sequential(nn.Flatten(), nn.Linear(1024, 4))),
        shelf.save("chain_one", nn.Linear(4, 1)),
    ]
    checked = composecli.json("check", *paths)
    assert [seam["holds"] for seam in checked.json["seams"]] == ["always", "sometimes", "always"]
    assert checked.json["seams"][1]["when"] == ["29<=H<=32", "29<=W<=32"]
    assert (checked.code, checked.json["example"]) == (0, "float32[2, 3, 32, 32]")


def test_classes_of_a_file_are_solved_like_saved_models(composecli: Composecli, here: Path) -> None:
    here.joinpath("net.py").write_text(
        "from torch import nn\n"
        "def encoder():\n    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())\n"
        "def head():\n    return nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 2))\n"
    )
    checked = composecli.json("check", "net.py:encoder", "net.py:head")
    (seam,) = checked.json["seams"]
    assert (checked.code, seam["when"]) == (0, ["11<=H<=12", "11<=W<=12"])


def test_pairs_list_the_conditions(composecli: Composecli, shelf: Shelf) -> None:
    paths = save_pair(shelf, "flatten")
    checked = composecli("check", "--mode", "pairs", *paths)
    assert "when 29<=H<=32 and 29<=W<=32" in checked.out
    seams = composecli.json("check", "--mode", "pairs", *paths).json["seams"]
    assert seams[0]["holds"] == "sometimes"
    assert [seam["verdict"] for seam in seams] == ["compatible", "incompatible"]
