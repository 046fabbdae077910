"""Heads of any rank: what is said of them is held against running them at ranks 1 to 6."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from composecli import inspect, options
from composecli.core.contract import Contract
from composecli.core.contract_at_rank import at_rank
from composecli.core.dims import as_expr
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.core.resizing import sizes_by_name
from composecli.core.size_expr import evaluate
from tests.commands.running import Composecli, Installed
from tests.models import Shelf
from tests.zoo.judge import judge

Sizes = tuple[int, ...]
FORMS = ("scripted", "pickled", "traced")


class Head(nn.Module):
    """A linear layer behind something that changes the axes."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.fc = nn.Linear(width, 5)


class ViewOfSamples(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.view(x.size(0), -1))


class Rows(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.reshape(-1, 48))


class RowsOfSample(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.reshape(x.size(0), -1, 48))


class Whole(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten())


class Unsqueezed(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.unsqueeze(1).flatten(1))


class WithFeatures(Head):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = x.flatten(1)
        return self.fc(features), features


class FlatPixels(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(2))


class Pooled(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(nn.functional.adaptive_avg_pool2d(x, (4, 4)).flatten(1))


class UpToFourAxes(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() > 4:
            raise ValueError("too many axes")
        return self.fc(x.flatten(1))


class SamplesAlone(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 1:
            x = x.unsqueeze(0)
        return self.fc(x.flatten(1))


class VolumesDiffer(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x.flatten(1))
        if x.dim() == 5:
            y = y.unsqueeze(1)
        return y


@dataclass(frozen=True)
class Case:
    """A head, its contract, and the contract that it has if a trace of these sizes is saved."""

    module: nn.Module
    contract: str
    traced: Sizes = (2, 3, 4, 4)


FLAT = "float32[N, *] where prod(*) == 48 -> float32[N, 5]"
OF_ANY_RANK = {
    "flatten": Case(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), FLAT),
    "flatten_traced_flat": Case(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), FLAT, (2, 48)),
    "several_layers": Case(
        nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(48, 7), nn.ReLU(), nn.Linear(7, 5)),
        FLAT,
    ),
    "activated": Case(nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)), FLAT),
    "normalized": Case(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 5)), FLAT),
    "of_a_prime": Case(
        nn.Sequential(nn.Flatten(), nn.Linear(7, 5)),
        "float32[N, *] where prod(*) == 7 -> float32[N, 5]",
        (2, 7, 1, 1),
    ),
    "view_of_samples": Case(ViewOfSamples(), FLAT),
    "unsqueezed": Case(Unsqueezed(), FLAT),
    "with_features": Case(
        WithFeatures(),
        "float32[N, *] where prod(*) == 48 -> (float32[N, 5], float32[N, 48])",
    ),
    "rows": Case(Rows(), "float32[N, *] where N*prod(*) % 48 == 0 -> float32[N*prod(*)//48, 5]"),
    "rows_of_sample": Case(
        RowsOfSample(), "float32[N, *] where prod(*) % 48 == 0 -> float32[N, prod(*)//48, 5]"
    ),
    "whole": Case(Whole(), "float32[*] where prod(*) == 48 -> float32[5]", (2, 3, 2, 4)),
}
OF_SOME_RANKS = {
    "linear": Case(nn.Linear(48, 5), "float32[N, 48] -> float32[N, 5]", (2, 48)),
    "pooled": Case(Pooled(), "float32[N, 3, H, W] -> float32[N, 5]"),
    "pixels_of_channels": Case(
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(48, 5)),
        "float32[N, 3, H, W] where H*W == 16 -> float32[N, 5]",
    ),
    "up_to_four_axes": Case(UpToFourAxes(), "float32[N, 48] -> float32[N, 5]", (2, 48)),
    "samples_alone": Case(SamplesAlone(), "float32[N, 48] -> float32[N, 5]", (2, 48)),
    "volumes_differ": Case(VolumesDiffer(), "float32[N, 48] -> float32[N, 5]", (2, 48)),
}
CASES = OF_ANY_RANK | OF_SOME_RANKS
# A trace keeps what a branch did at one rank.
BRANCHES = ("up_to_four_axes", "samples_alone", "volumes_differ")


