"""Why weights do not fit a module: the causes behind the names and sizes that differ.

Each cause is one sentence about a part of the module, from names and sizes alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from itertools import chain

# The sizes of each entry by its name; None for an entry that is not a tensor.
Sizes = Mapping[str, tuple[int, ...] | None]

MAX_NAMES_SHOWN = 3
# With fewer names in common, file and module are of different architectures.
MIN_SHARE_IN_COMMON = 0.2

_ADAPTER = re.compile(r"(^|\.)(lora_[A-Za-z_]+|base_layer|modules_to_save)(\.|$)")
_QUANTIZED = re.compile(
    r"(^|\.)(qweight|qzeros|g_idx|SCB|absmax|quant_map|quant_state\b.*|weight_scale|input_scale"
    r"|weight_scale_inv|_packed_params)(\.|$)"
)
# Each alone is also a name of ordinary parameters: quantized layers have both.
_SCALE, _ZERO_POINT = "scale", "zero_point"
_ODD_KEY = re.compile(r"\[key [0-9]+\]")
_INDEX = re.compile(r"[0-9]{1,9}")


class CauseKind(StrEnum):
    """The kinds of causes."""

    PREFIX = "prefix"
    ODD_KEYS = "odd keys"
    ADAPTERS = "adapters"
    QUANTIZED = "quantized"
    TIED = "tied"
    DEPTH = "depth"
    CLASSES = "classes"
    WIDTH = "width"
    SIZES = "sizes"
    PART = "part"
    ARCHITECTURE = "architecture"


_SPECIAL_NAMES = {CauseKind.ADAPTERS: _ADAPTER, CauseKind.QUANTIZED: _QUANTIZED}
_SPECIAL_WORDS = {
    CauseKind.ADAPTERS: "adapters of LoRA (peft)",
    CauseKind.QUANTIZED: "quantized weights",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause, as a title and a sentence with the facts.

    `change` is a number of the module and the one that the file has in its place, if the cause is
    that they differ.
    """

    kind: CauseKind
    title: str
    text: str
    change: tuple[int, int] | None = None


@dataclass(frozen=True)
class KeyDifferences:
    """The names that differ between a module and a file, and the sizes of all."""

    module: Sizes
    file: Sizes

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """The names that the module has, and the file has not."""
        return tuple(name for name in self.module if name not in self.file)

    @cached_property
    def unexpected(self) -> tuple[str, ...]:
        """The names that the file has, and the module has not."""
        return tuple(name for name in self.file if name not in self.module)

    @cached_property
    def resized(self) -> tuple[str, ...]:
        """The names of other sizes. Those of a lazy layer are not known."""
        names = list[str]()
        for name, sizes in self.module.items():
            if sizes is not None and name in self.file and self.file[name] != sizes:
                names.append(name)
        return tuple(names)

    @property
    def count(self) -> int:
        """The number of names that differ in any way."""
        return len(self.missing) + len(self.unexpected) + len(self.resized)


def odd_key(place: int) -> str:
    """Return the name of an entry whose key is not text, by its place in its dict."""
    return f"[key {place}]"


def find_causes(keys: KeyDifferences, shared: Sequence[tuple[str, ...]] = ()) -> tuple[Cause, ...]:
    """Return the causes of all differences, the one that explains most of the others first.

    `shared` has the names of each tensor of the module that has several.
    """
    prefix = _prefix(keys)
    if prefix is not None:
        return (prefix,)
    left = _Left(keys)
    special = [
        *left.take(_odd_keys(keys)),
        *left.take(_special(keys, CauseKind.ADAPTERS)),
        *left.take(_special(keys, CauseKind.QUANTIZED)),
    ]
    if not special and _are_foreign(keys):
        return (_architecture(keys),)
    causes = [
        *special,
        *left.take(_tied(keys, shared)),
        *left.take(_depths(keys)),
        *left.take(_resized(keys)),
        *left.take(_parts(left)),
    ]
    return tuple(causes)


# A cause with the names that it explains.
Explained = tuple[Cause, frozenset[str]]


class _Left:
    """The names that no cause explains yet."""

    def __init__(self, keys: KeyDifferences) -> None:
        self.missing = dict.fromkeys(keys.missing)
        self.unexpected = dict.fromkeys(keys.unexpected)
        self.resized = dict.fromkeys(keys.resized)

    def take(self, found: Iterator[Explained]) -> Iterator[Cause]:
        """Yield each cause that explains a name that is left, and take these names away."""
        for cause, names in found:
            explains = False
            for kind in (self.missing, self.unexpected, self.resized):
                for name in names:
                    if name in kind:
                        del kind[name]
                        explains = True
            if explains:
                yield cause


