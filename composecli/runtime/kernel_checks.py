"""Checks of the arguments of ops whose kernels trust them: `guarded_kernels` has the list.

Each check gets the arguments by their names in the schema of the op, with the defaults filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

MAX_SIZE = 2**62
_LSTM, _LSTM_GATES = 2, 4

Arguments: TypeAlias = Mapping[str, Any]
Check: TypeAlias = Callable[[Arguments], None]


class BeyondMemory(RuntimeError):
    """The arguments of an op reach beyond the memory of its tensors."""


class _Requirements:
    """Conditions on the arguments of one op; `what` names the ones that are checked."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, *conditions: bool) -> None:
        """Raise BeyondMemory if a condition does not hold."""
        if not all(conditions):
            raise BeyondMemory(f"an op was called with {self.what} beyond its tensors' memory")


def check_view(given: Arguments) -> None:
    """Check that a view by sizes and strides lies in the storage of its tensor."""
    tensor = given["self"]
    if tensor.is_meta or tensor.layout is not torch.strided:
        return
    require = _Requirements("a view")
    size, stride = given["size"], given["stride"]
    require(len(size) == len(stride))
    require(*(0 <= number < MAX_SIZE for number in (*size, *stride)))
    offset = given.get("storage_offset")
    if offset is None:
        offset = tensor.storage_offset()
    if 0 in size:
        return
    last = offset
    for one, step in zip(size, stride, strict=True):
        last += (one - 1) * step
    elements = tensor.untyped_storage().nbytes() // tensor.itemsize
    require(offset >= 0, last < elements)


def check_outputs(outputs: Collection[str], given: Arguments) -> None:
    """Check that no output shares its memory with another tensor of the call.

    Giving it its size would change the other's: `_linalg_eigh` then writes one status for each
    matrix into room for fewer.
    """
    require = _Requirements("an output that is also read,")
    storages = [
        tensor.untyped_storage()._cdata
        for tensor in given.values()
        if isinstance(tensor, Tensor) and tensor.layout is torch.strided
    ]
    for name in outputs:
        tensor = given[name]
        require(storages.count(tensor.untyped_storage()._cdata) == 1)


def check_triangle(given: Arguments) -> None:
    """Check that the matrices of an output `(..., M, N)` lie one after the other.

    `tril` and `triu` step from one to the next by the stride of the last batch axis alone.
    """
    require = _Requirements("an output")
    out = given["out"]
    if out.shape != given["self"].shape or out.numel() == 0:
        # PyTorch gives it its size first.
        return
    count = 1
    for axis in reversed(range(out.dim() - 2)):
        size = out.shape[axis]
        require(size == 1 or out.stride(axis) == out.stride(-3) * count)
        count *= size


def check_solution(given: Arguments) -> None:
    """Check the outputs of `_linalg_solve_ex`; a solution of the size of B may replace A or B."""
    outputs = ["LU", "pivots", "info"]
    if given["result"].shape != given["B"].shape:
        outputs.append("result")
    check_outputs(outputs, given)


def check_transform(given: Arguments) -> None:
    """Check that the axes of a Fourier transform are distinct axes of its tensor."""
    require = _Requirements("an axis")
    axes = given["dim"]
    require(*(0 <= axis < given["self"].dim() for axis in axes))
    require(len(set(axes)) == len(axes))