def saved(shelf: Shelf, name: str, form: str) -> str:
    """Return the path of a head in one form."""
    case = CASES[name]
    example = (torch.rand(case.traced),)
    return shelf.save(f"any_rank_{name}", case.module.eval(), form, example)


def found_in(path: str) -> Contract:
    """Return the contract of a model."""
    contract = inspect(path, options=options(trust=[path])).model.contract
    assert contract is not None
    return contract


def sizes_of_ranks(base: Sizes) -> Iterator[Sizes]:
    """Yield sizes of 1 to 6 axes, some with the product 48 or 7 and some with another one."""
    yield base
    for rest in ((), (48,), (7,), (96,), (47,), (1,), (6, 8), (8, 6), (7, 1), (7, 7), (2, 48),
                 (3, 4, 4), (16, 3, 1), (3, 4, 5), (1, 1, 7), (2, 2, 3, 4), (1, 48, 1, 1),
                 (2, 4, 3, 4), (2, 2, 2, 2, 3), (1, 1, 7, 1, 1), (2, 2, 2, 2, 2)):  # fmt: skip
        for batch in (1, 3, 48):
            yield (batch, *rest)


def predicted(contract: Contract, sizes: Sizes) -> list[Sizes] | None:
    """Return the sizes of the outputs at these sizes of the input; None if they are refused."""
    call = Call((Argument(TensorSpec("float32", sizes)),))
    ranked = at_rank(contract, call, contract.result)
    if ranked is None:
        return None
    known = sizes_by_name(ranked, call)
    results = list[Sizes]()
    for port in ranked.outputs:
        exprs = [as_expr(dim) for dim in port.dims or ()]
        results.append(tuple(evaluate(expr, known) for expr in exprs if expr is not None))
    return results


def run(module: nn.Module, sizes: Sizes) -> list[Sizes] | None:
    """Return the sizes of the outputs; None if the model fails."""
    try:
        with torch.no_grad():
            result = module(torch.rand(sizes))
    except (RuntimeError, ValueError, IndexError):
        return None
    results = result
    if isinstance(result, torch.Tensor):
        results = (result,)
    return [tuple(tensor.shape) for tensor in results]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OF_ANY_RANK)
def test_a_head_of_any_rank_is_what_its_contract_says(shelf: Shelf, name: str, form: str) -> None:
    case = CASES[name]
    contract = found_in(saved(shelf, name, form))
    assert str(contract) == case.contract
    taken = 0
    for sizes in sizes_of_ranks(case.traced):
        result = run(case.module.eval(), sizes)
        assert predicted(contract, sizes) == result, sizes
        taken += result is not None
    assert taken > 9


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_a_head_is_judged_right_at_each_rank(shelf: Shelf, name: str) -> None:
    path = saved(shelf, name, "scripted")
    judgement = judge(found_in(path), torch.jit.load(path), CASES[name].module.eval())
    assert judgement.wrong == ()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OF_SOME_RANKS)
def test_a_head_of_some_ranks_keeps_one(shelf: Shelf, name: str, form: str) -> None:
    if form == "traced" and name in BRANCHES:
        pytest.skip("a trace has no branches")
    contract = found_in(saved(shelf, name, form))
    assert contract.any_rank is None
    if form != "traced":
        assert str(contract).endswith(CASES[name].contract.rpartition(" -> ")[2])
        assert "*]" not in str(contract)


@pytest.mark.parametrize("name", ["flatten", "rows", "view_of_samples"])
def test_an_exported_head_keeps_the_rank_of_its_archive(shelf: Shelf, name: str) -> None:
    contract = found_in(saved(shelf, name, "exported"))
    assert contract.any_rank is None
    assert len(contract.inputs[0].dims or ()) == 4


