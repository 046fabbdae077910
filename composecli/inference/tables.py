"""Lengths of tables of positions, masks and the like, which a model's inputs may have to match."""

from __future__ import annotations

from collections.abc import Iterator

from composecli.core.facts import LayerFact, ModelFacts
from composecli.inference.parameter_ops import EMBEDDING

MIN_TABLE_LENGTH = 9
MAX_TABLE_LENGTH = 1 << 16


def table_lengths(facts: ModelFacts) -> tuple[int, ...]:
    """Return the lengths of the tables that the layers of a model contain, in order of layers."""
    lengths = dict[int, None]()
    for layer in facts.layers:
        for length in _lengths_of_layer(layer):
            if MIN_TABLE_LENGTH <= length <= MAX_TABLE_LENGTH:
                lengths[length] = None
    return tuple(lengths)


def _lengths_of_layer(layer: LayerFact) -> Iterator[int]:
    """Yield the lengths of one layer's tables and buffers."""
    for tensor in layer.parameters:
        rows = EMBEDDING.rows(layer, tensor)
        if rows is not None:
            yield rows
        elif len(tensor.sizes) == 3:
            # `(1, positions, width)` or `(positions, 1, width)`.
            yield from tensor.sizes[:2]
        elif len(tensor.sizes) == 2 and "weight" not in tensor.name:
            yield tensor.sizes[0]
    for tensor in layer.buffers:
        yield from tensor.sizes
