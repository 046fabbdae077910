"""Recognizing files by their content, never by their names."""

from __future__ import annotations

import os
import stat
import string
import struct
from dataclasses import dataclass
from pathlib import Path

from composecli.core.contract import Contract
from composecli.core.errors import Problem
from composecli.core.model_ref import ModelKind
from composecli.core.pytree import Call
from composecli.core.rules import Rule
from composecli.files import torchscript
from composecli.files.archive import Archive, NotAnArchive
from composecli.files.checkpoint import Checkpoint, Content, scan_checkpoint
from composecli.files.pickle import NotAPickle
from composecli.files.pt2 import exported_contract
from composecli.files.pt2_layout import looks_exported
from composecli.files.safety import pt2_program
from composecli.files.safety.refusals import Reason, damaged, of_checkpoint, of_program, of_records
from composecli.files.safety.remedies import for_weights
from composecli.files.storage_bounds import find_out_of_bounds, record_sizes
from composecli.files.zip_format import END_SIGNATURE, LOCAL_SIGNATURE

HEAD_BYTES = 4096
MAX_SHOWN_KEYS = 4
MAX_SHOWN_MEMBERS = 3
MAX_SHOWN_TEXT = 60

# PROTO 2 and the number 0x1950a86a20f9469cfc6c: `torch.save` before PyTorch 1.6.
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_GIT_LFS = b"version https://git-lfs"
_PICKLE_PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# The file identifier of a flatbuffer is at offset 4.
_MOBILE = b"PTMF"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file with a model: its kind, and the facts in its content.

    `exported` is the contract of a torch.export archive, `traced` the example inputs of a traced
    TorchScript archive, and `devices` are those in the archive's code. `reasons` speak against
    running it.
    """

    path: str
    kind: ModelKind
    size: int
    exported: Contract | None = None
    traced: Call | None = None
    devices: tuple[str, ...] = ()
    checkpoint: Checkpoint | None = None
    provenance: str | None = None
    reasons: tuple[Reason, ...] = ()

    def refusal(
        self, allowed_ops: frozenset[str] = frozenset(), *, imports: bool = False
    ) -> Problem | None:
        """Return why it is not loaded unless it is trusted, None if it may be loaded.

        `imports`: the user has named modules to import, whose ops it may need.
        """
        if self.checkpoint is not None:
            return of_checkpoint(self.path, self.checkpoint)
        kind = str(self.kind)
        return of_program(self.path, kind, self.reasons, allowed_ops, imports=imports)


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file with weights and no code: a pickled state dict or safetensors.

    The keys of safetensors are not read here.
    """

    path: str
    size: int
    keys: tuple[str, ...]
    checkpoint: Checkpoint | None = None

    def refusal(self) -> Problem | None:
        """Return why it is not loaded unless it is trusted, None if it has only tensors."""
        if self.checkpoint is None:
            return None
        return of_checkpoint(self.path, self.checkpoint)


Sniffed = ModelFile | WeightsFile | Problem


def sniff(path: str) -> Sniffed:
    """Return the model or the weights in a file, or a problem that names its real format."""
    try:
        path.encode()
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return _not_regular(path, status.st_mode)
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError) as error:
        return _unreadable(path, error)
    if not head:
        return Problem(
            Rule.EMPTY_FILE,
            "the file is empty",
            path,
            ("it has 0 bytes, probably from an interrupted save or download",),
            ("save or download it again",),
        )
    if head.startswith((LOCAL_SIGNATURE, END_SIGNATURE)):
        return _sniff_archive_file(path, status.st_size)
    return _sniff_other(path, head, status.st_size)


def _unreadable(path: str, error: OSError | ValueError) -> Problem:
    """Return the problem of a path that cannot be opened."""
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, UnicodeError):
        reason = "its name is not valid UTF-8, and PyTorch cannot open such a path"
    title = f"cannot read the file: {reason}"
    return Problem(Rule.NO_SUCH_FILE, title, path, help=("check the path",))


