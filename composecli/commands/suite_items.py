"""Items of a suite: each with the MODEL arguments that its names stand for."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product

from composecli.commands.references import locate
from composecli.commands.trust import Trust
from composecli.core.command_line import PROGRAM, command_line, file_word
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import FactoryReference, Reference, parse_reference
from composecli.core.rules import Rule
from composecli.core.suite import ItemKind, Suite, SuiteItem, SuiteModel

# Of all items, once each group has been replaced by its members.
MAX_CHECKS = 10_000
MAX_MEMBERS = 1000
# A pattern in many folders of a path may look at every file of the system.
MAX_PATTERN_PARTS = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A model of an item: its name in the report, and the MODEL argument that a command takes."""

    label: str
    model: str
    inputs: tuple[str, ...] = ()

    @property
    def reference(self) -> Reference:
        """The file or factory."""
        return locate(self.model)


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """An item with one model for each of its names. `problem` is why it cannot be attempted."""

    item: SuiteItem
    name: str
    members: tuple[Member, ...]
    problem: Problem | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The MODEL arguments."""
        return tuple(member.model for member in self.members)


def plan_items(suite: Suite, trusts: tuple[Trust, ...]) -> tuple[PlannedItem, ...]:
    """Return the items of a suite, one for each choice of members of its groups.

    A factory has a problem unless `trusts` cover the suite file.

    Raises:
        CouldNotAttempt: if there are too many of them.
    """
    folder = os.path.dirname(suite.path)
    members = {model.name: _members(model, folder) for model in suite.used_models()}
    code_problem = _code_problem(suite, trusts)
    planned = list[PlannedItem]()
    for item in suite.items:
        for one in _expanded(item, members):
            if len(planned) == MAX_CHECKS:
                raise CouldNotAttempt(_too_many(suite, item))
            problem = one.problem
            if problem is None and any(map(_is_factory, one.members)):
                problem = code_problem
            planned.append(PlannedItem(item, one.name, one.members, problem))
    return tuple(planned)


def in_folder(path: str, folder: str) -> str:
    """Return a path of the suite as seen from the current folder."""
    return os.path.normpath(os.path.join(folder, path))


def _expanded(
    item: SuiteItem, members: dict[str, tuple[Member, ...] | Problem]
) -> Iterator[PlannedItem]:
    """Yield the item with each choice of members; parallel models take all of them."""
    choices = list[tuple[Member, ...]]()
    for name in item.models:
        found = members[name]
        if isinstance(found, Problem):
            text = item.name or _joined(item.kind, item.models)
            yield PlannedItem(item, text, (), found)
            return
        choices.append(found)
    if item.kind is ItemKind.PARALLEL:
        together = tuple(member for choice in choices for member in choice)
        yield _named(item, together, is_one=True)
        return
    is_one = all(len(choice) == 1 for choice in choices)
    for chosen in product(*choices):
        yield _named(item, chosen, is_one=is_one)


def _named(item: SuiteItem, members: tuple[Member, ...], *, is_one: bool) -> PlannedItem:
    """Return an item with its name: the one of the file, and the models if it has no other."""
    name = _joined(item.kind, tuple(member.label for member in members))
    if item.name is not None:
        name = item.name if is_one else f"{item.name}: {name}"
    problem = None
    if item.kind is ItemKind.PARALLEL and len(members) < 2:
        title = "at least two models are needed in parallel"
        problem = Problem(Rule.NO_SUCH_FILE, title, members[0].label)
    return PlannedItem(item, name, members, problem)


def _joined(kind: ItemKind, labels: tuple[str, ...]) -> str:
    """Return the models of an item as its name."""
    if kind is ItemKind.PARALLEL:
        return " | ".join(labels)
    return " -> ".join(labels)


def _members(model: SuiteModel, folder: str) -> tuple[Member, ...] | Problem:
    """Return the model, or the members of a group, in order; a problem if it has none."""
    path = in_folder(model.source, folder)
    if os.path.lexists(path):
        return (Member(model.name, path, model.inputs),)
    reference = parse_reference(model.source)
    if isinstance(reference, FactoryReference):
        return (Member(model.name, _factory_in(reference, folder), model.inputs),)
    if not glob.has_magic(model.source):
        return (Member(model.name, path, model.inputs),)
    parts = [part for part in model.source.split("/") if glob.has_magic(part)]
    if len(parts) > MAX_PATTERN_PARTS:
        title = f"a glob has patterns in at most {MAX_PATTERN_PARTS} parts of the path"
        return Problem(Rule.NO_SUCH_FILE, title, model.source)
    found = sorted(islice(glob.iglob(model.source, root_dir=folder or None), MAX_MEMBERS + 1))
    if not found:
        return Problem(Rule.NO_SUCH_FILE, "no file matches the glob", model.source)
    if len(found) > MAX_MEMBERS:
        title = f"the glob matches more than {MAX_MEMBERS:,} files"
        return Problem(Rule.NO_SUCH_FILE, title, model.source)
    return tuple(Member(name, in_folder(name, folder), model.inputs) for name in found)


def _factory_in(reference: FactoryReference, folder: str) -> str:
    """Return the MODEL argument of a factory whose paths start in a folder."""
    module, path = reference.module, reference.path
    if module.endswith(".py"):
        module = in_folder(module, folder)
    if path is not None:
        path = in_folder(path, folder)
    return FactoryReference(module, reference.factory, path, reference.arguments).name


def _is_factory(member: Member) -> bool:
    return isinstance(member.reference, FactoryReference)


def _code_problem(suite: Suite, trusts: tuple[Trust, ...]) -> Problem | None:
    """Return why the factories of a suite may not run; None if the user trusts the suite."""
    for trust in trusts:
        if not trust.covers(suite.path):
            continue
        if trust.sha256 in (None, suite.sha256):
            return None
        title = "the suite is not the one that is trusted"
        notes = (f"its SHA-256 is {suite.sha256}",)
        return Problem(Rule.NOT_THE_FILE_THAT_IS_TRUSTED, title, suite.path, notes)
    words = (PROGRAM, "suite", file_word(suite.path), "--trust", suite.path)
    title = "the code that a suite names runs only if you trust the suite"
    return Problem(Rule.CODE_OF_A_SUITE, title, suite.path, help=(command_line(words),))


def _too_many(suite: Suite, item: SuiteItem) -> Problem:
    """Return the problem of groups that make too many checks."""
    title = f"the groups make more than {MAX_CHECKS:,} checks"
    return Problem(Rule.INVALID_SUITE, title, f"{suite.path}:{item.line}")
