"""Writing an output: whole and verified under its name, or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from composecli.errors import CouldNotAttempt, Problem

LEAST_FREE = 2**16
_SUFFIX = ".composecli-tmp"


@dataclass(frozen=True, slots=True)
class Output:
    """Where the file goes: `path` as it was named, `target` behind its links."""

    path: str
    target: Path


def allow(path: str, inputs: tuple[str, ...], *, force: bool) -> Output:
    """The output, where it may be written.

    Raises:
        CouldNotAttempt: it is an input, is there already and may not be replaced, or has no folder.
    """
    try:
        return _allow(path, Path(os.path.realpath(path)), inputs, force=force)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CouldNotAttempt(Problem("CC921", f"could not write the output: {reason}", path)) from error


def _allow(path: str, target: Path, inputs: tuple[str, ...], *, force: bool) -> Output:
    for name in inputs:
        if _same_file(target, name):
            raise CouldNotAttempt(
                Problem("CC920", f"the output is the input {name}", path, help=("choose another name with -o",))
            )
    if target.exists() and not target.is_file():
        what = "a directory" if target.is_dir() else "a device, a pipe or a socket"
        raise CouldNotAttempt(Problem("CC921", f"the output is {what}", path, help=("name a file with -o",)))
    if target.exists() and not force:
        raise CouldNotAttempt(Problem("CC919", "the output exists", path, help=("--force replaces it",)))
    if not target.parent.is_dir():
        raise CouldNotAttempt(
            Problem("CC921", "the folder of the output does not exist", path, help=(f"mkdir -p {target.parent}",))
        )
    return Output(path, target)


def _same_file(target: Path, name: str) -> bool:
    try:
        return os.path.samefile(target, name)
    except OSError:
        return os.path.realpath(name) == str(target)


@dataclass(frozen=True, slots=True)
class Stage:
    """A temporary sibling of the output, to fill and then to keep."""

    output: Output
    path: Path

    def keep(self) -> None:
        """Give it the output's name.

        Raises:
            CouldNotAttempt: the disk is full, the folder is gone.
        """
        with _told(self.output):
            _take_name(self.path, self.output.target)


@contextmanager
def staged(output: Output) -> Iterator[Stage]:
    """The sibling, which is gone at the end unless it was kept. Those that a killed run left are removed first.

    Raises:
        CouldNotAttempt: it cannot be made.
    """
    _remove_stale(output.target)
    sibling = output.target.with_name(f".{output.target.name}.{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}")
    try:
        with _told(output):
            os.close(os.open(sibling, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield Stage(output, sibling)
    finally:
        sibling.unlink(missing_ok=True)


@contextmanager
def _told(output: Output) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CouldNotAttempt(Problem("CC921", f"could not write the output: {reason}", output.path)) from error


def _remove_stale(target: Path) -> None:
    """Remove what runs that were killed left beside this output: siblings whose process is no more."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.(\d+)-[0-9a-f]{{8}}{re.escape(_SUFFIX)}")
    for entry in os.scandir(target.parent):
        found = ours.fullmatch(entry.name)
        if found and not _is_alive(int(found[1])):
            Path(entry.path).unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def full(output: Output) -> bool:
    """Whether the disk of the output has no space left, which torch answers by aborting its process."""
    return shutil.disk_usage(output.target.parent).free < LEAST_FREE


def _take_name(sibling: Path, target: Path) -> None:
    with sibling.open("rb") as file:
        os.fsync(file.fileno())
    sibling.chmod(_mode(target))
    sibling.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _mode(target: Path) -> int:
    """The mode of the file that is replaced, or what a new file gets here."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
