"""Suites: many checks of one file, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from composecli.core.blueprint import Merge
from composecli.core.rules import Severity


class ItemKind(StrEnum):
    """What an item of a suite asks about its models. The value is the table of the file."""

    PAIR = "pair"
    CHAIN = "chain"
    PARALLEL = "parallel"
    FIT = "fit"
    CONTRACT = "contract"
    DIFF = "diff"


class Outcome(StrEnum):
    """What an item found."""

    COMPATIBLE = "compatible"
    BRIDGEABLE = "bridgeable"
    INCOMPATIBLE = "incompatible"
    UNKNOWN = "unknown"
    FITS = "fits"
    MISFIT = "misfit"
    SAME = "same"
    DIFFERENT = "different"
    BREAKING = "breaking"


_OF_SEAMS = (Outcome.COMPATIBLE, Outcome.BRIDGEABLE, Outcome.INCOMPATIBLE)
# What each kind may expect; the first is the default.
EXPECTED = {
    ItemKind.PAIR: _OF_SEAMS,
    ItemKind.CHAIN: _OF_SEAMS,
    ItemKind.PARALLEL: _OF_SEAMS,
    ItemKind.FIT: (Outcome.FITS, Outcome.MISFIT),
    ItemKind.CONTRACT: (Outcome.SAME, Outcome.DIFFERENT),
    ItemKind.DIFF: (Outcome.COMPATIBLE, Outcome.SAME, Outcome.BREAKING),
}


@dataclass(frozen=True, slots=True)
class SuiteModel:
    """A model of a suite, or a group of models if its source is a glob.

    `source` is a MODEL argument as the file writes it: its paths start in the folder of the suite.
    `inputs` are what `--input` states where the model comes first.
    """

    name: str
    source: str
    inputs: tuple[str, ...] = ()
    line: int = 1


@dataclass(frozen=True, slots=True)
class SuiteItem:
    """One item of a suite, about the models of these names.

    `contract` is the text of the expected contract, and `contract_file` the file that has it.
    `select` are outputs as `--select` names them.
    """

    kind: ItemKind
    models: tuple[str, ...]
    expected: Outcome
    line: int
    name: str | None = None
    strict: bool = False
    fail_on: Severity = Severity.ERROR
    select: tuple[str, ...] = ()
    key: str | None = None
    merge: Merge = Merge.CAT
    dim: int = 1
    contract: str | None = None
    contract_file: str | None = None


@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """The options of every item: None where the file leaves the default of the command line."""

    device: str | None = None
    training: str | None = None
    max_probes: int | None = None
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Suite:
    """The models and items of a suite file, in the order of the file.

    `waivers` is the file of accepted findings, if any.
    """

    path: str
    models: tuple[SuiteModel, ...]
    items: tuple[SuiteItem, ...]
    options: SuiteOptions = field(default_factory=SuiteOptions)
    waivers: str | None = None
    sha256: str = ""

    def model(self, name: str) -> SuiteModel:
        """Return the model of a name, which is one of the models."""
        return next(model for model in self.models if model.name == name)

    def used_models(self) -> Iterator[SuiteModel]:
        """Yield the models that an item is about, in the order of the file."""
        used = {name for item in self.items for name in item.models}
        for model in self.models:
            if model.name in used:
                yield model
