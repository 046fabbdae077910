"""Conventions of the field: the usual meaning of argument names, and usual shapes of inputs.

These are hints for the order of trying and nothing more: every contract is confirmed by probing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product

from composecli.core.facts import ModelFacts
from composecli.core.pytree import Fill, Literal, TensorSpec, Tree
from composecli.inference.parameter_ops import BATCH, EMBEDDING, LENGTH, layer_inputs
from composecli.inference.tables import table_lengths

MAX_LAYERS = 12
IMAGE_RANK = 4
_LITERALS: dict[str, tuple[bool | int | float | str, ...]] = {
    "int": (1, 2, 16000, 8, 0, 8000),
    "float": (1.0, 0.5, 0.0),
    "bool": (False, True),
    "str": ("",),
    "number": (1, 1.0),
}
_ID_NAMES = ("ids", "tokens", "token", "src", "tgt", "text", "words", "indices", "index", "idx")
_STEP_NAMES = ("timestep", "timesteps", "step", "steps")
_LENGTH_NAMES = ("lengths", "length", "lens", "len")
_AUDIO_NAMES = ("audio", "wave", "wav", "waveform", "speech")
# One of each rank that is common: rows, images, sequences, video, scalars.
_COMMON_SIZES = ((2, 3), (2, 3, 64, 64), (2, 3, 8), (2, 3, 16, 64, 64), (2,))
_IMAGE_SETTINGS = ("image_size", "img_size", "input_size", "sample_size")
_LENGTH_SETTINGS = (
    "max_length",
    "max_position_embeddings",
    "context_length",
    "num_mel_bins",
    "feature_size",
)
_COMMON_SIDES = (224, 32, 28, 128, 256, 299, 384, 512, 16)
_COMMON_LENGTHS = (16, 64, 128, 80, 40, 512, 4000, 16000, 1024, 3000)


def literal_values(type_name: str) -> list[Tree]:
    """Return values worth trying for a non-tensor argument of this type; empty for other types."""
    values = _LITERALS.get(type_name.lower(), ())
    return [Literal(value) for value in values]


def usual_tensors(facts: ModelFacts) -> Iterator[TensorSpec]:
    """Yield the inputs that the first layers with parameters expect, then one of each rank."""
    layers = [layer for layer in facts.layers if layer.parameters]
    expected = dict[TensorSpec, None]()
    for layer in layers[:MAX_LAYERS]:
        expected |= dict.fromkeys(layer_inputs(layer))
    yield from expected
    for spec in expected:
        if len(spec.sizes) == 3 and spec.sizes[:2] == (LENGTH, BATCH):
            yield replace(spec, sizes=(BATCH, LENGTH, spec.sizes[2]))
    yield from _sequences(facts)
    rows = list[TensorSpec]()
    for spec in expected:
        if len(spec.sizes) == 2 and not spec.may_hold_ids:
            rows.append(spec)
    for spec in rows[:2]:
        width = spec.sizes[1]
        yield replace(spec, sizes=(BATCH, LENGTH, width))
    for sizes in _COMMON_SIZES:
        yield TensorSpec(facts.float_dtype, sizes)


def ids(facts: ModelFacts) -> TensorSpec:
    """Return a batch of ids that the first embedding accepts."""
    vocabulary = EMBEDDING.vocabulary(facts)
    return TensorSpec("int64", (BATCH, LENGTH), below=vocabulary)


def tensors_by_name(name: str, facts: ModelFacts) -> Iterator[TensorSpec]:
    """Yield the usual tensors for an argument with this name."""
    words = name.lower().strip("_")
    last_word = words.rsplit("_", 1)[-1]
    has_vocabulary = EMBEDDING.vocabulary(facts) > 2
    sizes_of_ids = (BATCH, LENGTH)
    if "pixel_mask" in words:
        yield TensorSpec("int64", (BATCH, 64, 64))
    elif "mask" in words:
        yield TensorSpec("int64", sizes_of_ids)
        yield TensorSpec("bool", sizes_of_ids)
    elif "type_ids" in words or "segment" in words:
        yield TensorSpec("int64", sizes_of_ids)
    elif "position_ids" in words:
        yield TensorSpec("int64", sizes_of_ids, below=LENGTH)
    elif "bbox" in words or "boxes" in words:
        yield TensorSpec("int64", (BATCH, LENGTH, 4), below=2)
    elif last_word in _ID_NAMES and has_vocabulary:
        yield ids(facts)
    elif last_word in _LENGTH_NAMES:
        # A length of 1 is allowed for sequences of every length. The first sequence that is tried
        # is `(LENGTH, BATCH, width)`. As many lengths as its first axis can only mean a batch
        # there, while torch accepts too few of them.
        count = LENGTH
        if has_vocabulary:
            count = BATCH
        yield TensorSpec("int64", (count,), below=2, fill=Fill.POSITIVE)
    elif last_word == "offsets":
        yield TensorSpec("int64", (BATCH,), fill=Fill.ZEROS)
    elif last_word in _STEP_NAMES:
        yield TensorSpec("int64", (BATCH,), below=LENGTH)
        yield TensorSpec(facts.float_dtype, (BATCH,))
    elif last_word in _AUDIO_NAMES or words == "input_values":
        yield TensorSpec(facts.float_dtype, (BATCH, 4000))


def images(facts: ModelFacts) -> Iterator[TensorSpec]:
    """Yield images and video as the first two layers that expect them do, wherever they are."""
    specs = (spec for layer in facts.layers for spec in layer_inputs(layer))
    pictures = (spec for spec in specs if len(spec.sizes) >= IMAGE_RANK)
    distinct = dict.fromkeys(pictures)
    yield from islice(distinct, 2)


def setting_values(facts: ModelFacts, *names: str) -> Iterator[tuple[int, ...]]:
    """Yield the values of the model's settings with these names."""
    for setting in facts.settings:
        if setting.name in names:
            yield setting.values


def spatial_sizes(facts: ModelFacts) -> Iterator[tuple[int, int]]:
    """Yield heights and widths worth trying: first the model's settings, then the usual ones."""
    for values in setting_values(facts, *_IMAGE_SETTINGS):
        if len(values) > 1:
            yield values[-2], values[-1]
        else:
            yield values[0], values[0]
    for side in _COMMON_SIDES:
        yield side, side


def lengths(facts: ModelFacts) -> Iterator[int]:
    """Yield lengths worth trying: first the model's settings, then the usual ones."""
    for values in setting_values(facts, "max_source_positions"):
        # Whisper's encoder halves the number of frames before it adds positions.
        yield 2 * values[0]
    for values in setting_values(facts, *_LENGTH_SETTINGS):
        yield values[-1]
    for length in table_lengths(facts):
        # A stride of 2 before the table halves the length.
        yield length
        yield 2 * length
    yield from _COMMON_LENGTHS


def _sequences(facts: ModelFacts) -> Iterator[TensorSpec]:
    """Yield spectrograms and series whose length and width are settings, with either axis first."""
    all_lengths = setting_values(facts, "max_length", "context_length")
    all_widths = setting_values(facts, "num_mel_bins", "num_input_channels")
    pairs = product(all_lengths, all_widths)
    for (length, *_), (width, *_) in pairs:
        yield TensorSpec(facts.float_dtype, (BATCH, length, width))
        yield TensorSpec(facts.float_dtype, (BATCH, width, length))
