"""Names of weights: which state dict of a checkpoint fits a module, and under which names.

Wrappers put words into the names: `module.` (DataParallel, DeepSpeed, AveragedModel), `_orig_mod.`
(torch.compile) anywhere in them, and the attribute of a training class in front (`model.`, `net.`).
The names of a file are fitted to those of a module. Whether the weights fit is decided later, when
PyTorch loads them strictly: a tensor is never left out to make them fit, apart from the few numbers
that are known to count training steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from composecli.files.entry_keys import key_of

# The sizes of a tensor; None for an entry that is no tensor.
Sizes = tuple[int, ...] | None
NamedSizes = Mapping[str, Sizes]

# Entries of checkpoints that are the weights, in the order in which they are preferred.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "weights", "params")
# Attributes of training classes that hold the model.
PREFIXES = ("model.", "net.")
# How many words of a name may be in front of those of one of several nets.
_PREFIX_DEPTHS = (1, 2, 3)
# What a module stores besides its tensors, of whatever class.
EXTRA_STATE = "_extra_state"
# Submodules that wrappers insert.
_WRAPPING_MODULES = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Words in the names of numbers that training code keeps beside the weights.
_TRAINING_WORDS = re.compile(
    r"(?i)n_averaged|(num_)?updates|(global_)?steps?|epochs?|(num_)?(iter|iters|iterations?)"
    r"|iter_num|seed|best_\w+|((best|train|val|test)_)*(acc|accuracy|loss|metric|score)"
)
# Parts of a Lightning module that only training uses.
_TRAINING_PARTS = re.compile(r"(?i)(\w*_)?(loss|losses|criterion|criteria|metrics?)(_\w*)?")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A state dict that may be meant: the keys that lead to it, and the sizes of its tensors.

    `beside_training`: it comes from a class that has losses and metrics besides the model.
    """

    path: tuple[str, ...]
    sizes: NamedSizes
    beside_training: bool = False

    @property
    def key(self) -> str:
        """The dotted key that names it on the command line."""
        return key_of(self.path)

    @property
    def is_usual(self) -> bool:
        """Whether it is where training code usually puts the weights."""
        return all(name in WRAPPERS for name in self.path)

    @property
    def rank(self) -> tuple[int, ...]:
        """The order among candidates that fit equally well."""
        ranks = list[int]()
        for name in self.path:
            rank = len(WRAPPERS)
            if name in WRAPPERS:
                rank = WRAPPERS.index(name)
            ranks.append(rank)
        return tuple(ranks)


