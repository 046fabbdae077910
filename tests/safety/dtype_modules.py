"""Modules that give an op a dtype: as a constant, from a tensor, or as a number that may be any.

PyTorch reads the annotations as objects, so they cannot be texts in this module.
"""

# mypy: disable-error-code="arg-type, call-overload, no-any-return, return-value"
# ruff: noqa: UP006, UP035

from typing import List, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros([3], dtype=torch.float64) + x.to(torch.float32).to(x.dtype)


class OfTensors(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float64)
        return torch.empty([3], dtype=torch.result_type(x, x)).to(wide)


class OfFunctional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.softmax(x, -1) + functional.log_softmax(x, -1, dtype=torch.float64)


class Chosen(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.float32
        for _ in range(x.size(0)):
            if x.dtype == torch.float64:
                dtype = torch.float64
        return x.to(dtype)


class Attribute(nn.Module):
    def __init__(self, dtype: object = torch.float64) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


class Given(nn.Module):
    def change(self, x: Tensor, dtype: int) -> Tensor:
        return x.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x, 6) + self.change(x, x.dtype)


class Returned(nn.Module):
    def chosen(self, x: Tensor) -> int:
        return x.dtype if x.dim() > 1 else 6

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.chosen(x))


class WildConstant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros([3], dtype=200) + x


class Computed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros([3], dtype=x.size(0)) + x


class CopiedToNone(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to(None, False, True)


class NotCopied(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to(None, False, False)


class Sparse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros([3], dtype=torch.quint8, layout=torch._mkldnn).dequantize() + x


class Summed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        dtype = 6
        for _ in range(x.size(0)):
            dtype = dtype + 100
        return x.to(dtype)


class Assigned(Attribute):
    def forward(self, x: Tensor) -> Tensor:
        self.dtype = x.size(0) * 100
        return x.to(self.dtype)


class GivenWild(Given):
    def forward(self, x: Tensor) -> Tensor:
        return self.change(x, 6) + self.change(x, x.size(0))


class ReturnedWild(Returned):
    def chosen(self, x: Tensor) -> int:
        return x.size(0)


class OfList(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        dtypes: List[int] = [6, 200]
        return x.to(dtypes[1])


class OfCaller(nn.Module):
    def forward(self, x: Tensor, dtype: int = 6) -> Tensor:
        return x.to(dtype)


class WildFormat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=127)


class Forked(nn.Module):
    def wild(self, x: Tensor) -> Tensor:
        return x.to(x.size(0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.jit.wait(torch.jit.fork(self.wild, x))


class Hooked(nn.Module):
    def forward(self, x: Tensor) -> int:
        return x.size(0)


def give_result(self: Hooked, given: Tuple[Tensor], result: int) -> Tensor:
    return given[0].to(result)
