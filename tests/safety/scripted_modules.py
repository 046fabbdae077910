"""Modules with types that TorchScript code narrows or chooses from.

PyTorch reads the annotations of attributes as objects, so they cannot be texts in this module.
"""

# mypy: disable-error-code="arg-type, misc"
# ruff: noqa: UP006, UP007, UP035, UP045

from typing import Any, List, Optional, Tuple, Union

import torch
from torch import nn


class OneOfTwoLists(nn.Module):
    """Attributes that are the second alternative of their types."""

    names: Union[List[int], List[str]]
    pair: Union[Tuple[int, int], Tuple[str, str]]

    def __init__(self) -> None:
        super().__init__()
        self.names = ["a"]
        self.pair = ("a", "b")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@torch.jit.interface
class MayReturn(nn.Module):
    """An interface whose method may return nothing."""

    def forward(self, x: torch.Tensor) -> Optional[torch.Tensor]:
        pass


class AlwaysReturns(nn.Module):
    """A module that does more than its interface says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class ThroughInterface(nn.Module):
    """Calls a submodule through an interface."""

    inner: MayReturn

    def __init__(self) -> None:
        super().__init__()
        self.inner = AlwaysReturns()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner.forward(x)
        return x if y is None else y


class Narrowed(nn.Module):
    """Types that conditions narrow: to classes, tuples, and lists of them."""

    def forward(
        self,
        x: torch.Tensor,
        pair: Optional[Tuple[int, int]] = None,
        choice: Union[Tuple[int, str], Tuple[int, int, int], int] = 1,
        other: Any = None,
    ) -> torch.Tensor:
        if isinstance(other, Tuple[int, int]) and pair is not None:
            return x + other[0] + pair[0]
        if not isinstance(other, List[Tuple[int, str]]):
            return x
        if isinstance(choice, int):
            return x + choice
        assert isinstance(choice, Tuple[int, str])
        return x + other[0][0] + choice[0]