def _not_regular(path: str, mode: int) -> Problem:
    """Return the problem of a directory, a device, a pipe or a socket."""
    if stat.S_ISDIR(mode):
        title = "the path is a directory, not a file"
        return Problem(Rule.NOT_A_REGULAR_FILE, title, path, help=("name a file inside it",))
    title = "the path is not a regular file"
    return Problem(Rule.NOT_A_REGULAR_FILE, title, path, help=("copy it into a file first",))


def _sniff_other(path: str, head: bytes, size: int) -> Sniffed:
    """Sniff a file that is not a zip archive."""
    if head.startswith(_GIT_LFS):
        return Problem(
            Rule.GIT_LFS_POINTER,
            "the file is a git-lfs pointer, not the model itself",
            path,
            ("the model was never fetched into this checkout",),
            (f"git lfs pull --include '{Path(path).name}'",),
        )
    if _is_safetensors(head, size):
        return WeightsFile(path, size, ())
    if head.startswith(_LEGACY):
        return Problem(
            Rule.LEGACY_FORMAT,
            "the file is in PyTorch's old format, from before 1.6",
            path,
            ("it is a single pickle and cannot be scanned before it runs",),
            ("load it where you trust it, then torch.save(model, 'new.pt')",),
        )
    if _is_onnx(head):
        return Problem(
            Rule.ONNX_FILE,
            "the file is an ONNX model",
            path,
            ("composecli reads models saved by PyTorch",),
            ("torch.export.save(torch.export.export(model, args), 'model.pt2')",),
        )
    text = _as_text(head)
    if text is not None:
        return _text_file(path, text)
    return _unknown_bytes(path, head)


def _unknown_bytes(path: str, head: bytes) -> Problem:
    """Return the problem of a binary file, with its format if it is recognized."""
    if head.startswith(_PICKLE_PROTOCOLS):
        note = "PyTorch saves models as zip archives with torch.save"
        return _not_a_model(path, "a bare pickle", note)
    if head[4:8] == _MOBILE:
        note = "composecli reads TorchScript as zip archives"
        return _not_a_model(path, "a mobile (flatbuffer) model", note)
    note = f"it starts with the bytes {head[:8].hex(' ')}"
    return _not_a_model(path, "in a format that composecli does not know", note)


def _not_a_model(path: str, description: str, note: str) -> Problem:
    """Return the problem of a file that holds something else."""
    return Problem(
        Rule.NOT_A_MODEL,
        f"the file is {description}",
        path,
        (note,),
        ("save a model with torch.jit.save, torch.export.save or torch.save(module, path)",),
    )


def _text_file(path: str, text: str) -> Problem:
    """Return the problem of a text file; a web page was probably meant to be a download."""
    if text.lstrip()[:15].lower().startswith(("<!doctype", "<html")):
        note = "a login or error page was saved in place of the file"
        return _not_a_model(path, "a web page", note)
    stripped = text.strip()
    if not stripped:
        return _not_a_model(path, "a text file", "it contains only white space")
    first_line = stripped.splitlines()[0][:MAX_SHOWN_TEXT]
    return _not_a_model(path, "a text file", f"it starts with: {first_line}")


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


def _is_safetensors(head: bytes, size: int) -> bool:
    """Return whether this starts with the size of a header, 8 bytes, and a JSON object."""
    if len(head) < 10:
        return False
    length = int(struct.unpack("<Q", head[:8])[0])
    starts_object = head[8:9] == b"{"
    return starts_object and 2 <= length <= size - 8


def _is_onnx(head: bytes) -> bool:
    """Return whether this starts as an ONNX ModelProto does.

    Its field 1 is the IR version; field 2, the producer, or 7 or 8, the graph or opset, comes next.
    """
    if len(head) < 8 or head[0] != 0x08:
        return False
    version = head[1]
    if not 1 <= version <= 20:
        return False
    return head[2] in (0x12, 0x3A, 0x42)


