"""A model that flattens its input is of any rank, and no model of one rank is called so."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from composecli.core.pytree import Call, Tree, call_leaves
from composecli.inference.generalize import generalize
from composecli.inference.hints import Hints
from composecli.inference.prober import Budget
from tests.parsing import spec
from tests.unit.inference.builders import candidate, facts, prober

Sizes = tuple[int, ...]
# Return the sizes of the output, or None to refuse the input.
Rule = Callable[[Sizes], Sizes | None]


def forward(rule: Rule) -> Callable[[Call], Tree | None]:
    """Return a forward of one float32 tensor that follows a rule of sizes."""

    def run(tried: Call) -> Tree | None:
        ((_, tensor),) = call_leaves(tried)
        sizes = rule(tensor.sizes)
        if sizes is None or tensor.dtype != "float32":
            return None
        return spec(f"float32[{', '.join(map(str, sizes))}]")

    return run


def found(rule: Rule, sizes: str, *, stated: bool = False, probes: int = 300) -> str:
    """Return the contract that is found from an example of these sizes."""
    tried = candidate(f"float32[{sizes}]")
    runs = prober(forward(rule), Budget(probes))
    observation = runs.trace(tried.call)
    hints = Hints(facts(parameters=1), tried if stated else None)
    return str(generalize(tried, observation, hints, runs))  # type: ignore[arg-type]


def flat(sizes: Sizes) -> Sizes | None:
    """Flatten all axes but the batch, for a layer of 48 features."""
    if len(sizes) > 1 and math.prod(sizes[1:]) == 48:
        return (sizes[0], 5)
    return None


def flat_pixels(sizes: Sizes) -> Sizes | None:
    """Flatten all axes but the batch and the channels."""
    if len(sizes) > 2 and math.prod(sizes[2:]) == 12:
        return (*sizes[:2], 5)
    return None


def rows(sizes: Sizes) -> Sizes | None:
    """Read all elements as rows of 12."""
    count, rest = divmod(math.prod(sizes), 12)
    return None if rest or not sizes else (count, 5)


def rows_of_sample(sizes: Sizes) -> Sizes | None:
    """Read the elements of each sample as rows of 12."""
    if len(sizes) < 2 or math.prod(sizes[1:]) % 12:
        return None
    return (sizes[0], math.prod(sizes[1:]) // 12, 5)


def whole(sizes: Sizes) -> Sizes | None:
    """Read all elements as one row of 48."""
    return (5,) if math.prod(sizes) == 48 and sizes else None


FLAT = "float32[N, *] where prod(*) == 48 -> float32[N, 5]"


@pytest.mark.parametrize(
    ("rule", "sizes", "contract"),
    [
        (flat, "2, 48", FLAT),
        (flat, "2, 6, 8", FLAT),
        (flat, "2, 3, 4, 4", FLAT),
        (flat, "2, 3, 2, 2, 4", FLAT),
        (flat_pixels, "2, 3, 12", "float32[N, T, *] where prod(*) == 12 -> float32[N, T, 5]"),
        (flat_pixels, "2, 3, 3, 4", "float32[N, C, *] where prod(*) == 12 -> float32[N, C, 5]"),
        (
            rows,
            "2, 12",
            "float32[N, *] where N*prod(*) % 12 == 0 -> float32[N*prod(*)//12, 5]",
        ),
        (
            rows,
            "2, 4, 6",
            "float32[N, *] where N*prod(*) % 12 == 0 -> float32[N*prod(*)//12, 5]",
        ),
        (
            rows_of_sample,
            "2, 24",
            "float32[N, *] where prod(*) % 12 == 0 -> float32[N, prod(*)//12, 5]",
        ),
        (
            rows_of_sample,
            "2, 4, 6",
            "float32[N, *] where prod(*) % 12 == 0 -> float32[N, prod(*)//12, 5]",
        ),
        (whole, "2, 24", "float32[*] where prod(*) == 48 -> float32[5]"),
        (whole, "2, 4, 6", "float32[*] where prod(*) == 48 -> float32[5]"),
    ],
)
def test_a_model_that_flattens_is_of_any_rank(rule: Rule, sizes: str, contract: str) -> None:
    assert found(rule, sizes) == contract


def linear(sizes: Sizes) -> Sizes | None:
    """Take 48 features on the last axis."""
    return (*sizes[:-1], 5) if sizes and sizes[-1] == 48 else None


def up_to_rank(most: int) -> Rule:
    """Return the flatten head, refusing more axes."""
    return lambda sizes: flat(sizes) if len(sizes) <= most else None


def one_rank_differs(sizes: Sizes) -> Sizes | None:
    """Flatten, and return another axis for volumes alone."""
    result = flat(sizes)
    return (*result, 1) if result is not None and len(sizes) == 4 else result


def adds_a_batch(sizes: Sizes) -> Sizes | None:
    """Take a sample without its batch, too."""
    return (1, 5) if sizes == (48,) else flat(sizes)


def follows_an_axis(sizes: Sizes) -> Sizes | None:
    """Return as many channels as there are, beside what was flattened."""
    return (sizes[0], sizes[1]) if flat(sizes) is not None else None


def too_much_is_fine(sizes: Sizes) -> Sizes | None:
    """Cut what is beyond 48 elements of a sample off, but of a row."""
    enough = len(sizes) > 2 and math.prod(sizes[1:]) >= 48
    return (sizes[0], 5) if enough else flat(sizes)


@pytest.mark.parametrize(
    ("rule", "sizes", "contract"),
    [
        (linear, "2, 48", "float32[N, 48] -> float32[N, 5]"),
        (linear, "2, 3, 48", "float32[N, T, 48] -> float32[N, T, 5]"),
        (up_to_rank(2), "2, 48", "float32[N, 48] -> float32[N, 5]"),
        (
            up_to_rank(4),
            "2, 3, 4, 4",
            "float32[N, C, H, W] where C*H*W == 48 -> float32[N, 5]",
        ),
        (up_to_rank(6), "2, 48", "float32[N, 48] -> float32[N, 5]"),
        (one_rank_differs, "2, 48", "float32[N, 48] -> float32[N, 5]"),
        (adds_a_batch, "2, 48", "float32[N, 48] -> float32[N, 5]"),
        (
            follows_an_axis,
            "2, 6, 8",
            "float32[N, T, L] where T*L == 48 -> float32[N, T]",
        ),
        (too_much_is_fine, "2, 48", "float32[N, 48] -> float32[N, 5]"),
    ],
)
def test_a_model_of_some_ranks_keeps_the_rank_of_its_example(
    rule: Rule, sizes: str, contract: str
) -> None:
    assert found(rule, sizes) == contract


def test_a_stated_rank_is_kept() -> None:
    assert found(flat, "2, 48", stated=True) == "float32[N, 48] -> float32[N, 5]"


def test_nothing_is_claimed_when_the_budget_is_spent() -> None:
    enough = next(count for count in range(1, 300) if found(flat, "2, 48", probes=count) == FLAT)
    assert found(flat, "2, 48", probes=enough - 1) == "float32[N, 48] -> float32[N, 5]"
