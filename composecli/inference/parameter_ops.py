"""Rules for the ops that combine an input with a parameter: one class per op family.

This is the only module that derives an input from the shape of a weight. The rest of
the package asks:

- `layer_inputs`: which inputs does a layer expect, judging by its class and its parameters?
- `implied_input`: an input reached this op; which input does the op's parameter imply?
- `OpFamily.mismatches`: the op failed; which sizes of its operands should have been equal?
"""

# ruff: noqa: ARG002 (the default rules of OpFamily ignore their arguments)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from composecli.core.facts import LayerFact, ModelFacts, NamedSizes
from composecli.core.observations import Operand, ParameterOp, Rejected
from composecli.core.pytree import Axis, Call, TensorSpec, call_leaves

BATCH = 2
LENGTH = 8
# A sequence of a batch: a recurrent layer takes no more axes.
MAX_RECURRENT_RANK = 3
# Height and width, or length, by input rank: cheap, and large enough for most networks.
SPATIAL = {3: 64, 4: 64, 5: 16}
_SPATIAL_NAMES = {3: "L", 4: "HW", 5: "DHW"}
# For the runtime, which records models and forwards: the integer attributes of layers, and the ops
# whose weight may be a tensor without a name (frozen into the graph, or computed by weight norm).
LAYER_CONSTANTS = ("groups", "num_embeddings", "padding_idx")
UNNAMED_WEIGHT_OPS = ("addmm", "mm", "bmm", "convolution", "_convolution", "embedding")
_PROJECTIONS = ("addmm", "mm", "linear", "matmul", "bmm", "baddbmm", "mv")
_CONVOLUTIONS = ("convolution", "_convolution")
_ELEMENTWISE = ("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "rsub")
# The vocabulary of a model without an embedding: its integer inputs are 0 or 1.
_MIN_VOCABULARY = 2


class ImpliedInput(NamedTuple):
    """The input that a parameter implies, and the axes whose sizes the parameter fixes."""

    spec: TensorSpec
    axes: tuple[int, ...]


class SizeMismatch(NamedTuple):
    """An axis of `operand` has the size `have`, and the other side of the op expects `want`."""

    have: int
    want: int
    operand: Operand


class OpFamily:
    """One family of ops. The defaults are the rules for an op that no family owns."""

    def owns_layer(self, layer: LayerFact) -> bool:
        """Return whether the layer runs an op of this family."""
        return False

    def layer_inputs(self, layer: LayerFact) -> Iterator[TensorSpec]:
        """Yield the inputs that a layer of this family may expect, the most likely first."""
        yield from ()

    def owns_op(self, op: str) -> bool:
        """Return whether the aten op with this name (without `aten::`) belongs to this family."""
        return False

    def implied_input(self, spec: TensorSpec, parameter_op: ParameterOp) -> ImpliedInput | None:
        """Return the input that the parameter implies in place of `spec`.

        None if it implies nothing: the value that reached the op may not be the input itself.
        """
        return None

    def mismatches(self, rejected: Rejected) -> Iterator[SizeMismatch]:
        """Yield sizes of operands that differ from the other side of the op, last axis first."""
        for operand in input_operands(rejected):
            for other in rejected.operands:
                if other is not operand:
                    yield from aligned_mismatches(operand, other.spec.sizes)


class Recurrent(OpFamily):
    """RNN, LSTM and GRU, and their cells: `weight_ih` is `(gates * hidden, input)`."""

    def owns_layer(self, layer: LayerFact) -> bool:
        """Return whether the layer has a weight for its input sequence."""
        weight = self._input_weight(layer)
        return weight is not None and len(weight.sizes) == 2

    def layer_inputs(self, layer: LayerFact) -> Iterator[TensorSpec]:
        """Yield the input sequence, then the hidden state: one row per layer and direction."""
        weight = self._input_weight(layer)
        if weight is None:
            return
        hidden = [tensor for tensor in layer.parameters if tensor.name.startswith("weight_hh")]
        is_cell = weight.name == "weight_ih"
        width = weight.sizes[1]
        if is_cell:
            yield TensorSpec(weight.dtype, (BATCH, width))
        else:
            yield TensorSpec(weight.dtype, (LENGTH, BATCH, width))
        if not hidden:
            return
        dtype = hidden[0].dtype
        hidden_width = hidden[0].sizes[1]
        if is_cell:
            yield TensorSpec(dtype, (BATCH, hidden_width))
        else:
            yield TensorSpec(dtype, (len(hidden), BATCH, hidden_width))

    def width(self, facts: ModelFacts) -> int | None:
        """Return the input width of the model's first layer; None if it is not recurrent."""
        first = next((layer for layer in facts.layers if layer.parameters), None)
        if first is None:
            return None
        for tensor in first.parameters:
            if tensor.name.startswith("weight_ih"):
                return tensor.sizes[-1]
        return None

    def _input_weight(self, layer: LayerFact) -> NamedSizes | None:
        """Return the weight that is multiplied with the input."""
        return _parameter(layer, "weight_ih_l0") or _parameter(layer, "weight_ih")


class Attention(OpFamily):
    """MultiheadAttention: `in_proj_weight` is `(3 * width, width)`."""

    def owns_layer(self, layer: LayerFact) -> bool:
        """Return whether the layer has a joint projection of query, key and value."""
        weight = _parameter(layer, "in_proj_weight")
        return weight is not None and len(weight.sizes) == 2

    def layer_inputs(self, layer: LayerFact) -> Iterator[TensorSpec]:
        """Yield the query sequence: `(length, batch, width)`."""
        weight = _parameter(layer, "in_proj_weight")
        if weight is not None:
            yield TensorSpec(weight.dtype, (LENGTH, BATCH, weight.sizes[1]))


class Normalization(OpFamily):
    """Layer norms fix the last axes; batch, instance and group norms fix axis 1, the channels."""

    def owns_layer(self, layer: LayerFact) -> bool:
        """Return whether the class is called a norm and has a weight."""
        return _parameter(layer, "weight") is not None and "Norm" in layer.class_name

    def layer_inputs(self, layer: LayerFact) -> Iterator[TensorSpec]:
        """Yield an input of each rank that the class accepts."""
        weight = _parameter(layer, "weight")
        if weight is None:
            return
        name = layer.class_name
        channels = weight.sizes[0]
        names_rank = name.startswith(("BatchNorm", "InstanceNorm")) and name[-2:-1] in "123"
        if names_rank:
            rank = int(name[-2]) + 2
            if rank == 3 and name.startswith("BatchNorm"):
                yield TensorSpec(weight.dtype, (BATCH, channels))
            spatial = (LENGTH,) * (rank - 2)
            yield TensorSpec(weight.dtype, (BATCH, channels, *spatial))
        elif name == "GroupNorm":
            yield TensorSpec(weight.dtype, (BATCH, channels, LENGTH))
        else:
            yield TensorSpec(weight.dtype, (BATCH, *weight.sizes))

    def owns_op(self, op: str) -> bool:
        """Return whether this is a layer, batch or group norm."""
        return op.endswith("layer_norm") or "batch_norm" in op or "group_norm" in op

    def implied_input(self, spec: TensorSpec, parameter_op: ParameterOp) -> ImpliedInput | None:
        """Replace the last axes (layer norm) or the channels (other norms)."""
        weight = parameter_op.weight
        rank = len(spec.sizes)
        if parameter_op.value.sizes != spec.sizes:
            return None
        if parameter_op.op.endswith("layer_norm"):
            weight_rank = len(weight.sizes)
            if weight_rank > rank:
                return None
            kept = spec.sizes[:-weight_rank]
            implied = replace(spec, dtype=weight.dtype, sizes=(*kept, *weight.sizes))
            axes = range(rank - weight_rank, rank)
            return ImpliedInput(implied, tuple(axes))
        if rank < 2:
            return None
        channels = weight.sizes[0]
        sizes = (spec.sizes[0], channels, *spec.sizes[2:])
        implied = replace(spec, dtype=weight.dtype, sizes=sizes)
        return ImpliedInput(implied, (1,))

    def mismatches(self, rejected: Rejected) -> Iterator[SizeMismatch]:
        """Compare the input of a layer norm with its `normalized_shape`."""
        if bare_op_name(rejected.op).endswith("layer_norm"):
            operand = input_operands(rejected)[0]
            # The numbers of a layer norm are its `normalized_shape`.
            yield from aligned_mismatches(operand, rejected.numbers)
        else:
            yield from super().mismatches(rejected)


class Elementwise(OpFamily):
    """Arithmetic with a broadcast parameter: a scale, an offset, a table of positions."""

    def owns_layer(self, layer: LayerFact) -> bool:
        """Return whether the layer has a weight of one axis."""
        weight = _parameter(layer, "weight")
        return weight is not None and len(weight.sizes) == 1

    def layer_inputs(self, layer: LayerFact) -> Iterator[TensorSpec]:
        """Yield rows as wide as the weight."""
        weight = _parameter(layer, "weight")
        if weight is not None and weight.sizes[0] > 1:
            yield TensorSpec(weight.dtype, (BATCH, weight.sizes[0]))

    def owns_op(self, op: str) -> bool:
        """Return whether this is arithmetic that broadcasts."""
        return op in _ELEMENTWISE

    def unbroadcast_sizes(
        self, spec: TensorSpec, parameter_op: ParameterOp
    ) -> tuple[int, ...] | None:
        """Return the input sizes at which no axis but the batch is broadcast; None if none is.

        An input `(2, 1, 8)` that is added to a parameter `(16, 8)` gives `(2, 16, 8)`.
        """
        if not self.owns_op(parameter_op.op):
            return None
        weight = parameter_op.weight.sizes
        rank = len(spec.sizes)
        if len(weight) > rank:
            return None
        if parameter_op.value.sizes != spec.sizes:
            return None
        sizes = list(spec.sizes)
        first_axis = rank - len(weight)
        for axis, size in enumerate(weight, start=first_axis):
            if axis > 0 and sizes[axis] == 1:
                sizes[axis] = size
        if tuple(sizes) == spec.sizes:
            return None
        return tuple(sizes)

    def sizes_by_channels(
        self, spec: TensorSpec, parameter_op: ParameterOp
    ) -> tuple[int, ...] | None:
        """Return input sizes with as many axes as a parameter of channels; None if it is not one.

        An input `(2, 8)` that is scaled by a parameter `(1, 8, 1, 1)` or `(8, 1, 1)` gives
        `(2, 8, 8, 8)`: the parameter is meant for the channels of images.
        """
        weight = parameter_op.weight.sizes
        if not self.owns_op(parameter_op.op) or parameter_op.value.sizes != spec.sizes:
            return None
        if len(weight) > 1 and weight[0] == 1:
            weight = weight[1:]
        channels, *sides = weight or (1,)
        if channels == 1 or not sides or set(sides) != {1}:
            return None
        sizes = (BATCH, channels, *[LENGTH] * len(sides))
        if len(spec.sizes) < len(parameter_op.weight.sizes):
            return sizes
        return None


class Embedding(OpFamily):
    """Tables that integer inputs index: the weight is `(vocabulary, width)`."""

    def owns_layer(self, layer: LayerFact) -> bool:
        """Return whether the class is called an embedding and has a table."""
        weight = _parameter(layer, "weight")
        is_table = weight is not None and len(weight.sizes) == 2
        return is_table and layer.class_name.startswith("Embedding")

    def layer_inputs(self, layer: LayerFact) -> Iterator[TensorSpec]:
        """Yield a batch of ids below the number of rows, and for a bag ids without a batch."""
        weight = _parameter(layer, "weight")
        if weight is not None:
            rows = weight.sizes[0]
            yield TensorSpec("int64", (BATCH, LENGTH), below=rows)
            if layer.class_name == "EmbeddingBag":
                yield TensorSpec("int64", (LENGTH,), below=rows)

    def owns_op(self, op: str) -> bool:
        """Return whether this is a look-up in a table."""
        return op == "embedding"

    def implied_input(self, spec: TensorSpec, parameter_op: ParameterOp) -> ImpliedInput | None:
        """Replace the input by ids below the number of rows."""
        if parameter_op.value.sizes != spec.sizes:
            return None
        rows = parameter_op.weight.sizes[0]
        if spec.may_hold_ids:
            ids = TensorSpec(spec.dtype, spec.sizes, below=rows)
        else:
            ids = TensorSpec("int64", (BATCH, LENGTH), below=rows)
        return ImpliedInput(ids, ())

    def vocabulary(self, facts: ModelFacts) -> int:
        """Return the number of rows of the model's first table; 2 if it has none."""
        for layer in facts.layers:
            weight = _parameter(layer, "weight")
            if weight is None or len(weight.sizes) != 2:
                continue
            if layer.class_name.endswith(("Embedding", "EmbeddingBag")):
                return weight.sizes[0]
        return _MIN_VOCABULARY

    def rows(self, layer: LayerFact, tensor: NamedSizes) -> int | None:
        """Return how many rows this parameter of the layer has; None if it is not a table."""
        if layer.class_name.endswith("Embedding") and len(tensor.sizes) == 2:
            return tensor.sizes[0]
        return None


class Linear(OpFamily):
    """Matrix products. A layer's weight is `(out, in)`, or `(out, in1, in2)` for Bilinear.

    A traced op has its weight as the product uses it, which is `(in, out)`.
    """

    def owns_layer(self, layer: LayerFact) -> bool:
        """Return whether the layer has a matrix as its weight, or is Bilinear."""
        weight = _parameter(layer, "weight")
        if weight is None:
            return False
        return len(weight.sizes) == 2 or layer.class_name == "Bilinear"

    def layer_inputs(self, layer: LayerFact) -> Iterator[TensorSpec]:
        """Yield rows as wide as each input of the weight."""
        weight = _parameter(layer, "weight")
        if weight is not None:
            for width in weight.sizes[1:]:
                yield TensorSpec(weight.dtype, (BATCH, width))

    def owns_op(self, op: str) -> bool:
        """Return whether this is a matrix product."""
        return op in _PROJECTIONS

    def implied_input(self, spec: TensorSpec, parameter_op: ParameterOp) -> ImpliedInput | None:
        """Replace the last axis."""
        weight = parameter_op.weight
        value = parameter_op.value
        if len(weight.sizes) != 2:
            return None
        if not value.sizes or not spec.sizes:
            return None
        # Only the axes before the last may have been flattened: `(2, 8, 16) -> (16, 16)`.
        keeps_width = value.sizes[-1] == spec.sizes[-1]
        if not keeps_width or value.elements != spec.elements:
            return None
        sizes = (*spec.sizes[:-1], weight.sizes[0])
        implied = replace(spec, dtype=weight.dtype, sizes=sizes)
        last_axis = len(sizes) - 1
        return ImpliedInput(implied, (last_axis,))

    def mismatches(self, rejected: Rejected) -> Iterator[SizeMismatch]:
        """Compare the inner axes of the two matrices, from either side."""
        matrices = [operand for operand in rejected.operands if len(operand.spec.sizes) > 1]
        if len(matrices) < 2:
            return
        left, right = matrices[-2:]
        left_size = left.spec.sizes[-1]
        right_size = right.spec.sizes[-2]
        if left_size == right_size:
            return
        if left.inputs:
            yield SizeMismatch(left_size, right_size, left)
        if right.inputs:
            yield SizeMismatch(right_size, left_size, right)


class Convolution(OpFamily):
    """Convolutions of 1 to 3 spatial axes. The channels are axis 1 of the input."""

    def owns_layer(self, layer: LayerFact) -> bool:
        """Return whether the weight has 1 to 3 spatial axes."""
        weight = _parameter(layer, "weight")
        return weight is not None and len(weight.sizes) in SPATIAL

    def layer_inputs(self, layer: LayerFact) -> Iterator[TensorSpec]:
        """Yield an image with the layer's channels."""
        weight = _parameter(layer, "weight")
        if weight is not None:
            constants = dict(layer.constants)
            groups = constants.get("groups", 1)
            transposed = "Transpose" in layer.class_name
            channels = input_channels(weight.sizes, groups, transposed=transposed)
            rank = len(weight.sizes)
            yield _image(channels, rank, weight.dtype)

    def owns_op(self, op: str) -> bool:
        """Return whether this is a convolution, transposed or not."""
        return op in _CONVOLUTIONS

    def implied_input(self, spec: TensorSpec, parameter_op: ParameterOp) -> ImpliedInput | None:
        """Replace the channels, or the whole input if its rank is another.

        A convolution adds a batch to an input without one. Batches are usual, so that is implied.
        """
        weight = parameter_op.weight
        rank = len(weight.sizes)
        value = parameter_op.value.sizes
        if value not in (spec.sizes, (1, *spec.sizes)) or rank not in SPATIAL:
            return None
        channels = _channels(parameter_op)
        if len(spec.sizes) != rank:
            image = _image(channels, rank, weight.dtype)
            return ImpliedInput(image, (1,))
        sizes = (spec.sizes[0], channels, *spec.sizes[2:])
        implied = replace(spec, dtype=weight.dtype, sizes=sizes)
        return ImpliedInput(implied, (1,))

    def mismatches(self, rejected: Rejected) -> Iterator[SizeMismatch]:
        """Compare the channels: a grouped or transposed weight does not align with its input."""
        operand = input_operands(rejected)[0]
        rank = len(operand.spec.sizes)
        for parameter_op in reversed(rejected.parameter_ops):
            weight_rank = len(parameter_op.weight.sizes)
            if parameter_op.value != operand.spec or weight_rank != rank:
                continue
            have = operand.spec.sizes[1]
            want = _channels(parameter_op)
            if have != want:
                yield SizeMismatch(have, want, operand)
            return


RECURRENT = Recurrent()
ELEMENTWISE = Elementwise()
EMBEDDING = Embedding()
# A layer belongs to the first family that owns it.
FAMILIES: tuple[OpFamily, ...] = (
    RECURRENT,
    Attention(),
    Normalization(),
    ELEMENTWISE,
    EMBEDDING,
    Linear(),
    Convolution(),
)
_OTHER = OpFamily()


def layer_inputs(layer: LayerFact) -> Iterator[TensorSpec]:
    """Yield each input that a layer may expect, the most likely first."""
    for family in FAMILIES:
        if family.owns_layer(layer):
            yield from family.layer_inputs(layer)
            return


def op_family(op: str) -> OpFamily:
    """Return the family that owns an aten op, or the default rules if none does."""
    for family in FAMILIES:
        if family.owns_op(op):
            return family
    return _OTHER


def implied_input(spec: TensorSpec, parameter_op: ParameterOp) -> ImpliedInput | None:
    """Return the input that an op's parameter implies in place of `spec`; None if nothing.

    `float32[2, 8]` that reached an `addmm` with a weight of `(10, 5)` gives `float32[2, 10]`,
    with axis 1 fixed.
    """
    return op_family(parameter_op.op).implied_input(spec, parameter_op)


def image_layouts(spec: TensorSpec, parameter_op: ParameterOp) -> Iterator[tuple[str, TensorSpec]]:
    """Yield images in other layouts, if `spec` reached a convolution with other sizes.

    A model may add the batch to `(C, H, W)` itself, or accept channels last, with or without a
    batch: `(N, H, W, C)`, `(H, W, C)`. An image of another dtype than the weight keeps it.
    """
    rank = len(parameter_op.weight.sizes)
    if parameter_op.op not in _CONVOLUTIONS or rank not in SPATIAL:
        return
    if parameter_op.value.sizes == spec.sizes:
        return
    dtype = parameter_op.weight.dtype
    if parameter_op.value.dtype != spec.dtype:
        dtype = spec.dtype
    batch, channels, *spatial = _image(_channels(parameter_op), rank, dtype).sizes
    spatial_names = _SPATIAL_NAMES[rank]
    layouts = {
        f"N{spatial_names}C": (batch, *spatial, channels),
        f"C{spatial_names}": (channels, *spatial),
        f"{spatial_names}C": (*spatial, channels),
    }
    for names, sizes in layouts.items():
        yield names, replace(spec, dtype=dtype, sizes=sizes, sample=None)


def input_channels(weight: tuple[int, ...], groups: int, *, transposed: bool) -> int:
    """Return how many channels a convolution with a weight of this shape expects.

    A weight is `(out, in // groups, *kernel)`, or `(in, out // groups, *kernel)` if transposed:
    `(8, 3, 5, 5)` with 2 groups expects 6 channels, and 8 if transposed.
    """
    if transposed:
        return weight[0]
    return weight[1] * groups


def fixed_axes(call: Call, parameter_ops: tuple[ParameterOp, ...]) -> tuple[Axis, ...]:
    """Return the axes of an accepted call that the parameters it reaches first fix."""
    found = list[Axis]()
    for path, spec in call_leaves(call):
        for parameter_op in parameter_ops:
            implied = implied_input(spec, parameter_op)
            if implied is None:
                continue
            with_same_ids = replace(spec, below=implied.spec.below)
            if implied.spec == with_same_ids:
                found += [(path, axis) for axis in implied.axes]
    return tuple(dict.fromkeys(found))


def fixed_recurrent_axes(call: Call, facts: ModelFacts) -> tuple[Axis, ...]:
    """Return the axis that a recurrent first layer fixes.

    No probe can tell: a traced recurrent layer accepts any width and returns plausible outputs. A
    tensor of more axes than the layer takes is reshaped before, and its last axis may be any.
    """
    width = RECURRENT.width(facts)
    path, spec = next(call_leaves(call), ((), None))
    if spec is None or not 0 < len(spec.sizes) <= MAX_RECURRENT_RANK:
        return ()
    if spec.sizes[-1] != width:
        return ()
    last_axis = len(spec.sizes) - 1
    return ((path, last_axis),)


def recurrent_widths(parameter_ops: tuple[ParameterOp, ...]) -> set[int]:
    """Return the widths of the sequences that reached recurrent layers."""
    widths = set[int]()
    for parameter_op in parameter_ops:
        if "weight_ih" in (parameter_op.parameter or ""):
            widths.add(parameter_op.value.sizes[-1])
    return widths


def ids_below(number: int, spec: TensorSpec, parameter_ops: tuple[ParameterOp, ...]) -> int | None:
    """Return the vocabulary size that an integer input indexes; None if it indexes no table."""
    row_counts = list[int]()
    for parameter_op in parameter_ops:
        if "embedding" not in parameter_op.op or parameter_op.inputs != (number,):
            continue
        rows = parameter_op.weight.sizes[0]
        if parameter_op.value.sizes == spec.sizes:
            return rows
        row_counts.append(rows)
    return min(row_counts, default=None)


def input_operands(rejected: Rejected) -> list[Operand]:
    """Return the operands of the failing op that were computed from an input."""
    return [operand for operand in rejected.operands if operand.inputs]


def aligned_mismatches(operand: Operand, sizes: tuple[int, ...]) -> Iterator[SizeMismatch]:
    """Compare sizes from the last axis on, as broadcasting does; a size of 1 matches any."""
    pairs = zip(reversed(operand.spec.sizes), reversed(sizes), strict=False)
    for have, want in pairs:
        if have != want and want > 1:
            yield SizeMismatch(have, want, operand)


def bare_op_name(op: str | None) -> str:
    """Return the name of an op without its namespace: `addmm` for `aten::addmm`."""
    _, _, name = (op or "").rpartition("::")
    return name


def _parameter(layer: LayerFact, name: str) -> NamedSizes | None:
    """Return the layer's own parameter with this name; None if it has none."""
    for tensor in layer.parameters:
        if tensor.name == name:
            return tensor
    return None


def _channels(parameter_op: ParameterOp) -> int:
    """Return the number of input channels of a traced convolution."""
    weight = parameter_op.weight.sizes
    return input_channels(weight, parameter_op.groups, transposed=parameter_op.transposed)


def _image(channels: int, rank: int, dtype: str) -> TensorSpec:
    """Return a square image (or a sequence, or a volume) with these channels."""
    spatial = (SPATIAL[rank],) * (rank - 2)
    return TensorSpec(dtype, (BATCH, channels, *spatial))
