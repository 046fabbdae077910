"""The plan of a suite: the tables of its file, checked key by key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import TypeVar

from composecli.commands.requests import parse_device, parse_seconds, parse_selection
from composecli.core.blueprint import Merge
from composecli.core.documents import Entry, InvalidDocument, Place, entry_of, nearest
from composecli.core.input_spec import parse_input
from composecli.core.limits import MAX_SHOWN_LENGTH, shorten
from composecli.core.rules import Severity
from composecli.core.suite import (
    EXPECTED,
    ItemKind,
    Suite,
    SuiteItem,
    SuiteModel,
    SuiteOptions,
)
from composecli.files.suite_file import SuiteDocument, read_suite
from composecli.workers.protocol import Training

MAX_ITEMS = 2000
MAX_NAMED_MODELS = 1000
# Each model of an item may be a group; an item stands for every choice of one member each.
MAX_MODELS_OF_ITEM = 100
MAX_INPUTS_OF_MODEL = 64
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_COMMON = ("name", "expect")
_OF_SEAMS = ("strict", "fail_on", "select")
_KEYS = {
    ItemKind.PAIR: ("producer", "consumer", *_COMMON, *_OF_SEAMS),
    ItemKind.CHAIN: ("models", *_COMMON, *_OF_SEAMS),
    ItemKind.PARALLEL: ("models", "merge", "dim", *_COMMON, *_OF_SEAMS),
    ItemKind.FIT: ("model", "key", *_COMMON),
    ItemKind.CONTRACT: ("model", "text", "file", *_COMMON),
    ItemKind.DIFF: ("old", "new", *_COMMON),
}
_TOP_KEYS = ("models", *map(str, ItemKind), "options", "waivers")

T = TypeVar("T")
Choice = TypeVar("Choice", bound=StrEnum)


def read_plan(path: str) -> Suite:
    """Return the suite of a file.

    Raises:
        CouldNotAttempt: if it cannot be read, or has a mistake; the problem names the line.
    """
    document = read_suite(path)
    try:
        return _Reader(document).suite()
    except InvalidDocument as mistake:
        document.refuse(mistake)


class _Reader:
    """Reads the tables of one file."""

    def __init__(self, document: SuiteDocument) -> None:
        self._document = document
        self._names: tuple[str, ...] = ()

    def suite(self) -> Suite:
        """Return the whole suite."""
        top = entry_of(self._document.values)
        top.allow(_TOP_KEYS)
        models = tuple(self._models(top))
        self._names = tuple(model.name for model in models)
        items = sorted(self._items(top), key=lambda item: item.line)
        if not items:
            kinds = ", ".join(f"[[{kind}]]" for kind in ItemKind)
            raise InvalidDocument((), f"there is nothing to check (add one of {kinds})")
        if len(items) > MAX_ITEMS:
            raise InvalidDocument((), f"there are more than {MAX_ITEMS:,} items")
        waivers = None
        if "waivers" in top.values:
            waivers = top.text("waivers")
        path, sha256 = self._document.path, self._document.sha256
        return Suite(path, models, tuple(items), _options(top), waivers, sha256)

    def _models(self, top: Entry) -> Iterator[SuiteModel]:
        """Yield the named models. A plain string is the path."""
        table = entry_of(top.values.get("models", {}), ("models",))
        if len(table.values) > MAX_NAMED_MODELS:
            raise InvalidDocument(table.place, f"there are more than {MAX_NAMED_MODELS:,} models")
        for name, value in table.values.items():
            place = (*table.place, name)
            if not _NAME.fullmatch(name):
                raise InvalidDocument(place, "a name is a text of 1 to 200 characters in one line")
            line = self._document.lines.of(place)
            if isinstance(value, str):
                yield SuiteModel(name, _source(value, place), (), line)
                continue
            if not isinstance(value, dict):
                message = 'a path is expected, or { path = "a.pt", inputs = ["1,3"] }'
                raise InvalidDocument(place, message)
            entry = Entry(value, place)
            entry.allow(("path", "inputs"))
            source = _source(entry.text("path"), (*place, "path"))
            yield SuiteModel(name, source, tuple(_inputs(entry)), line)

    def _items(self, top: Entry) -> Iterator[SuiteItem]:
        """Yield the items, kind by kind."""
        for kind in ItemKind:
            if isinstance(top.values.get(kind), dict):
                raise InvalidDocument((kind,), f"write [[{kind}]], with two brackets")
            for entry in top.entries(kind):
                entry.allow(_KEYS[kind])
                yield self._item(kind, entry)

    def _item(self, kind: ItemKind, entry: Entry) -> SuiteItem:
        """Return one item."""
        models = tuple(self._known(name, place) for place, name in _models_of(kind, entry))
        contract, contract_file = _contract(kind, entry)
        return SuiteItem(
            kind,
            models,
            _chosen(entry, "expect", EXPECTED[kind], EXPECTED[kind][0]),
            self._document.lines.of(entry.place),
            _optional_text(entry, "name"),
            entry.flag("strict"),
            _chosen(entry, "fail_on", (Severity.ERROR, Severity.WARNING), Severity.ERROR),
            tuple(_selections(entry)),
            _optional_text(entry, "key"),
            _chosen(entry, "merge", tuple(Merge), Merge.CAT),
            _dim(entry),
            contract,
            contract_file,
        )

    def _known(self, name: str, place: Place) -> str:
        """Return the name of a model, which must be in [models]."""
        if name in self._names:
            return name
        if not self._names:
            raise InvalidDocument(place, "there are no [models]")
        hint = shorten(nearest(name, self._names))
        raise InvalidDocument(place, f"there is no model {shorten(name)}{hint}")


def _source(text: str, place: Place) -> str:
    """Return a path, a glob or a factory."""
    if not text or "\0" in text or len(text) > 4096:
        raise InvalidDocument(place, "a path, a glob or a factory is expected")
    return text


def _inputs(entry: Entry) -> Iterator[str]:
    """Yield the stated inputs of a model."""
    for number, (place, text) in enumerate(entry.texts("inputs")):
        if number == MAX_INPUTS_OF_MODEL:
            raise InvalidDocument(place, f"there are more than {MAX_INPUTS_OF_MODEL} inputs")
        declared = _parsed(parse_input, text, place)
        if declared.model != 1:
            raise InvalidDocument(place, "an input of a model has no number in front")
        yield text


def _models_of(kind: ItemKind, entry: Entry) -> list[tuple[Place, str]]:
    """Return the names of the models of an item, each with its place."""
    match kind:
        case ItemKind.PAIR:
            return _named(entry, ("producer", "consumer"))
        case ItemKind.DIFF:
            return _named(entry, ("old", "new"))
        case ItemKind.FIT | ItemKind.CONTRACT:
            return _named(entry, ("model",))
    if "models" not in entry.values:
        raise InvalidDocument(entry.place, "the key models is missing")
    names = list(entry.texts("models"))
    # Parallel models may be one group.
    least = 2 if kind is ItemKind.CHAIN else 1
    if not least <= len(names) <= MAX_MODELS_OF_ITEM:
        message = f"{least} to {MAX_MODELS_OF_ITEM} models are expected, not {len(names)}"
        raise InvalidDocument((*entry.place, "models"), message)
    return names


def _named(entry: Entry, keys: tuple[str, ...]) -> list[tuple[Place, str]]:
    return [((*entry.place, key), entry.text(key)) for key in keys]


def _contract(kind: ItemKind, entry: Entry) -> tuple[str | None, str | None]:
    """Return the expected contract: its text, or the path of its file."""
    if kind is not ItemKind.CONTRACT:
        return None, None
    text, file = _optional_text(entry, "text"), _optional_text(entry, "file")
    if (text is None) == (file is None):
        raise InvalidDocument(entry.place, "either text or file is expected")
    return text, file


def _selections(entry: Entry) -> Iterator[str]:
    """Yield the selected outputs."""
    for place, text in entry.texts("select"):
        _parsed(parse_selection, text, place)
        yield text


def _dim(entry: Entry) -> int:
    """Return the axis along which outputs are merged."""
    dim = entry.integer("dim", 1)
    if abs(dim) > 64:
        raise InvalidDocument((*entry.place, "dim"), "an axis is expected, such as 1 or -1")
    return dim


def _options(top: Entry) -> SuiteOptions:
    """Return the options of every item."""
    entry = entry_of(top.values.get("options", {}), ("options",))
    entry.allow(("device", "training", "max_probes", "max_seconds"))
    device = _optional_text(entry, "device")
    if device is not None:
        _parsed(parse_device, device, ("options", "device"))
    training = max_probes = max_seconds = None
    if "training" in entry.values:
        training = str(_chosen(entry, "training", tuple(Training), Training.SAVED))
    if "max_probes" in entry.values:
        max_probes = entry.integer("max_probes")
        if not 1 <= max_probes <= 10**9:
            message = "a number of probes above 0 is expected"
            raise InvalidDocument(("options", "max_probes"), message)
    if "max_seconds" in entry.values:
        text = str(entry.number("max_seconds"))
        max_seconds = _parsed(parse_seconds, text, ("options", "max_seconds"))
    return SuiteOptions(device, training, max_probes, max_seconds)


def _optional_text(entry: Entry, key: str) -> str | None:
    """Return a string in one line, or None if there is no such key."""
    if key not in entry.values:
        return None
    text = entry.text(key)
    limit = MAX_SHOWN_LENGTH * 100
    if not text.strip() or "\0" in text or len(text) > limit:
        raise InvalidDocument((*entry.place, key), "a text is expected, and it is empty or long")
    return text


def _chosen(entry: Entry, key: str, allowed: Iterable[Choice], default: Choice) -> Choice:
    """Return one of a few words; the message suggests the nearest one."""
    choices = tuple(allowed)
    text = entry.text(key, str(default))
    for choice in choices:
        if text == choice:
            return choice
    hint = nearest(text, map(str, choices))
    raise InvalidDocument((*entry.place, key), f"{shorten(text)} is not known here{hint}")


def _parsed(parse: Callable[[str], T], text: str, place: Place) -> T:
    """Return the value of a text; a mistake is one of the file."""
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidDocument(place, shorten(str(error))) from None
