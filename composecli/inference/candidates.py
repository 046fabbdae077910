"""Proposals: inputs worth trying, from what a model states and from what its first parameters ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, product

from composecli.core.contract import Evidence
from composecli.core.dims import Shape
from composecli.core.facts import ArgumentFact, ModelFacts
from composecli.core.pytree import (
    Argument,
    Axis,
    Call,
    KeyPath,
    Literal,
    TensorSpec,
    Tree,
    TreeSequence,
    call_leaves,
    replace_call_leaf,
)
from composecli.inference.layer_inputs import BATCH, LENGTH, layer_inputs

MOST_LAYERS = 12
IMAGE_RANK = 4
LONGEST = 16_000
# Attention over more of them costs gigabytes.
LONGEST_OF_IDS = 1024


@dataclass(frozen=True, slots=True)
class SizeTarget:
    """A size that is being looked for: with `points`, sizes of these axes and what became of each at an op, until one
    of them becomes `want`."""

    axes: tuple[Axis, ...]
    op: str
    want: int
    points: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A call worth trying. `dims` holds what is stated of a port, by path; `asked` the axes that a parameter fixes."""

    call: Call
    evidence: Evidence | None = None
    dims: tuple[tuple[KeyPath, Shape], ...] = ()
    asked: tuple[Axis, ...] = ()
    aim: SizeTarget | None = None


def initial_candidates(facts: ModelFacts) -> Iterator[Candidate]:
    """What to begin with where the file states nothing: each argument by its name and type, else as the first layers
    with parameters take it, else a tensor of each rank."""
    asked = facts.needed_arguments
    if not facts.arguments:
        yield Candidate(Call(()))
    yield from _with_states(facts)
    seen = set[Call]()
    choices = [_choices(argument, facts) for argument in asked] or [_choices(None, facts)]
    for number in range(MOST_LAYERS):
        values = tuple(found[min(number, len(found) - 1)] for found in choices)
        call = Call(
            tuple(
                Argument(
                    value, argument.name if argument is not None and not argument.required else None
                )
                for value, argument in zip(values, asked or (None,), strict=True)
            )
        )
        if call not in seen:
            seen.add(call)
            yield Candidate(call)


def _with_states(facts: ModelFacts) -> Iterator[Candidate]:
    """The input of a recurrent layer and its states, batch second and batch first."""
    if len(facts.needed_arguments) < 2 or any(
        literals(argument.type_name) for argument in facts.needed_arguments
    ):
        return
    for layer in facts.layers:
        found = list(layer_inputs(layer))
        if len(found) == 2 and len(found[0].sizes) == len(found[1].sizes):
            given, state = found
            rest = (Argument(state),) * (len(facts.needed_arguments) - 1)
            yield Candidate(Call((Argument(given), *rest)))
            if len(given.sizes) == 3:
                turned = replace(given, sizes=(given.sizes[1], given.sizes[0], given.sizes[2]))
                yield Candidate(Call((Argument(turned), *rest)))
            return


def _choices(argument: ArgumentFact | None, facts: ModelFacts) -> list[Tree]:
    """Values for one argument, the likeliest first."""
    kind = argument.type_name if argument is not None else ""
    values = literals(kind)
    if values:
        return values
    named = [] if argument is None else list(by_name(argument.name, facts))
    tensors = list(dict.fromkeys((*named, *usual(facts))))
    if "LongTensor" in kind:
        tensors = [t for t in tensors if t.dtype == "int64"] or [ids(facts)]
    elif "FloatTensor" in kind:
        tensors = [t for t in tensors if t.dtype not in ("int64", "bool")]
    word = kind.replace("typing.", "").split("[", maxsplit=1)[0].lower()
    if word in ("list", "sequence"):
        return [TreeSequence("list", (tensor, tensor)) for tensor in tensors]
    if word == "tuple":
        count = max(1, kind.count("Tensor"))
        return [TreeSequence("tuple", (tensor,) * count) for tensor in tensors]
    return list(tensors)


