"""The judge finds what is wrong with a contract, also where sizes follow from others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from composecli.core.contract import Contract, Port, Signature
from composecli.core.dims import parse_shape
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.core.relations import parse_where
from tests.zoo.judge import Judgement, judge
from tests.zoo.nn_models import PixelMask, RoundingUp, SkipDecoder

MASK = (("float32", (2, 3, 16, 24)), ("int64", (2, 24)))
SKIP = (("float32", (2, 8, 12, 20)), ("float32", (2, 16, 6, 10)))
IMAGE = (("float32", (2, 3, 16, 16)),)
Example = tuple[tuple[str, tuple[int, ...]], ...]


def judged(module: nn.Module, example: Example, dims: tuple[str, ...]) -> Judgement:
    """Judge the contract with these dims: those of the inputs, and of the output last."""
    *shapes, result = map(parse_shape, dims)
    specs = [TensorSpec(dtype, sizes, below=2) for dtype, sizes in example]
    ports = tuple(
        Port(f"input {number}", (number,), spec.dtype, shape)
        for number, (spec, shape) in enumerate(zip(specs, shapes, strict=True))
    )
    output = Port("output 0", (), "float32", result)
    call = Call(tuple(map(Argument, specs)))
    torch.manual_seed(0)
    module = module.eval()
    contract = Contract(ports, (output,), call, TensorSpec("float32", ()), ())
    return judge(contract, module, module)


@pytest.mark.parametrize(
    ("module", "example", "dims"),
    [
        (
            SkipDecoder(),
            SKIP,
            ("N, 8, 2*H, 2*W", "N, 16, H, W", "N, 4, 2*H, 2*W"),
        ),
        (
            RoundingUp(),
            IMAGE,
            ("N, 3, H%4 in {0, 3}, W%4 in {0, 3}", "N, 8, ceil(H/2), ceil(W/2)"),
        ),
        (
            PixelMask(),
            MASK,
            ("N, 3, H>=4, W>=4", "N, (H//4)*(W//4)", "N, 8, (H//4)*(W//4)"),
        ),
    ],
)
def test_a_true_contract_is_not_wrong(
    module: nn.Module, example: Example, dims: tuple[str, ...]
) -> None:
    assert judged(module, example, dims).wrong == ()


@pytest.mark.parametrize(
    ("module", "example", "dims", "wrong"),
    [
        # Sizes that are admitted fail.
        (SkipDecoder(), SKIP, ("N, 8, 2*H, 20", "N, 16, H, W", "N, 4, 2*H, 20"), "which fails"),
        (
            RoundingUp(),
            IMAGE,
            ("N, 3, H%4 in {0, 1, 3}, W%4 in {0, 3}", "N, 8, ceil(H/2), ceil(W/2)"),
            "which fails",
        ),
        (PixelMask(), MASK, ("N, 3, H>=4, 24", "N, H//4*2", "N, 8, H//4*2"), "which fails"),
        # Sizes that are excluded run.
        (
            RoundingUp(),
            IMAGE,
            ("N, 3, H%4==0, W%4 in {0, 3}", "N, 8, ceil(H/2), ceil(W/2)"),
            "is accepted",
        ),
        (
            RoundingUp(),
            IMAGE,
            ("N, 3, H>=8 & H%4 in {0, 3}, W%4 in {0, 3}", "N, 8, ceil(H/2), ceil(W/2)"),
            "is accepted",
        ),
        (
            SkipDecoder(),
            SKIP,
            ("N<=2, 8, 2*H, 2*W", "N<=2, 16, H, W", "N, 4, 2*H, 2*W"),
            "N<=2, but",
        ),
        # The output has another size.
        (SkipDecoder(), SKIP, ("N, 8, 2*H, 2*W", "N, 16, H, W", "N, 4, 2*H, W"), "not W"),
    ],
)
def test_a_false_contract_is_wrong(
    module: nn.Module, example: Example, dims: tuple[str, ...], wrong: str
) -> None:
    assert wrong in "; ".join(judged(module, example, dims).wrong)


@pytest.mark.parametrize(
    ("module", "wrong"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), False),
        (nn.Sequential(nn.Flatten(), nn.Linear(49, 5)), True),
        (nn.Linear(48, 5), True),
        (nn.Sequential(nn.Flatten(-2), nn.Linear(48, 5)), True),
    ],
)
def test_a_claim_of_any_rank_is_judged_at_several(module: nn.Module, *, wrong: bool) -> None:
    call = Call((Argument(TensorSpec("float32", (2, 48))),))
    output = Port("output 0", (), "float32", parse_shape("N, 5"))
    taken = Port("x", (0,), "float32", parse_shape("N, 48"))
    of_any_rank = replace(taken, dims=parse_shape("N"), rest=1)
    signature = Signature((of_any_rank,), (output,), parse_where("prod(*) == 48"))
    ports = ((taken,), (output,))
    contract = Contract(*ports, call, TensorSpec("float32", (2, 5)), (), any_rank=signature)
    assert bool(judge(contract, module, module).wrong) is wrong
