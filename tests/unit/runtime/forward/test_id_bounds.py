"""Bounds of ids: the positions have one, and what is written over has none any more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from composecli.runtime.forward.id_bounds import bound_of
from composecli.runtime.forward.mark_mode import MarkMode, Trail
from composecli.runtime.forward.marks import Marks

ROWS, COLUMNS = 7, 40
Make = Callable[[Tensor], Tensor]

POSITIONS: dict[str, tuple[Make, int]] = {
    "argmax": (lambda x: x.argmax(-1), COLUMNS),
    "argmax of all": (lambda x: x.argmax(), ROWS * COLUMNS),
    "argmin": (lambda x: x.argmin(0), ROWS),
    "argsort": (lambda x: x.argsort(), COLUMNS),
    "topk": (lambda x: x.topk(3)[1], COLUMNS),
    "sort": (lambda x: x.sort(0)[1], ROWS),
    "stable sort": (lambda x: torch.sort(x, stable=True, dim=0)[1], ROWS),
    "max": (lambda x: x.max(1)[1], COLUMNS),
    "min": (lambda x: x.min(0)[1], ROWS),
    "kthvalue": (lambda x: x.kthvalue(2)[1], COLUMNS),
    "median": (lambda x: x.median(0)[1], ROWS),
    "cummax": (lambda x: x.cummax(1)[1], COLUMNS),
    "a copy": (lambda x: x.argmax(-1).int(), COLUMNS),
    "a view": (lambda x: x.argmax(-1)[2:, None], COLUMNS),
}


@pytest.mark.parametrize("case", POSITIONS)
def test_positions_are_below_the_size_of_their_axis(case: str) -> None:
    make, size = POSITIONS[case]
    with MarkMode(Marks(), Trail()):
        assert bound_of(make(torch.randn(ROWS, COLUMNS))) == size


VALUES: dict[str, Make] = {
    "max": lambda ids: ids.max(1)[0],
    "max of all": lambda ids: ids.max(),
    "larger": lambda ids: torch.max(ids, ids + 1),
    "topk": lambda ids: ids.topk(3)[0],
    "sort": lambda ids: ids.sort()[0],
    "median": lambda ids: ids.median(1)[0],
}


@pytest.mark.parametrize("case", VALUES)
def test_values_are_no_positions(case: str) -> None:
    with MarkMode(Marks(), Trail()):
        assert bound_of(VALUES[case](torch.randint(5000, (ROWS, COLUMNS)))) is None


def test_the_largest_of_positions_is_one_of_them() -> None:
    with MarkMode(Marks(), Trail()):
        best = torch.randn(ROWS, 5, COLUMNS).argmax(1)
        assert bound_of(best.max(-1)[0]) == 5


def _written_by_view(ids: Tensor) -> Tensor:
    """Write to a view of the ids."""
    ids[1:3].fill_(9999)
    return ids


WRITES: dict[str, Make] = {
    "clamped": lambda ids: ids.clamp_(max=3),
    "by a view": _written_by_view,
    "by index": lambda ids: ids.index_fill_(0, torch.tensor([1]), 9999),
    "a view of it": lambda ids: ids.add_(9999)[1:],
    "out": lambda ids: torch.add(ids, 9999, out=ids),
    "a part with positions": lambda ids: torch.argmax(torch.randn(9, 3), -1, out=ids.add_(1)),
}


@pytest.mark.parametrize("case", WRITES)
def test_a_write_ends_the_bound(case: str) -> None:
    with MarkMode(Marks(), Trail()):
        ids = torch.randn(9, COLUMNS).argmax(-1)
        assert bound_of(WRITES[case](ids)) is None