def _prefix(keys: KeyDifferences) -> Cause | None:
    """Return the cause that all names of one side begin with a word, and are the same behind it."""
    in_file, in_module = _only_prefix(keys.file), _only_prefix(keys.module)
    if _are_same_behind(in_file, keys.file, keys.module):
        text = f"the names in the file begin with {in_file}, those of the module do not"
        return Cause(CauseKind.PREFIX, "another prefix", text)
    if _are_same_behind(in_module, keys.module, keys.file):
        text = f"the names of the module begin with {in_module}, those in the file do not"
        return Cause(CauseKind.PREFIX, "another prefix", text)
    return None


def _only_prefix(names: Sizes) -> str:
    """Return the word and the dot with which all names begin; empty if they differ."""
    firsts = _firsts(names)
    if len(firsts) != 1:
        return ""
    return f"{firsts[0]}."


def _are_same_behind(prefix: str, longer: Sizes, shorter: Sizes) -> bool:
    """Return whether names without their prefix are the names of the other side."""
    return bool(prefix) and {name.removeprefix(prefix) for name in longer} == set(shorter)


def _are_foreign(keys: KeyDifferences) -> bool:
    """Return whether hardly any name is in both."""
    common = keys.module.keys() & keys.file.keys()
    return len(common) < MIN_SHARE_IN_COMMON * max(len(keys.module), len(keys.file))


def _architecture(keys: KeyDifferences) -> Cause:
    """Return the cause that the weights are of another module."""
    common = len(keys.module.keys() & keys.file.keys())
    ours, theirs = _shown(_firsts(keys.module)), _shown(_firsts(keys.file))
    text = (
        f"{common} of {len(keys.module)} names of the module are among the {len(keys.file)} in the "
        f"file: they begin with {theirs} there, and with {ours} in the module"
    )
    return Cause(CauseKind.ARCHITECTURE, "another architecture", text)


def _firsts(names: Sizes) -> list[str]:
    """Return the first words of names, each once."""
    return list(dict.fromkeys(name.split(".")[0] for name in names))


def _odd_keys(keys: KeyDifferences) -> Iterator[Explained]:
    """Yield the cause that the file has keys that are not text."""
    names = [name for name in keys.unexpected if _ODD_KEY.fullmatch(name)]
    if names:
        text = f"{_shown(names)} of the file is not text: load_state_dict raises an error for it"
        yield Cause(CauseKind.ODD_KEYS, "keys that are not text", text), frozenset(names)


def _special(keys: KeyDifferences, kind: CauseKind) -> Iterator[Explained]:
    """Yield the cause that one side has names of a special kind of weights."""
    words = _SPECIAL_WORDS[kind]
    for names, where in ((keys.unexpected, "file"), (keys.missing, "module")):
        layers = dict(_special_layers(names, kind))
        if not layers:
            continue
        around = frozenset(layers.values())
        explained = set(layers)
        for name in chain(keys.missing, keys.unexpected, keys.resized):
            if not around.isdisjoint(_layers_around(name)):
                explained.add(name)
        first = next(iter(layers))
        text = f"{len(layers)} names in the {where} are those of {words}, such as {first}"
        yield Cause(kind, words, text), frozenset(explained)


def _special_layers(names: Sequence[str], kind: CauseKind) -> Iterator[tuple[str, str]]:
    """Yield each special name, with the layer in front of its word, which ends in a dot."""
    present = frozenset(names)
    for name in names:
        match = _SPECIAL_NAMES[kind].search(name)
        layer = name[: name.rfind(".") + 1]
        pair = {layer + _SCALE, layer + _ZERO_POINT}
        if match is not None:
            yield name, name[: match.start() + len(match[1])]
        elif kind is CauseKind.QUANTIZED and name in pair and pair <= present:
            yield name, layer


def _layers_around(name: str) -> Iterator[str]:
    """Yield the layers that a name is in, each with its dot; empty if the module has it itself."""
    if "." not in name:
        yield ""
    for dot in re.finditer(r"\.", name):
        yield name[: dot.end()]


def _tied(keys: KeyDifferences, shared: Sequence[tuple[str, ...]]) -> Iterator[Explained]:
    """Yield the cause that a file has a tensor of several names under one of them."""
    absent = set(keys.missing)
    for names in shared:
        missing = [name for name in names if name in absent]
        present = [name for name in names if name in keys.file]
        if missing and present:
            text = f"{_shown(missing)} of the module is the same tensor as {present[0]}"
            text += ", and the file has it once"
            yield Cause(CauseKind.TIED, "tied weights", text), frozenset(missing)


