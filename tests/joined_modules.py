"""Modules that run in Python and that TorchScript cannot express: they are joined all the same.

Each takes `float32[N, 8]` and computes `float32[N, 4]`; MODULES names the output to select, if it
has several.
"""

# mypy: ignore-errors
# Their forwards have no annotations, as most modules, or wrong ones.

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Layer(nn.Module):
    """Has the layer that all of them use."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)


class OptionalLoss(Layer):
    """Returns None beside its output, as many language models do."""

    def forward(self, x, targets=None):
        loss = None
        if targets is not None:
            loss = (self.fc(x) - targets).sum()
        return self.fc(x), loss


class NoneFirst(Layer):
    def forward(self, x, targets=None):
        return targets, self.fc(x)


class DictWithNone(Layer):
    def forward(self, x, labels=None):
        return {"loss": labels, "logits": self.fc(x)}


class MixedDict(Layer):
    def forward(self, x):
        return {"logits": self.fc(x), "hidden": (x, 2 * x), "name": "net", "rows": 3}


class NestedDict(Layer):
    def forward(self, x):
        return {"a": {"b": [self.fc(x), None]}, "c": "text"}


class PlainValues(Layer):
    def forward(self, x):
        return self.fc(x), "text", 3, 2.5, True, float("inf"), torch.float32


class WithSet(Layer):
    def forward(self, x):
        return self.fc(x), {1, 2}, object()


@dataclass
class Info:
    step: int
    values: Tensor
    mask: Tensor | None = None


class WithDataclass(Layer):
    def forward(self, x):
        return self.fc(x), Info(1, x)


class DataclassField(Layer):
    def forward(self, x):
        return Info(1, self.fc(x))


class ModelOutput(OrderedDict):
    """As in transformers: a dataclass that is a dict of its fields that are not None."""

    def __init_subclass__(cls):
        dataclass(cls)

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                self[field.name] = value


class CausalOutput(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None
    past: tuple | None = None


class LanguageModel(Layer):
    def forward(self, input=None, labels=None, return_dict=None, **kwargs):
        y = self.fc(input)
        return CausalOutput(logits=y, past=((y, y), (y, y)))


class Named(NamedTuple):
    mean: Tensor
    extra: Tensor | None


class NamedField(Layer):
    def forward(self, x, extra=None):
        return Named(self.fc(x), extra)


Untyped = namedtuple("Untyped", "mean scale")


class UntypedField(Layer):
    def forward(self, x):
        return Untyped(self.fc(x), self.fc(2 * x))


class ListWithNone(Layer):
    def forward(self, x):
        return [self.fc(x), None, x]


class Starred(Layer):
    def forward(self, *args):
        return self.fc(args[0])


class Keywords(Layer):
    def forward(self, x, **kwargs):
        return self.fc(x) * kwargs.get("scale", 1.0)


class KeywordOnly(Layer):
    def forward(self, x, *, scale=2.0, mask=None):
        y = self.fc(x) * scale
        if mask is not None:
            y = y * mask
        return y


class NewUnion(Layer):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        y = self.fc(x)
        if mask is not None:
            y = y * mask
        return y


class Defaults(Layer):
    def forward(self, x, n: int = 2, mode="train", flag=True):
        y = self.fc(x)
        if mode == "train" and flag:
            y = y * n
        return y


class WrongAnnotations(Layer):
    def forward(self, x: np.ndarray) -> Output:  # noqa: F821
        return self.fc(x)


class FString(Layer):
    def forward(self, x, **kwargs):
        y = {f"width {x.shape[-1]}": self.fc(x)}
        return y["width 8"]


class Try(Layer):
    def forward(self, x):
        try:
            return self.fc(x)
        except ValueError:
            return x


class Warns(Layer):
    def forward(self, x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.fc(x)


class Hooked(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.fc.register_forward_hook(lambda _module, _inputs, result: result * 2)
        self.fc.register_full_backward_hook(lambda *_: None)
        self.register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 1,))
        self.register_forward_hook(lambda _module, _inputs, result: result * 3)

    def forward(self, x):
        return self.fc(x)


class Partial(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.act = functools.partial(nn.functional.leaky_relu, negative_slope=0.3)

    def forward(self, x):
        return self.act(self.fc(x))


class WithLambda(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.act = lambda y: y.clamp(min=0) * 0.5

    def forward(self, x):
        return self.act(self.fc(x))


class OwnForward(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.forward = functools.partial(self.scaled, scale=2.0)

    def scaled(self, x, scale):
        return self.fc(x) * scale


class Reshaped(Layer):
    """Uses the batch size in its code; a trace has to keep it variable."""

    def forward(self, x, **kwargs):
        rows, _width = x.shape
        y = self.fc(x).view(rows, 2, -1).permute(0, 2, 1).reshape(rows, -1)
        return y + torch.arange(x.shape[0]).unsqueeze(1) / rows**0.5


class InPlaceMask(Layer):
    def forward(self, x, **kwargs):
        y = self.fc(x)
        y[x[:, :4] > 0.5] = 0.0
        return y


class WithoutGradients(Layer):
    @torch.no_grad()
    def forward(self, x):
        return self.fc(x)


class FrozenBody(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)

    def forward(self, x, **kwargs):
        with torch.no_grad():
            y = self.body(x).relu()
        return self.fc(y)


class Inference(Layer):
    @torch.inference_mode()
    def forward(self, x):
        return self.fc(x)


class SwishFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        sigmoid = torch.sigmoid(x)
        return gradient * sigmoid * (1 + x * (1 - sigmoid))


class Swish(Layer):
    def forward(self, x):
        return SwishFunction.apply(self.fc(x))


class RoundFunction(torch.autograd.Function):
    """Has gradients that do not follow from its forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Rounded(Layer):
    def forward(self, x):
        return RoundFunction.apply(self.fc(x))


