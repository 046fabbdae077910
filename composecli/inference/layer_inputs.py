"""Layers: what a layer takes, from its class and the parameters that it holds."""

from __future__ import annotations

from collections.abc import Iterator

from composecli.core.facts import LayerFact, NamedSizes
from composecli.core.pytree import TensorSpec

BATCH = 2
LENGTH = 8
# Height and width, or length, by the rank of the input: small enough to be cheap, large enough for most networks.
SPATIAL = {3: 64, 4: 64, 5: 16}


def layer_inputs(layer: LayerFact) -> Iterator[TensorSpec]:
    """Each input that a layer may take, the likeliest first; none where that cannot be said."""
    parameters = {parameter.name: parameter for parameter in layer.parameters}
    recurrent = parameters.get("weight_ih_l0") or parameters.get("weight_ih")
    attention = parameters.get("in_proj_weight")
    weight = parameters.get("weight")
    if recurrent is not None and len(recurrent.sizes) == 2:
        yield from _recurrent(layer, recurrent)
    elif attention is not None and len(attention.sizes) == 2:
        yield TensorSpec(attention.dtype, (LENGTH, BATCH, attention.sizes[1]))
    elif weight is None:
        return
    elif "Norm" in layer.class_name:
        yield from _normalised(layer.class_name, weight)
    elif len(weight.sizes) == 1:
        if weight.sizes[0] > 1:
            yield TensorSpec(weight.dtype, (BATCH, weight.sizes[0]))
    elif len(weight.sizes) == 2 and layer.class_name.startswith("Embedding"):
        yield TensorSpec("int64", (BATCH, LENGTH), below=weight.sizes[0])
    elif len(weight.sizes) == 2:
        yield TensorSpec(weight.dtype, (BATCH, weight.sizes[1]))
    elif layer.class_name == "Bilinear":
        yield from (TensorSpec(weight.dtype, (BATCH, size)) for size in weight.sizes[1:])
    elif len(weight.sizes) in SPATIAL:
        groups = dict(layer.constants).get("groups", 1)
        channels = weight.sizes[0] if "Transpose" in layer.class_name else weight.sizes[1] * groups
        yield image(channels, len(weight.sizes), weight.dtype)


def image(channels: int, rank: int, dtype: str) -> TensorSpec:
    return TensorSpec(dtype, (BATCH, channels, *(SPATIAL[rank],) * (rank - 2)))


def _recurrent(layer: LayerFact, weight: NamedSizes) -> Iterator[TensorSpec]:
    """Its sequence, then its hidden state: one row for each of its layers and directions."""
    inner = [parameter for parameter in layer.parameters if parameter.name.startswith("weight_hh")]
    cell = weight.name == "weight_ih"
    yield TensorSpec(weight.dtype, (*(() if cell else (LENGTH,)), BATCH, weight.sizes[1]))
    if inner:
        yield TensorSpec(
            inner[0].dtype, (*(() if cell else (len(inner),)), BATCH, inner[0].sizes[1])
        )


def _normalised(name: str, weight: NamedSizes) -> Iterator[TensorSpec]:
    if name.startswith(("BatchNorm", "InstanceNorm")) and name[-2:-1] in "123":
        rank = int(name[-2]) + 2
        if rank == 3 and name.startswith("BatchNorm"):
            yield TensorSpec(weight.dtype, (BATCH, weight.sizes[0]))
        yield TensorSpec(weight.dtype, (BATCH, weight.sizes[0], *(LENGTH,) * (rank - 2)))
    elif name == "GroupNorm":
        yield TensorSpec(weight.dtype, (BATCH, weight.sizes[0], LENGTH))
    else:
        yield TensorSpec(weight.dtype, (BATCH, *weight.sizes))