def literals(kind: str) -> list[Tree]:
    """Values worth trying for an argument of a type that is no tensor; none for other types."""
    known: dict[str, tuple[bool | int | float | str, ...]] = {
        "int": (1, 2, 16000, 8, 0, 8000), "float": (1.0, 0.5, 0.0), "bool": (False, True), "str": ("",),
        "number": (1, 1.0),
    }  # fmt: skip
    return [Literal(value) for value in known.get(kind.lower(), ())]


def usual(facts: ModelFacts) -> Iterator[TensorSpec]:
    """Tensors that the first layers with parameters take, then one of each rank."""
    layers = [layer for layer in facts.layers if layer.parameters][:MOST_LAYERS]
    found = list(dict.fromkeys(spec for layer in layers for spec in layer_inputs(layer)))
    yield from found
    yield from _sequences(facts)
    rows = [spec for spec in found if len(spec.sizes) == 2 and not spec.may_hold_ids]
    yield from (replace(spec, sizes=(BATCH, LENGTH, spec.sizes[1])) for spec in rows[:2])
    for sizes in ((2, 3), (2, 3, 64, 64), (2, 3, 8), (2, 3, 16, 64, 64), (2,)):
        yield TensorSpec(facts.float_dtype, sizes)


def vocabulary(facts: ModelFacts) -> int:
    """The rows of the first embedding, which the first ids index; 2 where there is none."""
    for layer in facts.layers:
        weight = next(
            (p for p in layer.parameters if p.name == "weight" and len(p.sizes) == 2), None
        )
        if weight is not None and layer.class_name.endswith(("Embedding", "EmbeddingBag")):
            return weight.sizes[0]
    return 2


def ids(facts: ModelFacts) -> TensorSpec:
    return TensorSpec("int64", (BATCH, LENGTH), below=vocabulary(facts))


def by_name(name: str, facts: ModelFacts) -> Iterator[TensorSpec]:
    """What an argument of this name is by the custom of the field. A hint for the order of trying, no more."""
    words = name.lower().strip("_")
    last = words.rsplit("_", 1)[-1]
    if "pixel_mask" in words:
        yield TensorSpec("int64", (BATCH, 64, 64))
    elif "mask" in words:
        yield TensorSpec("int64", (BATCH, LENGTH))
        yield TensorSpec("bool", (BATCH, LENGTH))
    elif "type_ids" in words or "segment" in words:
        yield TensorSpec("int64", (BATCH, LENGTH))
    elif "position_ids" in words:
        yield TensorSpec("int64", (BATCH, LENGTH), below=LENGTH)
    elif "bbox" in words or "boxes" in words:
        yield TensorSpec("int64", (BATCH, LENGTH, 4), below=2)
    elif (
        last in ("ids", "tokens", "token", "src", "tgt", "text", "words") and vocabulary(facts) > 2
    ):
        yield ids(facts)
    elif last in ("timestep", "timesteps", "step", "steps", "lengths"):
        yield TensorSpec("int64", (BATCH,), below=LENGTH)
        yield TensorSpec(facts.float_dtype, (BATCH,))
    elif last in ("audio", "wave", "wav", "waveform", "speech") or words == "input_values":
        yield TensorSpec(facts.float_dtype, (BATCH, 4000))


def _sequences(facts: ModelFacts) -> Iterator[TensorSpec]:
    """Spectrograms and series whose length and width the model states, either way round."""
    for (length, *_), (width, *_) in product(
        setting(facts, "max_length", "context_length"),
        setting(facts, "num_mel_bins", "num_input_channels"),
    ):
        yield TensorSpec(facts.float_dtype, (BATCH, length, width))
        yield TensorSpec(facts.float_dtype, (BATCH, width, length))


