"""Changed files: which items of a suite git can show to be as they were at a revision."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from composecli.commands.suite_items import Member, PlannedItem, in_folder
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule
from composecli.files.shards import shards_of

_SECONDS = 60
# A repository can name programs that git runs, such as a monitor of its files.
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")


@dataclass(frozen=True, slots=True)
class Changes:
    """The files of a repository that have changed, and all that it tracks, by real path."""

    suite: str
    changed: frozenset[str]
    tracked: frozenset[str]

    def concern(self, planned: PlannedItem) -> bool:
        """Return whether an item has to run: if any file that it depends on may have changed.

        A file that git does not track may have changed. So may the code of a factory if any Python
        file has.
        """
        folder = os.path.dirname(self.suite)
        files = [self.suite, *_expected(planned, folder)]
        for member in planned.members:
            files += _files(member, folder)
            if not isinstance(member.reference, FactoryReference):
                continue
            if not member.reference.module.endswith(".py") or self._has_changed_code:
                return True
        return planned.problem is not None or any(map(self._may_have_changed, files))

    @property
    def _has_changed_code(self) -> bool:
        return any(path.endswith(".py") for path in self.changed)

    def _may_have_changed(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real not in self.tracked or real in self.changed


def changes_since(revision: str, suite: str) -> Changes:
    """Return what has changed in the repository of a suite file since a revision.

    Changes that are not committed count.

    Raises:
        CouldNotAttempt: if there is no git, no repository, or no such revision.
    """
    folder = os.path.dirname(suite) or "."
    (top,) = _git(folder, revision, "rev-parse", "--show-toplevel").splitlines()[:1]
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    commit = _git(top, revision, *words).strip()
    changed = _git(top, revision, "diff", "--name-only", "-z", "--no-renames", commit, "--")
    tracked = _git(top, revision, "ls-files", "-z")
    return Changes(suite, _paths(top, changed), _paths(top, tracked))


def _git(folder: str, revision: str, *words: str) -> str:
    """Return what git prints.

    Raises:
        CouldNotAttempt: if it fails.
    """
    command = [*_GIT, "-C", folder, *words]
    try:
        ran = subprocess.run(command, capture_output=True, check=True, timeout=_SECONDS)
    except subprocess.CalledProcessError as error:
        reason = os.fsdecode(error.stderr).strip().splitlines()
        raise _no_such_revision(revision, tuple(reason[-1:])) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _no_such_revision(revision, (f"git could not be run: {error}",)) from None
    return os.fsdecode(ran.stdout)


def _no_such_revision(revision: str, notes: tuple[str, ...]) -> CouldNotAttempt:
    """Return the error for a revision that git does not know."""
    title = "git cannot tell what has changed since the revision"
    help = ("leave out --changed-since to run every item",)
    return CouldNotAttempt(Problem(Rule.NO_SUCH_REVISION, title, revision, notes, help))


def _paths(top: str, text: str) -> frozenset[str]:
    """Return names that end in a zero byte as real paths."""
    names = filter(None, text.split("\0"))
    return frozenset(os.path.realpath(os.path.join(top, name)) for name in names)


def _expected(planned: PlannedItem, folder: str) -> Iterator[str]:
    """Yield the file of the contract that an item expects."""
    if planned.item.contract_file is not None:
        yield in_folder(planned.item.contract_file, folder)


def _files(member: Member, folder: str) -> Iterator[str]:
    """Yield the files of a model: code, weights, shards, and the samples that are stated."""
    reference = member.reference
    if isinstance(reference, FactoryReference) and reference.module.endswith(".py"):
        yield reference.module
    if reference.path is not None:
        yield reference.path
        yield from shards_of(reference.path)
    for text in member.inputs:
        if text.startswith("@"):
            yield in_folder(text[1:], folder)