@dataclass(frozen=True, slots=True)
class Fit:
    """The names that the weights of a file have in a module.

    `renamed` has the module's name of each weight, and `left_out` the entries that are no weights.
    `named` counts the weights that the module has by that name, and `matched` those that have the
    same sizes there; if `exact`, all weights of both sides do.

    Unless the names are as they were (`paths` is None), the words of wrappers were removed from
    them, and then the `prefixes`. `paths` are the submodules of the module without such words.
    """

    renamed: Mapping[str, str]
    left_out: tuple[str, ...] = ()
    named: int = 0
    matched: int = 0
    exact: bool = False
    prefixes: tuple[str, ...] = ()
    paths: Mapping[str, str] | None = None

    @property
    def score(self) -> tuple[bool, int, int]:
        """How well it fits, to be compared."""
        return self.exact, self.matched, self.named

    @property
    def stripped(self) -> tuple[str, ...]:
        """The words that were removed from any name, each once."""
        words = dict[str, None]()
        for name, inner in self.renamed.items():
            kept = inner.split(".")
            for word in name.split("."):
                if word not in kept:
                    words[f"{word}."] = None
        return tuple(words)

    def module_path(self, path: str) -> str:
        """Return the path that a submodule of the file has in the module."""
        if self.paths is None:
            return path
        inner = ".".join(_without_wrappers(path)) + "."
        for prefix in self.prefixes:
            inner = inner.removeprefix(prefix)
        inner = inner.removesuffix(".")
        return self.paths.get(inner, inner)


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate at `place` and its fit; `rivals` are the keys of others that fit as well.

    `misfits` say of others, which might have been expected, by their keys why they do not fit.
    """

    place: int
    fit: Fit
    rivals: tuple[str, ...] = ()
    misfits: Mapping[str, str] = field(default_factory=dict)


def choose(candidates: Sequence[Candidate], wanted: NamedSizes) -> Choice | None:
    """Return the candidate that fits the names and sizes of a module best.

    None if several fit and none of them is where weights usually are.
    """
    fits = [fit_names(candidate, wanted) for candidate in candidates]
    best = max(fit.score for fit in fits)
    tied = [place for place, fit in enumerate(fits) if fit.score == best]
    tied.sort(key=lambda place: candidates[place].rank)
    chosen = tied[0]
    fits_at_all = fits[chosen].matched > 0
    if len(tied) > 1 and fits_at_all and not candidates[chosen].is_usual:
        return None
    rivals: tuple[str, ...] = ()
    if fits_at_all:
        rivals = tuple(candidates[place].key for place in tied[1:])
    misfits = dict[str, str]()
    for place, fit in enumerate(fits):
        if place not in tied and _might_be_meant(candidates[place], fit):
            misfits[candidates[place].key] = first_difference(candidates[place], fit, wanted)
    return Choice(chosen, fits[chosen], rivals, misfits)


def _might_be_meant(candidate: Candidate, fit: Fit) -> bool:
    """Return whether an entry looks like the weights: by where it is, or by names in it."""
    return bool(candidate.path) and (candidate.is_usual or fit.named > 0)


def first_difference(candidate: Candidate, fit: Fit, wanted: NamedSizes) -> str:
    """Return the first reason why weights do not fit a module with these names and sizes."""
    for name, inner in fit.renamed.items():
        sizes, expected = candidate.sizes[name], wanted.get(inner)
        if sizes is not None and expected is not None and sizes != expected:
            return f"its {name} is {list(sizes)}, and {list(expected)} in the module"
    for name, inner in fit.renamed.items():
        if inner not in wanted:
            return f"the module has no {name}"
    missing = wanted.keys() - set(fit.renamed.values())
    for name in wanted:
        if name in missing:
            return f"it has no {name}"
    return "an entry of it is no tensor"


def fit_names(candidate: Candidate, wanted: NamedSizes) -> Fit:
    """Return the names that the weights have in a module with these names.

    Names stay as they are if that fits best.
    """
    best = _evaluate(candidate, wanted, Fit({name: name for name in candidate.sizes}))
    for fit in _renamings(candidate, wanted):
        evaluated = _evaluate(candidate, wanted, fit)
        if evaluated.score > best.score:
            best = evaluated
    return best


def fitting_parts(candidate: Candidate, wanted: NamedSizes) -> Iterator[str]:
    """Yield the words in front of names whose weights alone would fit, as those of one of two nets.

    They are the first of a name, or up to three: `module.encoder_q`. Nobody but the user can tell
    which of them is meant, or that the others do not matter.
    """
    found = list[str]()
    for depth in _PREFIX_DEPTHS:
        for words, inner in _parts(candidate, depth).items():
            # A file may have a word for each of its names: most are too few to be compared.
            may_fit = 2 * len(inner) >= len(wanted)
            is_inside = any(f"{words}.".startswith(f"{outer}.") for outer in found)
            if may_fit and not is_inside and fit_names(Candidate((), inner), wanted).exact:
                found.append(words)
                yield words


def _parts(candidate: Candidate, depth: int) -> dict[str, dict[str, Sizes]]:
    """Return the weights by the first words of their names, this many of them."""
    parts = dict[str, dict[str, Sizes]]()
    for name, sizes in candidate.sizes.items():
        words = name.split(".", depth)
        if len(words) > depth:
            rest = words.pop()
            parts.setdefault(".".join(words), {})[rest] = sizes
    return parts


def _renamings(candidate: Candidate, wanted: NamedSizes) -> Iterator[Fit]:
    """Yield the names without the words of wrappers, then without each prefix that all have.

    If two names would become the same, there are no more.
    """
    names = {name: _bare(name) for name in candidate.sizes}
    in_module = _by_bare_name(wanted)
    paths = _by_bare_name(_module_paths(wanted))
    prefixes = list[str]()
    while len(set(names.values())) == len(names):
        renamed = {name: in_module.get(inner, inner) for name, inner in names.items()}
        yield Fit(renamed, prefixes=tuple(prefixes), paths=paths)
        prefix = _common_prefix(candidate, names)
        if prefix is None:
            return
        prefixes.append(prefix)
        names = {name: inner.removeprefix(prefix) for name, inner in names.items()}


def _common_prefix(candidate: Candidate, names: Mapping[str, str]) -> str | None:
    """Return the prefix that all names have, apart from those that are no weights."""
    inner = [inner for name, inner in names.items() if not _may_be_left_out(candidate, name)]
    for prefix in PREFIXES:
        if inner and all(name.startswith(prefix) for name in inner):
            return prefix
    return None


def _evaluate(candidate: Candidate, wanted: NamedSizes, fit: Fit) -> Fit:
    """Complete a fit with the names left out, and the share of it that matches the module."""
    kept = dict[str, str]()
    left_out = list[str]()
    named = matched = 0
    for name, inner in fit.renamed.items():
        if inner not in wanted and _may_be_left_out(candidate, name):
            left_out.append(name)
            continue
        kept[name] = inner
        if inner in wanted:
            named += 1
            matched += wanted[inner] == candidate.sizes[name]
    exact = matched == len(kept) == len(wanted)
    return replace(
        fit, renamed=kept, left_out=tuple(left_out), named=named, matched=matched, exact=exact
    )


def _may_be_left_out(candidate: Candidate, name: str) -> bool:
    """Return whether an entry is no weight: a number of the training, or not a tensor."""
    sizes = candidate.sizes[name]
    first, _, rest = name.partition(".")
    if rest:
        return candidate.beside_training and _TRAINING_PARTS.fullmatch(first) is not None
    if sizes is None:
        return name != EXTRA_STATE
    return sizes == () and _TRAINING_WORDS.fullmatch(name) is not None


def _bare(name: str) -> str:
    """Return a name without the submodules that wrappers insert: `0._orig_mod.fc` is `0.fc`."""
    return ".".join(_without_wrappers(name)) or name


def _without_wrappers(name: str) -> list[str]:
    """Return the words of a name that wrappers do not insert."""
    return [word for word in name.split(".") if word not in _WRAPPING_MODULES]


def _by_bare_name(names: Iterable[str]) -> dict[str, str]:
    """Return names by their bare form, without those that share one."""
    found = dict[str, str]()
    shared = set[str]()
    for name in names:
        bare = _bare(name)
        if bare in found:
            shared.add(bare)
        found[bare] = name
    return {bare: name for bare, name in found.items() if bare not in shared}


def _module_paths(names: NamedSizes) -> Iterator[str]:
    """Yield the path of each submodule with weights once."""
    paths = dict[str, None]()
    for name in names:
        words = name.split(".")
        for length in range(1, len(words)):
            paths[".".join(words[:length])] = None
    yield from paths