def images(facts: ModelFacts) -> Iterator[TensorSpec]:
    """Images as the first layers with weights of four axes take them, wherever they are."""
    found = (
        spec
        for layer in facts.layers
        for spec in layer_inputs(layer)
        if len(spec.sizes) >= IMAGE_RANK
    )
    yield from islice(dict.fromkeys(found), 2)


def setting(facts: ModelFacts, *names: str) -> Iterator[tuple[int, ...]]:
    """The values of what the model states under these names."""
    return (found.values for found in facts.settings if found.name in names)


def spatial_sizes(facts: ModelFacts) -> Iterator[tuple[int, int]]:
    """Heights and widths worth trying: those that the model states, then the usual ones."""
    for values in setting(facts, "image_size", "img_size", "input_size", "sample_size"):
        yield (values[-2], values[-1]) if len(values) > 1 else (values[0], values[0])
    for size in (224, 32, 28, 128, 256, 299, 384, 512, 16):
        yield size, size


def lengths(facts: ModelFacts) -> Iterator[int]:
    """Lengths worth trying: those that the model states, then the usual ones."""
    for values in setting(facts, "max_source_positions"):
        yield 2 * values[0]
    for values in setting(
        facts,
        "max_length",
        "max_position_embeddings",
        "context_length",
        "num_mel_bins",
        "feature_size",
    ):
        yield values[-1]
    yield from (16, 64, 128, 80, 40, 512, 4000, 16000, 1024, 3000)


def other_sizes(candidate: Candidate, path: KeyPath, facts: ModelFacts) -> Iterator[Candidate]:
    """The same proposal with this input, and those like it, at other usual sizes of its free axes."""
    spec = dict(call_leaves(candidate.call))[path]
    rank = len(spec.sizes)
    free = [axis for axis in range(min(1, rank - 1), rank) if (path, axis) not in candidate.asked]
    wanted = list[dict[int, int]]()
    if rank >= 4:
        channels = [
            values[0] for values in setting(facts, "num_channels", "in_chans") if len(values) == 1
        ]
        areas = list(islice(dict.fromkeys(spatial_sizes(facts)), 10))
        wanted += [{rank - 2: height, rank - 1: width} for height, width in areas]
        wanted += [{1: count} for count in channels if 1 in free]
        if rank == 5:
            frames = [*(values[0] for values in setting(facts, "num_frames")), 16, 32, 8]
            video = [{2: n, 3: h, 4: w} for n in frames for h, w in (*areas[:1], (112, 112))]
            turned = [{1: n, 2: 3, 3: h, 4: w} for n in frames[:1] for h, w in areas[:1]]
            wanted = [*video, *turned, *wanted]
    elif rank:
        longest = LONGEST_OF_IDS if spec.may_hold_ids or spec.dtype == "bool" else LONGEST
        usual_lengths = [length for length in dict.fromkeys(lengths(facts)) if length <= longest]
        wanted += [{axis: length} for length in usual_lengths for axis in reversed(free)]
    alike = [other for other, found in call_leaves(candidate.call) if found == spec]
    for sizes_by_axis in wanted:
        sizes = tuple(sizes_by_axis.get(axis, size) for axis, size in enumerate(spec.sizes))
        if sizes != spec.sizes:
            changed = replace(spec, sizes=sizes, sample=None)
            for paths in (alike, [path]) if len(alike) > 1 else ([path],):
                yield replace(
                    candidate,
                    call=replace_call_leaf(candidate.call, dict.fromkeys(paths, changed)),
                    aim=None,
                )


def with_tensors(
    candidate: Candidate, changes: dict[KeyPath, TensorSpec], aim: SizeTarget | None = None
) -> Candidate:
    """The proposal with other tensors; what was known of their axes no longer holds where the rank is another."""
    before = dict(call_leaves(candidate.call))
    other = {path for path, spec in changes.items() if len(spec.sizes) != len(before[path].sizes)}
    asked = tuple((path, axis) for path, axis in candidate.asked if path not in other)
    return replace(candidate, call=replace_call_leaf(candidate.call, changes), asked=asked, aim=aim)