class Checkpointed(Layer):
    def forward(self, x):
        return checkpoint(self.fc, x, use_reentrant=True)


class Lazy(nn.Module):
    """Has layers that get their sizes from the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.LazyLinear(4)
        self.norm = nn.LazyBatchNorm1d()
        self.conv = nn.LazyConv1d(6, 2, groups=2)
        self.up = nn.LazyConvTranspose1d(1, 3)

    def forward(self, x):
        y = self.norm(self.fc(x)).unflatten(1, (2, 2))
        return self.up(self.conv(y)).flatten(1).repeat(1, 2)[:, :4]


class IntegerKeys(Layer):
    def forward(self, x):
        return {0: self.fc(x), 1: x}


class NoneInTuple(Layer):
    def forward(self, x):
        return None, (self.fc(x), None)


class TupleOfDicts(Layer):
    def forward(self, x):
        return {"y": self.fc(x)}, {"y": x}


class ListOfResults(Layer):
    def forward(self, x):
        return [self.fc(x) for _ in range(3)]


class Matched(Layer):
    def forward(self, x):
        match x.dim():
            case 2:
                return self.fc(x)
            case _:
                return self.fc(x).sum()


class StarredSizes(Layer):
    def forward(self, x):
        rows, *others = x.shape
        return self.fc(x).reshape(rows, -1) * len(others)


class InnerFunction(Layer):
    def forward(self, x):
        def layer(value):
            return self.fc(value)

        return sum([layer(x) for _ in "ab"])


MODULES: dict[str, str | None] = {
    "IntegerKeys": "0",
    "NoneInTuple": "[1][0]",
    "TupleOfDicts": "[0].y",
    "ListOfResults": "[0]",
    "Matched": None,
    "StarredSizes": None,
    "InnerFunction": None,
    "OptionalLoss": "[0]",
    "NoneFirst": "[1]",
    "DictWithNone": "logits",
    "MixedDict": "logits",
    "NestedDict": "a.b[0]",
    "PlainValues": "[0]",
    "WithSet": "[0]",
    "WithDataclass": "[0]",
    "DataclassField": "values",
    "LanguageModel": "logits",
    "NamedField": "mean",
    "UntypedField": "scale",
    "ListWithNone": "[0]",
    "Starred": None,
    "Keywords": None,
    "KeywordOnly": None,
    "NewUnion": None,
    "Defaults": None,
    "WrongAnnotations": None,
    "FString": None,
    "Try": None,
    "Warns": None,
    "Hooked": None,
    "Partial": None,
    "WithLambda": None,
    "OwnForward": None,
    "Reshaped": None,
    "InPlaceMask": None,
    "WithoutGradients": None,
    "FrozenBody": None,
    "Inference": None,
    "Swish": None,
    "Rounded": None,
    "Checkpointed": None,
    "Lazy": None,
}