def _depths(keys: KeyDifferences) -> Iterator[Explained]:
    """Yield the cause that a numbered container has more parts on one side."""
    in_module, in_file = _containers(keys.module), _containers(keys.file)
    differing = _numbered([*keys.missing, *keys.unexpected])
    for container in dict.fromkeys(chain(in_module, in_file)):
        ours = in_module.get(container, set())
        theirs = in_file.get(container, set())
        is_longer = ours < theirs or theirs < ours
        if not ours or not theirs or not is_longer:
            continue
        names = list[str]()
        for number in ours ^ theirs:
            names += differing.get((container, number), ())
        text = f"{len(theirs)} parts in the file, and {len(ours)} in the module"
        text = f"{container or 'it'} has {text}"
        change = (len(ours), len(theirs))
        yield Cause(CauseKind.DEPTH, "another depth", text, change), frozenset(names)


def _containers(names: Sizes) -> dict[str, set[int]]:
    """Return the numbers behind each container of numbered parts: `blocks` of `blocks.0.weight`."""
    containers = defaultdict[str, set[int]](set)
    for container, number in _numbered(names):
        containers[container].add(number)
    return containers


def _numbered(names: Iterable[str]) -> dict[tuple[str, int], list[str]]:
    """Return the names in each numbered part, by its container and number."""
    parts = defaultdict[tuple[str, int], list[str]](list)
    for name in names:
        words = name.split(".")
        for position, word in enumerate(words):
            if _INDEX.fullmatch(word):
                parts[".".join(words[:position]), int(word)].append(name)
    return parts


@dataclass(frozen=True, slots=True)
class _Place:
    """An axis whose sizes differ: that of the module, and that in the file."""

    name: str
    axis: int
    change: tuple[int, int]


def _resized(keys: KeyDifferences) -> Iterator[Explained]:
    """Yield a cause for each ratio of sizes that differ: a width and its multiples are one."""
    by_ratio = defaultdict[Fraction, list[_Place]](list)
    odd = list[str]()
    for name in keys.resized:
        ours, theirs = keys.module[name], keys.file[name]
        if ours is None or theirs is None or len(ours) != len(theirs):
            odd.append(name)
            continue
        for axis, (own, stored) in enumerate(zip(ours, theirs, strict=True)):
            if own != stored:
                ratio = Fraction(stored, own or 1)
                by_ratio[ratio].append(_Place(name, axis, (own, stored)))
    for places in sorted(by_ratio.values(), key=len, reverse=True):
        yield _change(places), frozenset(place.name for place in places)
    for name in odd:
        in_file, in_module = _sizes(keys.file[name]), _sizes(keys.module[name])
        text = f"{name} is {in_file} in the file, {in_module} in the module"
        yield Cause(CauseKind.SIZES, "other sizes", text), frozenset((name,))


def _change(places: Sequence[_Place]) -> Cause:
    """Return the cause of sizes that differ by one ratio: the smallest stands for the others."""
    change = min(place.change for place in places)
    own, stored = change
    parts = dict.fromkeys(place.name.rpartition(".")[0] or "the module" for place in places)
    where = _shown(list(parts))
    if {place.axis for place in places} == {0}:
        text = f"{stored} rows in the file are {own} in the module, in {where}"
        return Cause(CauseKind.CLASSES, "another number of outputs or rows", text, change)
    text = f"{stored} in the file is {own} in the module, in {where}"
    return Cause(CauseKind.WIDTH, "another width", text, change)


def _parts(left: _Left) -> Iterator[Explained]:
    """Yield the names that are left, by the part of the module that they are in."""
    for names, where in ((left.missing, "the file lacks"), (left.unexpected, "the module lacks")):
        by_part = defaultdict[str, list[str]](list)
        for name in names:
            by_part[name.split(".")[0]].append(name)
        for part, inside in by_part.items():
            text = f"{where} {_shown(inside)}"
            yield Cause(CauseKind.PART, f"other parts in {part}", text), frozenset(inside)


def _sizes(sizes: tuple[int, ...] | None) -> str:
    """Return sizes as text."""
    if sizes is None:
        return "no tensor"
    return str(list(sizes))


def _shown(names: Sequence[str]) -> str:
    """Return the first names, and how many there are besides."""
    text = ", ".join(names[:MAX_NAMES_SHOWN])
    more = len(names) - MAX_NAMES_SHOWN
    if more > 0:
        text += f" and {more} more"
    return text
