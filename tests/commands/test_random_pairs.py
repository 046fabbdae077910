"""Random pairs of small networks: what is said of their sizes holds when the saved pair is run."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import nn

from composecli.core.dims import admits, as_free, fixed_size, parse_dim
from tests.commands.running import Composecli
from tests.commands.test_conditional_pairs import meets
from tests.random_pairs import RandomPair, grid, load, random_pair, save_random, truth

RecordProperty: TypeAlias = Callable[[str, object], None]

SUITE = 60
# The suite runs its pairs in parts, which may run side by side.
PART = 15
LONG = 2000
LONG_PART = 100
MAX_ELEMENTS = 300_000
# An odd seed of its own, so that neither run repeats the other.
FIRST_LONG_SEED = 10_001


def judge(seed: int, composecli: Composecli, folder: Path) -> Counter[str]:
    """Check the pair of this seed, run it at many sizes, and count what was said of it."""
    pair = random_pair(seed)
    paths = save_random(pair, seed, folder)
    if paths is None:
        return Counter(["not saved"])
    trust = [word for path in paths for word in ("--trust", path)]
    checked = composecli.json("check", *paths, *trust)
    report = checked.json
    (seam,) = report["seams"]
    counts = Counter([f"holds {seam['holds']}"])
    models = [load(path, form) for path, form in zip(paths, pair.forms, strict=True)]
    for sizes, ran in ran_at(pair, report, (models[0], models[1])):
        told = told_of(seam, sizes)
        if told is not None and told and not ran:
            counts["wrong condition"] += 1
        if ran and seam["verdict"] in ("incompatible", "bridgeable"):
            counts["wrong incompatible"] += 1
        if told is False and ran:
            counts["size beyond the condition"] += 1
    return Counter(dict.fromkeys(counts, 1))


def told_of(seam: dict[str, Any], sizes: dict[str, int]) -> bool | None:
    """Return whether the seam is said to hold at these sizes; None if nothing is said."""
    match seam["holds"]:
        case "always" | "sometimes":
            return meets(seam["when"], sizes)
        case "never":
            return False
    return None


def ran_at(
    pair: RandomPair, report: dict[str, Any], models: tuple[nn.Module, nn.Module]
) -> list[tuple[dict[str, int], bool]]:
    """Return sizes that the producer admits, and whether the pair runs there."""
    (seam,) = report["seams"]
    contract = report["models"][0]["contract"]
    base = seam["fits_at"] or seam["fails_at"]
    if contract is None or not base:
        return []
    dims = [parse_dim(text) for text in contract["inputs"][0]["dims"]]
    free = {dim.name: dim for dim in map(as_free, dims) if dim is not None}
    numbers = {int(text) for text in re.findall(r"\b\d+", " ".join(seam["when"]))}
    found = list[tuple[dict[str, int], bool]]()
    for sizes in grid(list(free), base, numbers):
        shape = [fixed_size(dim) or sizes[str(getattr(dim, "name", ""))] for dim in dims]
        is_admitted = all(admits(dim, sizes[name]) for name, dim in free.items())
        if not is_admitted or math.prod(shape) > MAX_ELEMENTS:
            continue
        ran = truth(models, torch.zeros(shape, dtype=pair.given.dtype))
        if ran is not None:
            found.append((sizes, ran))
    return found


def judge_all(seeds: range, composecli: Composecli, folder: Path) -> Counter[str]:
    """Return how many pairs each thing was counted of, with the seeds of what is wrong."""
    counts = Counter[str]()
    for seed in seeds:
        found = judge(seed, composecli, folder)
        if any("wrong" in name for name in found):
            print(f"seed {seed}: {dict(found)}")  # noqa: T201
        counts += found
    return counts


@pytest.mark.parametrize("first", range(0, SUITE, PART))
def test_no_claim_about_sizes_is_wrong(first: int, composecli: Composecli, tmp_path: Path) -> None:
    counts = judge_all(range(first, first + PART), composecli, tmp_path)
    assert not [name for name in counts if "wrong" in name]
    assert counts["holds sometimes"] >= PART // 3
    assert counts["holds unknown"] <= 1


@pytest.mark.long
@pytest.mark.parametrize("first", range(FIRST_LONG_SEED, FIRST_LONG_SEED + LONG, LONG_PART))
def test_no_claim_about_thousands_of_pairs_is_wrong(
    first: int, composecli: Composecli, tmp_path: Path, record_property: RecordProperty
) -> None:
    counts = judge_all(range(first, first + LONG_PART), composecli, tmp_path)
    counts["random pairs"] = LONG_PART
    record_property("counts", dict(counts))
    assert not [name for name in counts if "wrong" in name]