PRODUCERS: dict[int, nn.Module] = {
    2: nn.Linear(4, 48),
    3: nn.Conv1d(2, 3, 3, padding=1),
    4: nn.Conv2d(2, 3, 3, padding=1),
    5: nn.Conv3d(2, 3, 3, padding=1),
}
WHEN = {2: [], 3: ["L==16"], 4: ["H==4", "W==4"], 5: ["D*H*W == 16"]}
TAKEN = {
    2: "float32[N, 48]",
    3: "float32[N, T, L] where T*L == 48",
    4: "float32[N, C, H, W] where C*H*W == 48",
    5: "float32[N, C, D, H, W] where C*D*H*W == 48",
}


@pytest.mark.parametrize("rank", PRODUCERS)
def test_a_producer_of_each_rank_is_judged_at_its_rank(
    installed: Installed, shelf: Shelf, rank: int
) -> None:
    paths = (
        shelf.save(f"gives_rank_{rank}", PRODUCERS[rank].eval()),
        saved(shelf, "flatten", "scripted"),
    )
    checked = installed.json("check", *paths)
    (seam,) = checked.json["seams"]
    assert (checked.code, seam["verdict"], seam["when"]) == (0, "compatible", WHEN[rank])
    assert [row["taken"] for row in seam["ports"]] == [TAKEN[rank]]
    assert checked.json["models"][1]["contract"]["text"] == FLAT
    joined = shelf.folder / f"rank_{rank}.pt"
    assert installed("join", *paths, "-o", joined).code == 0
    given = checked.json["example"].partition("[")[2].rstrip("]")
    sizes = tuple(map(int, given.split(",")))
    assert torch.jit.load(joined)(torch.rand(sizes)).shape == (sizes[0], 5)


@pytest.mark.parametrize(
    ("producer", "title"),
    [
        (nn.Sequential(nn.Conv1d(2, 3, 1), nn.AdaptiveAvgPool1d(9)), "T*L is 27, not 48"),
        (nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(5)), "C*H*W is 75, not 48"),
        (nn.Sequential(nn.Conv3d(2, 5, 1), nn.AdaptiveAvgPool3d(2)), "C*D*H*W is 40, not 48"),
    ],
)
def test_a_wrong_product_is_not_a_wrong_rank(
    composecli: Composecli, shelf: Shelf, producer: nn.Module, title: str
) -> None:
    name = f"gives_{title.replace('*', '_').replace(' ', '_')}"
    paths = (shelf.save(name, producer.eval()), saved(shelf, "flatten", "scripted"))
    checked = composecli.json("check", *paths)
    (seam,) = checked.json["seams"]
    (finding,) = seam["findings"]
    assert (checked.code, seam["verdict"]) == (1, "bridgeable")
    assert (finding["code"], finding["title"]) == ("CC204", title)
    steps = [step["type"] for step in finding["fix"]["bridge"]]
    assert steps == ["Flatten", "Linear"]
    joined = shelf.folder / f"{name}_bridged.pt"
    assert composecli("join", *paths, "--bridge", "linear", "-o", joined).code == 0
    assert joined.exists()


@pytest.mark.parametrize("order", [1, -1])
def test_a_parallel_head_takes_the_rank_of_the_model_beside_it(
    composecli: Composecli, shelf: Shelf, order: int
) -> None:
    image = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    paths = [shelf.save("beside", image), saved(shelf, "flatten", "scripted")][::order]
    joined = shelf.folder / f"parallel_{order}.pt"
    checked = composecli.json("check", "--mode", "parallel", *paths)
    assert (checked.code, checked.json["example"]) == (0, "float32[2, 3, 4, 4]")
    assert composecli("join", "--mode", "parallel", *paths, "-o", joined).code == 0
    assert torch.jit.load(joined)(torch.rand(2, 3, 4, 4)).shape == (2, 10)


