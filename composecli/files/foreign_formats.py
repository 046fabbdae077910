"""Files that are not models: each is named, with a remedy."""

from __future__ import annotations

import stat
import string
from collections.abc import Callable
from pathlib import Path

from composecli.core.errors import Problem
from composecli.core.rules import Rule

MAX_SHOWN_TEXT = 60

_GIT_LFS = b"version https://git-lfs"
_PICKLE_PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# The file identifier of a flatbuffer is at offset 4.
_MOBILE = b"PTMF"
_TAR_MAGIC_START = 257
_TAR_MAGIC = b"ustar"

# Whether a file is of a format, from its first bytes and its size.
Recognizer = Callable[[bytes, int], bool]


def unreadable(path: str, error: OSError | ValueError) -> Problem:
    """Return the problem of a path that cannot be opened."""
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, UnicodeError):
        reason = "its name is not valid UTF-8, and PyTorch cannot open such a path"
    title = f"cannot read the file: {reason}"
    return Problem(Rule.NO_SUCH_FILE, title, path, help=("check the path",))


def not_regular(path: str, mode: int) -> Problem:
    """Return the problem of a directory, a device, a pipe or a socket."""
    if stat.S_ISDIR(mode):
        title = "the path is a directory, not a file"
        return Problem(Rule.NOT_A_REGULAR_FILE, title, path, help=("name a file inside it",))
    title = "the path is not a regular file"
    return Problem(Rule.NOT_A_REGULAR_FILE, title, path, help=("copy it into a file first",))


def _empty(path: str, _head: bytes) -> Problem:
    """Return the problem of a file without content."""
    note = "it has 0 bytes, probably from an interrupted save or download"
    help = ("save or download it again",)
    return Problem(Rule.EMPTY_FILE, "the file is empty", path, (note,), help)


def _git_lfs_pointer(path: str, _head: bytes) -> Problem:
    """Return the problem of a pointer that git-lfs left in the place of a file."""
    return Problem(
        Rule.GIT_LFS_POINTER,
        "the file is a git-lfs pointer, not the model itself",
        path,
        ("the model was never fetched into this checkout",),
        (f"git lfs pull --include '{Path(path).name}'",),
    )


def _onnx_model(path: str, _head: bytes) -> Problem:
    """Return the problem of an ONNX file."""
    return Problem(
        Rule.ONNX_FILE,
        "the file is an ONNX model",
        path,
        ("composecli reads models saved by PyTorch",),
        ("torch.export.save(torch.export.export(model, args), 'model.pt2')",),
    )


def unknown_bytes(path: str, head: bytes) -> Problem:
    """Return the problem of a binary file, with its format if it is recognized."""
    if head.startswith(_PICKLE_PROTOCOLS):
        note = "PyTorch saves models as zip archives with torch.save"
        return not_a_model(path, "a bare pickle", note)
    if head[4:8] == _MOBILE:
        note = "composecli reads TorchScript as zip archives"
        return not_a_model(path, "a mobile (flatbuffer) model", note)
    note = f"it starts with the bytes {head[:8].hex(' ')}"
    return not_a_model(path, "in a format that composecli does not know", note)


def not_a_model(path: str, description: str, note: str) -> Problem:
    """Return the problem of a file that holds something else."""
    return Problem(
        Rule.NOT_A_MODEL,
        f"the file is {description}",
        path,
        (note,),
        ("save a model with torch.jit.save, torch.export.save or torch.save(module, path)",),
    )


def _text_file(path: str, head: bytes) -> Problem:
    """Return the problem of a text file; a web page was probably meant to be a download."""
    text = _as_text(head) or ""
    if text.lstrip()[:15].lower().startswith(("<!doctype", "<html")):
        note = "a login or error page was saved in place of the file"
        return not_a_model(path, "a web page", note)
    stripped = text.strip()
    if not stripped:
        return not_a_model(path, "a text file", "it contains only white space")
    first_line = stripped.splitlines()[0][:MAX_SHOWN_TEXT]
    return not_a_model(path, "a text file", f"it starts with: {first_line}")


def _as_text(head: bytes) -> str | None:
    """Decode the head of a file, None if it is not printable UTF-8.

    The head may end in the middle of a character, which has 4 bytes at most.
    """
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return None
        text = head[: error.start].decode("utf-8")
    is_text = all(char.isprintable() or char in string.whitespace for char in text)
    if is_text:
        return text
    return None


def _is_text(head: bytes, _size: int) -> bool:
    """Return whether this is printable UTF-8."""
    return _as_text(head) is not None


def _is_onnx(head: bytes, _size: int) -> bool:
    """Return whether this starts as an ONNX ModelProto does.

    Its field 1 is the IR version; field 2, the producer, or 7 or 8, the graph or opset, comes next.
    """
    if len(head) < 8 or head[0] != 0x08:
        return False
    version = head[1]
    if not 1 <= version <= 20:
        return False
    return head[2] in (0x12, 0x3A, 0x42)


def starts_with(*starts: bytes) -> Recognizer:
    """Return a recognizer of files that start with one of these byte strings."""

    def recognize(head: bytes, _size: int) -> bool:
        """Return whether this head starts so."""
        return head.startswith(starts)

    return recognize


def _is_empty(head: bytes, _size: int) -> bool:
    """Return whether there are no bytes at all."""
    return not head


def _is_tar(head: bytes, _size: int) -> bool:
    """Return whether this starts with the header of a tar archive."""
    return head[_TAR_MAGIC_START:].startswith(_TAR_MAGIC)


def _tar_archive(path: str, _head: bytes) -> Problem:
    """Return the problem of a tar archive, in which PyTorch saved models before 2017."""
    return Problem(
        Rule.LEGACY_FORMAT,
        "the file is a tar archive, as PyTorch saved models before 2017",
        path,
        ("PyTorch itself loads it only with weights_only=False, which runs what is in it",),
        ("load it where you trust it, then torch.save(model, 'new.pt')",),
    )


# The first one that recognizes the head of a file decides on its kind.
FOREIGN_FORMATS: tuple[tuple[Recognizer, Callable[[str, bytes], Problem]], ...] = (
    (_is_empty, _empty),
    (starts_with(_GIT_LFS), _git_lfs_pointer),
    (_is_onnx, _onnx_model),
    (_is_tar, _tar_archive),
    (_is_text, _text_file),
)
