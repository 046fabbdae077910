"""Writing an output: complete and verified under its name, or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from composecli.core.command_line import file_word, one_word
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule

MIN_FREE_BYTES = 2**16
# Of the output's name in the name of the folder next to it: file systems allow 255 bytes.
MAX_NAME_LENGTH = 160

_SUFFIX = ".composecli-tmp"
_SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,6})", re.DOTALL)
# What files are expected to be that are named like this.
_MODEL_FORMATS = {
    ".pt2": "a torch.export archive",
    ".onnx": "an ONNX model",
    ".safetensors": "weights in safetensors format",
    ".pte": "an ExecuTorch program",
}


@dataclass(frozen=True, slots=True)
class OutputKind:
    """What is written: the option that names it, its content in words, and its usual suffix.

    `usual_name` is suggested in a folder, and `other_formats` are suffixes of files that it is not.
    """

    option: str
    content: str
    suffix: str
    usual_name: str
    other_formats: Mapping[str, str]


JOINED = OutputKind("-o", "join writes TorchScript", ".pt", "both.pt", _MODEL_FORMATS)
CONTRACT = OutputKind(
    "--write-contract",
    "a contract is JSON",
    ".contract.json",
    "model.contract.json",
    {**_MODEL_FORMATS, ".pt": "a model", ".pth": "a model"},
)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """Where the output goes: `path` as the user named it, and `target` with its links resolved."""

    path: str
    target: Path


def resolve_output(
    path: str, inputs: tuple[str, ...], *, force: bool, kind: OutputKind = JOINED
) -> OutputFile:
    """Return the output, if it may be written.

    Raises:
        CouldNotAttempt: if it is an input, exists and must not be replaced, has no folder, is not a
            file, or is named as another format.
    """
    with _os_errors_as_problems(path):
        target = Path(os.path.realpath(path))
        problem = _find_problem(OutputFile(path, target), kind, inputs, force=force)
        if problem is not None:
            raise CouldNotAttempt(problem)
        return OutputFile(path, target)


def _find_problem(
    output: OutputFile, kind: OutputKind, inputs: tuple[str, ...], *, force: bool
) -> Problem | None:
    """Return why nothing can be written at a path, None if all is well."""
    path, target = output.path, output.target
    problem = _wrong_suffix(output, kind)
    if problem is not None:
        return problem
    for name in inputs:
        if _is_same_file(target, name):
            title = f"the output is the input {name}"
            help = (f"{kind.option} {_free_name(path)} is free",)
            return Problem(Rule.OUTPUT_IS_AN_INPUT, title, path, help=help)
    other = _other_kind(path, target)
    if other is not None:
        title = f"the output is {other}"
        advice = f"name a file with {kind.option}"
        if target.is_dir():
            inside = _unused(os.path.join(path, kind.usual_name))
            advice = f"{kind.option} {inside} is free"
        return Problem(Rule.OUTPUT_IS_NOT_A_FILE, title, path, help=(advice,))
    if target.exists() and not force:
        free = (f"{kind.option} {_free_name(path)} is free", "--force replaces the file")
        return Problem(Rule.OUTPUT_EXISTS, "the output already exists", path, help=free)
    if not target.parent.is_dir():
        title = "the folder of the output does not exist"
        help = (f"mkdir -p {one_word(file_word(str(target.parent)))}",)
        return Problem(Rule.COULD_NOT_WRITE, title, path, help=help)
    return None


def _other_kind(path: str, target: Path) -> str | None:
    """Return the kind of the output if it is not the name of a file; None if it is one."""
    if target.is_dir() or path.endswith(_SEPARATORS):
        return "a folder"
    if target.exists() and not target.is_file():
        return "a device, a pipe or a socket"
    return None


def _wrong_suffix(output: OutputFile, kind: OutputKind) -> Problem | None:
    """Return the problem of a name that promises another format."""
    suffix = output.target.suffix.lower()
    if suffix not in kind.other_formats:
        return None
    title = f"the output is named as {kind.other_formats[suffix]}, and {kind.content}"
    word = _unused(f"{output.path[: -len(suffix)]}{kind.suffix}")
    help = (f"{kind.option} {word}",)
    return Problem(Rule.OUTPUT_IS_ANOTHER_FORMAT, title, output.path, help=help)


def _unused(path: str) -> str:
    """Return a word that names this file, or one like it if there is such a file already."""
    if os.path.lexists(path):
        return _free_name(path)
    return one_word(file_word(path))


def _free_name(path: str) -> str:
    """Return a word that names a file next to an existing one: `both-2.pt` for `both.pt`."""
    stem, suffix = os.path.splitext(path)
    match = _NUMBERED.fullmatch(stem)
    number = 2
    if match is not None:
        stem = match["stem"]
        number = int(match["number"]) + 1
    for candidate in count(number):
        name = f"{stem}-{candidate}{suffix}"
        if not os.path.lexists(name):
            break
    return one_word(file_word(name))


def _is_same_file(target: Path, name: str) -> bool:
    """Return whether an input is the target, by its path if one of them is missing."""
    try:
        return os.path.samefile(target, name)
    except OSError:
        return os.path.realpath(name) == str(target)


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file to write to, in a temporary folder next to the output.

    It has the output's name, because PyTorch writes a file's name into it: the same input then
    gives the same bytes.
    """

    output: OutputFile
    path: Path

    @contextmanager
    def flushing(self) -> Iterator[None]:
        """Flush the file to the disk while the body runs.

        Raises:
            CouldNotAttempt: if flushing fails; the system reports such a failure only once.
        """
        failures = list[OSError]()
        thread = threading.Thread(target=_flush, args=(self.path, failures), daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join()
        with _os_errors_as_problems(self.output.path):
            for failure in failures:
                raise failure

    def commit(self) -> None:
        """Move the file, which must be flushed, to the output's name.

        Raises:
            CouldNotAttempt: if the disk is full or the folder is gone.
        """
        with _os_errors_as_problems(self.output.path):
            _move_into_place(self.path, self.output.target)


@contextmanager
def staged(output: OutputFile) -> Iterator[StagedFile]:
    """Create the temporary folder and the file, and remove the folder at the end.

    Leftovers of runs that were killed are removed first.

    Raises:
        CouldNotAttempt: if the folder cannot be created.
    """
    target = output.target
    unique = f"{os.getpid()}-{secrets.token_hex(4)}"
    name = target.name[:MAX_NAME_LENGTH]
    folder = target.with_name(f".{name}.{unique}{_SUFFIX}")
    try:
        with _os_errors_as_problems(output.path):
            _remove_stale(target)
            folder.mkdir(mode=0o700)
            (folder / target.name).touch(mode=0o600)
        yield StagedFile(output, folder / target.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _os_errors_as_problems(path: str) -> Iterator[None]:
    """Report errors of the system as problems of the output."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise could_not_write(path, error) from error


def could_not_write(path: str, error: OSError | ValueError) -> CouldNotAttempt:
    """Return the problem of an output that cannot be written, with the system's reason."""
    reason = getattr(error, "strerror", None) or str(error)
    title = f"could not write the output: {reason}"
    return CouldNotAttempt(Problem(Rule.COULD_NOT_WRITE, title, path))


def _remove_stale(target: Path) -> None:
    """Remove the temporary folders of this output whose processes have ended."""
    name = re.escape(target.name[:MAX_NAME_LENGTH])
    pattern = re.compile(rf"\.{name}\.(\d+)-[0-9a-f]{{8}}{re.escape(_SUFFIX)}")
    for entry in os.scandir(target.parent):
        match = pattern.fullmatch(entry.name)
        if not match:
            continue
        process = int(match[1])
        if not _is_alive(process):
            shutil.rmtree(entry.path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    """Return whether a process exists; signal 0 only checks that."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # The process exists and is another user's.
    return True


def _flush(path: Path, failures: list[OSError]) -> None:
    """Flush a file to the disk. A failure is added to `failures`: it is in a thread."""
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        failures.append(error)


def full(output: OutputFile) -> bool:
    """Return whether the disk of the output is full, on which torch aborts its process."""
    return shutil.disk_usage(output.target.parent).free < MIN_FREE_BYTES


def _move_into_place(staged_path: Path, target: Path) -> None:
    """Rename the staged file over the target, and flush the folder."""
    staged_path.chmod(_mode(target))
    staged_path.replace(target)
    # Only now does the new name survive a power failure.
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _mode(target: Path) -> int:
    """Return the mode of the file that is replaced, or that of a new file."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