def test_a_parallel_head_whose_product_never_fits_does_not_merge(
    composecli: Composecli, shelf: Shelf
) -> None:
    beside = shelf.save("beside_of_five", nn.Sequential(nn.Conv2d(5, 5, 3), nn.Flatten(2)))
    checked = composecli("check", "--mode", "parallel", beside, saved(shelf, "flatten", "scripted"))
    assert checked.code == 1


def test_a_head_that_follows_a_head_that_fails_is_judged_at_its_own_rank(
    composecli: Composecli, shelf: Shelf
) -> None:
    paths = (
        shelf.save("gives_rank_3", PRODUCERS[3].eval()),
        shelf.save("takes_another_dtype", nn.Embedding(5, 3)),
        saved(shelf, "rows_of_sample", "scripted"),
        shelf.save("takes_five", nn.Linear(5, 2)),
    )
    checked = composecli.json("check", *paths)
    assert next(seam["verdict"] for seam in checked.json["seams"]) == "incompatible"
    assert checked.json["seams"][2]["verdict"] in ("compatible", "unknown")


def test_the_contract_of_any_rank_is_shown_in_each_format(
    installed: Installed, shelf: Shelf
) -> None:
    path = saved(shelf, "flatten", "scripted")
    shown = installed("inspect", path)
    assert f"contract: {FLAT}" in shown.out
    assert "other ranks took (3, 3, 16)" in " ".join(shown.out.split())
    contract = installed.json("inspect", path).json["model"]["contract"]
    assert contract["inputs"][0]["dims"] == ["N", "*"]
    assert contract["where"] == ["prod(*) == 48"]
    assert contract["text"] == FLAT


def test_axes_of_the_rest_are_followed_by_number(composecli: Composecli, shelf: Shelf) -> None:
    shown = composecli("inspect", saved(shelf, "rows", "scripted"))
    assert "; axis 1 is mixed" in shown.out


def test_a_model_that_starts_a_chain_is_shown_at_the_rank_of_its_example(
    composecli: Composecli, shelf: Shelf
) -> None:
    paths = (saved(shelf, "rows_of_sample", "scripted"), shelf.save("of_five", nn.Linear(5, 2)))
    checked = composecli.json("check", *paths)
    contract = "float32[N, D%48==0] -> float32[N, D//48, 5]"
    assert checked.json["models"][0]["contract"]["text"] == contract


@pytest.mark.parametrize("stated", ["float32[N, *]", "float32[N, *] where prod(*) == 48", "*"])
def test_a_stated_input_has_a_rank(composecli: Composecli, shelf: Shelf, stated: str) -> None:
    ran = composecli("inspect", saved(shelf, "flatten", "scripted"), "--input", stated)
    assert ran.code == 2
    assert "* is any number of axes; state a size or a name for each" in ran.err


def test_a_stated_rank_is_kept(composecli: Composecli, shelf: Shelf) -> None:
    ran = composecli.json("inspect", saved(shelf, "flatten", "scripted"), "--input", "2,3,4,4")
    contract = ran.json["model"]["contract"]
    assert contract["text"] == "float32[N, C, H, W] where C*H*W == 48 -> float32[N, 5]"
    assert math.prod((3, 4, 4)) == 48


def test_ids_keep_their_rank(composecli: Composecli, shelf: Shelf) -> None:
    tokens = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 5))
    inspected = composecli.json("inspect", shelf.save("flat_ids", tokens))
    assert inspected.json["model"]["contract"]["text"] == "int64[N, 6] -> float32[N, 5]"


class SumOfSample(nn.Module):
    """Returns one number for each sample, whatever the rank of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).sum(1)


def test_no_batch_is_added_that_does_not_reach_the_consumer(
    composecli: Composecli, shelf: Shelf
) -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(1024, 2)).eval()
    paths = shelf.save("sum_of_sample", SumOfSample()), shelf.save("head_of_1024", head)
    assert composecli.json("check", *paths).json["verdict"] == "incompatible"