def check_inverse_transform(given: Arguments) -> None:
    """Check the axes, and the size of the result, of a transform to real numbers."""
    check_transform(given)
    require = _Requirements("a size")
    axes, size = given["dim"], given["last_dim_size"]
    require(len(axes) > 0, size >= 1)
    require(size // 2 + 1 <= given["self"].shape[axes[-1]])


def check_batch_norm(given: Arguments) -> None:
    """Check that there is one weight and one statistic for each channel `(N, C, ...)`."""
    require = _Requirements("channels")
    tensor = given["input"]
    require(tensor.dim() >= 2)
    for name in ("weight", "bias", "running_mean", "running_var"):
        values = given.get(name)
        require(values is None or values.shape == tensor.shape[1:2])
    has_statistics = given.get("running_mean") is not None and given.get("running_var") is not None
    require(given.get("training", False) or has_statistics)


def check_bags(given: Arguments) -> None:
    """Check the bags of an embedding `(V, D)`: where each starts, and which rows are in it."""
    require = _Requirements("an index")
    weight, indices = given["weight"], given["indices"]
    require(weight.dim() == 2, 0 <= given["mode"] <= 2)
    require(-1 <= given["padding_idx"] < len(weight))
    check_offsets(given)
    require(_are_between(indices, 0, len(weight) - 1))


def check_offsets(given: Arguments) -> None:
    """Check that bags start one after the other, the first of them at the first index."""
    require = _Requirements("offsets")
    indices, offsets = given["indices"], given.get("offsets")
    weights = given.get("per_sample_weights")
    require(weights is None or weights.numel() == indices.numel())
    if offsets is None:
        return
    require(indices.dim() == 1, offsets.dim() == 1)
    require(len(offsets) > 0 or not given["include_last_offset"])
    require(_are_between(offsets, 0, len(indices)))
    if len(offsets) and not offsets.is_meta:
        require(int(offsets[0]) == 0, bool((offsets.diff() >= 0).all()))


def check_ctc(given: Arguments) -> None:
    """Check the lengths of a CTC loss, for `(T, N, C)` and targets `(N, S)` or all in a row."""
    require = _Requirements("lengths")
    scores, targets = given["log_probs"], given["targets"]
    require(scores.dim() == 3)
    steps, batch, classes = scores.shape
    inputs = torch.as_tensor(given["input_lengths"])
    lengths = torch.as_tensor(given["target_lengths"])
    require(inputs.shape == (batch,), lengths.shape == (batch,))
    require(_are_between(inputs, 0, steps), _are_between(lengths, 0, MAX_SIZE))
    require(0 <= given["blank"] < classes, _are_between(targets, 0, classes - 1))
    if targets.dim() == 1:
        require(int(lengths.sum()) <= len(targets))
    else:
        require(targets.dim() == 2, len(targets) == batch)
        require(_are_between(lengths, 0, targets.shape[1]))


def check_packed(given: Arguments) -> None:
    """Check that a packed sequence has as many elements as its batch sizes say."""
    require = _Requirements("lengths")
    data, sizes = given["data"], given["batch_sizes"]
    require(data.dim() > 0, sizes.dim() == 1, sizes.numel() > 0)
    require(_are_between(sizes, 1, len(data)))
    require(bool((sizes.diff() <= 0).all()), int(sizes.sum()) == len(data))


def check_recurrent(given: Arguments) -> None:
    """Check that there are parameters and a state for each layer `(L, N, H)` of a network."""
    require = _Requirements("layers")
    layers = given["num_layers"]
    if given["bidirectional"]:
        layers *= 2
    require(0 < layers < MAX_SIZE)
    states, parameters = given["hx"], 2
    if given["has_biases"]:
        parameters = 4
    counts = [layers * parameters]
    if not isinstance(states, Tensor):
        # An LSTM may project its output, and has two states.
        counts.append(layers * (parameters + 1))
        require(len(states) == 2)
    require(len(given["params"]) in counts)
    require(*(state.dim() == 3 and state.shape[0] == layers for state in _as_list(states)))


def _as_list(states: Any) -> list[Tensor]:
    if isinstance(states, Tensor):
        return [states]
    return [*states]


def check_noise(given: Arguments) -> None:
    """Check that `rrelu` has a number of noise, and room in its result, for each of its input."""
    if not given["training"]:
        return
    require = _Requirements("noise")
    tensor = given["self"]
    for name in ("self", "noise", "out"):
        other = given.get(name)
        if other is not None:
            elements = other.untyped_storage().nbytes() // other.itemsize
            require(other.numel() == tensor.numel())
            require(other.storage_offset() + other.numel() <= elements)


def check_packed_layer(given: Arguments) -> None:
    """Check that a recurrent layer has a state for each sequence of its packed input."""
    check_packed(given)
    check_recurrent(given)
    require = _Requirements("a state")
    first = int(given["batch_sizes"][0])
    require(given["data"].dim() == 2)
    require(*(state.shape[1] == first for state in _as_list(given["hx"])))


def check_layer(given: Arguments) -> None:
    """Check the weights and the state of an LSTM layer, for an input `(T, N, I)`."""
    require = _Requirements("weights")
    tensor, size = given["input"], given["hidden_size"]
    require(given["mode"] == _LSTM, not given["batch_sizes"])
    require(tensor.dim() == 3, 0 < size < MAX_SIZE)
    gates = _LSTM_GATES * size
    require(given["weight0"].shape == (gates, tensor.shape[2]))
    require(given["weight1"].shape == (gates, size))
    if given["has_biases"]:
        require(given["weight2"].shape == (gates,), given["weight3"].shape == (gates,))
    count = tensor.shape[1] * size
    require(given["hx_"].numel() == count, given["cx_"].numel() == count)
    names = ("weight0", "weight1", "weight2", "weight3", "hx_", "cx_")
    require(*(given[name].dtype == tensor.dtype for name in names))


def check_observer(given: Arguments) -> None:
    """Check that an observer has statistics for its tensor, or for each of its channels."""
    require = _Requirements("statistics")
    count = 1
    if given["per_row_fake_quant"]:
        require(0 <= given["ch_axis"] < given["self"].dim())
        count = given["self"].shape[given["ch_axis"]]
    require(given["observer_on"].numel() > 0, given["fake_quant_on"].numel() > 0)
    require(given["scale"].numel() == count, given["zero_point"].numel() == count)
    for name in ("running_min", "running_max"):
        is_new = given["per_row_fake_quant"] and given[name].numel() == 0
        require(is_new or given[name].numel() == count)


def check_resampling(given: Arguments) -> None:
    """Check that the scales of a smooth resampling lead to the sizes of its result."""
    require = _Requirements("a scale")
    shape, sizes = given["self"].shape, given["output_size"]
    require(len(shape) == 4, len(sizes) == 2)
    for axis, name in enumerate(("scales_h", "scales_w")):
        scale = given[name]
        if scale is not None:
            require(scale > 0, abs(sizes[axis] - shape[axis + 2] * scale) <= 1)


def _are_between(values: Tensor, low: int, high: int) -> bool:
    """Return whether all values are integers in a range, its ends included."""
    if values.is_meta or values.numel() == 0:
        return True
    if values.is_floating_point() or values.is_complex():
        return False
    least, most = torch.aminmax(values)
    return int(least) >= low and int(most) <= high