def _sniff_archive_file(path: str, size: int) -> Sniffed:
    """Open and sniff a zip archive."""
    try:
        archive = Archive(Path(path))
    except NotAnArchive as error:
        note = f"{error} ({size:,} bytes)"
        return damaged(path, note, title="the archive is truncated or damaged")
    with archive:
        return sniff_archive(path, size, archive)


def sniff_archive(path: str, size: int, archive: Archive) -> Sniffed:
    """Return the model or the weights in an open archive, or a problem."""
    try:
        return _sniff_members(path, size, archive)
    except (NotAnArchive, NotAPickle) as error:
        return damaged(path, str(error))


def _sniff_members(path: str, size: int, archive: Archive) -> Sniffed:
    """Recognize an archive by its members, and sniff it as that format."""
    names = archive.names
    if "constants.pkl" in names and "data.pkl" in names:
        return _sniff_torchscript(path, size, archive)
    if looks_exported(names):
        return _sniff_exported(path, size, archive)
    if "data.pkl" in names:
        return _sniff_checkpoint(path, size, archive)
    first_names = sorted(names)[:MAX_SHOWN_MEMBERS]
    members = ", ".join(first_names) or "nothing"
    description = "a zip archive that PyTorch did not write"
    return _not_a_model(path, description, f"it holds {members}")


def _sniff_torchscript(path: str, size: int, archive: Archive) -> Sniffed:
    """Refuse damaged records, then collect the facts in a TorchScript archive."""
    parsed = torchscript.pickles(archive)
    messages = tuple(torchscript.record_problems(archive, parsed))
    problem = of_records(path, messages)
    if problem is not None:
        return problem
    return ModelFile(
        path,
        ModelKind.TORCHSCRIPT,
        size,
        traced=torchscript.traced_example(archive),
        devices=torchscript.baked_devices(archive),
        provenance=torchscript.provenance(archive),
        reasons=tuple(torchscript.unsafe_parts(archive, parsed)),
    )


def _sniff_exported(path: str, size: int, archive: Archive) -> Sniffed:
    """Refuse damaged records, then collect the facts in a torch.export archive."""
    messages = tuple(pt2_program.record_problems(archive))
    problem = of_records(path, messages)
    if problem is not None:
        return problem
    contract = exported_contract(archive)
    reasons = tuple(pt2_program.unsafe_parts(archive))
    return ModelFile(path, ModelKind.EXPORTED, size, exported=contract, reasons=reasons)


def _sniff_checkpoint(path: str, size: int, archive: Archive) -> Sniffed:
    """Refuse damaged records, then tell modules, weights and tensors apart."""
    parsed = archive.pickle("data.pkl")
    messages = find_out_of_bounds(parsed, record_sizes(archive, "data/"))
    problem = of_records(path, tuple(messages))
    if problem is not None:
        return problem
    checkpoint = scan_checkpoint(parsed)
    match checkpoint.content:
        case Content.MODULE:
            return ModelFile(path, ModelKind.PICKLED, size, checkpoint=checkpoint)
        case Content.WEIGHTS:
            return WeightsFile(path, size, checkpoint.keys, checkpoint)
        case Content.TENSOR:
            note = "a model was expected; as an input, name it --input @FILE"
            return _not_a_model(path, "a saved tensor", note)
        case Content.OTHER:
            description = "a saved Python object that is not a module"
            return _not_a_model(path, description, "it contains no named tensors")


def weights_alone(weights: WeightsFile) -> Problem:
    """Return the problem of a file with weights in the place of a model."""
    notes = list[str]()
    if weights.keys:
        keys = ", ".join(weights.keys[:MAX_SHOWN_KEYS])
        more = ", …" if len(weights.keys) > MAX_SHOWN_KEYS else ""
        notes.append(f"its keys: {keys}{more}")
    return Problem(
        Rule.STATE_DICT_ALONE,
        "the file contains weights but no code (a bare state dict)",
        weights.path,
        tuple(notes),
        (f"name a factory that builds the module: package.module:factory@{weights.path}",),
        remedies=for_weights(weights.path, weights.keys),
    )
