"""Writing an output: whole and verified under its name, or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule

LEAST_FREE = 2**16
LONGEST_NAME = 160
_SUFFIX = ".composecli-tmp"


@dataclass(frozen=True, slots=True)
class OutputFile:
    """Where the file goes: `path` as it was named, `target` behind its links."""

    path: str
    target: Path


def resolve_output(path: str, inputs: tuple[str, ...], *, force: bool) -> OutputFile:
    """The output, where it may be written.

    Raises:
        CouldNotAttempt: it is an input, is there already and may not be replaced, or has no folder.
    """
    with _told(path):
        return _allow(path, Path(os.path.realpath(path)), inputs, force=force)


def _allow(path: str, target: Path, inputs: tuple[str, ...], *, force: bool) -> OutputFile:
    for name in inputs:
        if _same_file(target, name):
            raise CouldNotAttempt(
                Problem(
                    Rule.OUTPUT_IS_AN_INPUT,
                    f"the output is the input {name}",
                    path,
                    help=("choose another name with -o",),
                )
            )
    if target.exists() and not target.is_file():
        what = "a directory" if target.is_dir() else "a device, a pipe or a socket"
        raise CouldNotAttempt(
            Problem(
                Rule.COULD_NOT_WRITE, f"the output is {what}", path, help=("name a file with -o",)
            )
        )
    if target.exists() and not force:
        raise CouldNotAttempt(
            Problem(Rule.OUTPUT_EXISTS, "the output exists", path, help=("--force replaces it",))
        )
    if not target.parent.is_dir():
        raise CouldNotAttempt(
            Problem(
                Rule.COULD_NOT_WRITE,
                "the folder of the output does not exist",
                path,
                help=(f"mkdir -p {target.parent}",),
            )
        )
    return OutputFile(path, target)


def _same_file(target: Path, name: str) -> bool:
    try:
        return os.path.samefile(target, name)
    except OSError:
        return os.path.realpath(name) == str(target)


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file of the output's name in a temporary folder beside it, to fill and then to keep.

    PyTorch writes a file's name into it: by its own name the content is the same every time.
    """

    output: OutputFile
    path: Path

    @contextmanager
    def flushing(self) -> Iterator[None]:
        """Let the disk have what is written, while something else is done.

        Raises:
            CouldNotAttempt: the disk does not take it, of which it tells once.
        """
        failures = list[OSError]()
        thread = threading.Thread(target=_flush, args=(self.path, failures), daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join()
        with _told(self.output.path):
            for failure in failures:
                raise failure

    def commit(self) -> None:
        """Give it, once it is flushed, the output's name.

        Raises:
            CouldNotAttempt: the disk is full, the folder is gone.
        """
        with _told(self.output.path):
            _take_name(self.path, self.output.target)


@contextmanager
def staged(output: OutputFile) -> Iterator[StagedFile]:
    """The folder and the file in it, gone at the end unless it was kept. Those that a killed run left go first.

    Raises:
        CouldNotAttempt: it cannot be made.
    """
    target = output.target
    folder = target.with_name(
        f".{target.name[:LONGEST_NAME]}.{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
    )
    try:
        with _told(output.path):
            _remove_stale(target)
            folder.mkdir(mode=0o700)
            (folder / target.name).touch(mode=0o600)
        yield StagedFile(output, folder / target.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise could_not_write(path, error) from error


def could_not_write(path: str, error: OSError | ValueError) -> CouldNotAttempt:
    """The output, by the name it was given, and what the system says of it."""
    reason = getattr(error, "strerror", None) or str(error)
    return CouldNotAttempt(
        Problem(Rule.COULD_NOT_WRITE, f"could not write the output: {reason}", path)
    )


def _remove_stale(target: Path) -> None:
    """Remove what runs that were killed left beside this output: folders whose process is no more."""
    ours = re.compile(
        rf"\.{re.escape(target.name[:LONGEST_NAME])}\.(\d+)-[0-9a-f]{{8}}{re.escape(_SUFFIX)}"
    )
    for entry in os.scandir(target.parent):
        found = ours.fullmatch(entry.name)
        if found and not _is_alive(int(found[1])):
            shutil.rmtree(entry.path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # It is somebody else's, and is there.
    return True


def _flush(path: Path, failures: list[OSError]) -> None:
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        failures.append(error)


def full(output: OutputFile) -> bool:
    """Whether the disk of the output has no space left, which torch answers by aborting its process."""
    return shutil.disk_usage(output.target.parent).free < LEAST_FREE


def _take_name(written: Path, target: Path) -> None:
    written.chmod(_mode(target))
    written.replace(target)
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
