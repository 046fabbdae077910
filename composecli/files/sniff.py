"""What a file is, from its bytes alone and never from its name."""

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
from composecli.files.checkpoint import Checkpoint, Holds, judge
from composecli.files.pickle import NotAPickle
from composecli.files.pt2 import exported_contract
from composecli.files.safety import pt2_program as programs
from composecli.files.safety.refusals import Reason, damaged, of_checkpoint, of_program, of_records
from composecli.files.storage_bounds import find_out_of_bounds, record_sizes

HEAD = 4096
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that holds a model: its kind, and what its bytes state of it. `reasons` speak against running it."""

    path: str
    kind: ModelKind
    size: int
    exported: Contract | None = None
    traced: Call | None = None
    devices: tuple[str, ...] = ()
    checkpoint: Checkpoint | None = None
    provenance: str | None = None
    reasons: tuple[Reason, ...] = ()

    def refusal(self, also: frozenset[str] = frozenset()) -> Problem | None:
        """Why it is not loaded unless it is trusted; None where it may be. `also` are ops that are allowed besides."""
        if self.checkpoint is not None:
            return of_checkpoint(self.path, self.checkpoint)
        return of_program(self.path, str(self.kind), self.reasons, also)


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file that holds weights and no code: a pickled state dict, or safetensors, whose keys are not read here."""

    path: str
    size: int
    keys: tuple[str, ...]
    checkpoint: Checkpoint | None = None

    def refusal(self) -> Problem | None:
        """Why it is not read unless it is trusted: it holds more than tensors."""
        return of_checkpoint(self.path, self.checkpoint) if self.checkpoint is not None else None


Sniffed = ModelFile | WeightsFile | Problem


def sniff(path: str) -> Sniffed:
    """What the file at `path` holds, or the problem that says what it is instead."""
    try:
        path.encode()
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return _not_regular(path, status.st_mode)
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, UnicodeError):
            reason = "its name is not valid UTF-8, and PyTorch opens no such path"
        return Problem(
            Rule.NO_SUCH_FILE, f"cannot read the file: {reason}", path, help=("check the path",)
        )
    if not head:
        return Problem(
            Rule.EMPTY_FILE, "the file is empty", path, ("it has 0 bytes: an interrupted save or download",),
            ("save it again, or fetch it again",),
        )  # fmt: skip
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _sniff_archive(path, status.st_size)
    return _sniff_plain(path, head, status.st_size)


def _not_regular(path: str, mode: int) -> Problem:
    if stat.S_ISDIR(mode):
        return Problem(
            Rule.NOT_A_REGULAR_FILE,
            "the path is a directory, not a file",
            path,
            help=("name a file inside it",),
        )
    return Problem(
        Rule.NOT_A_REGULAR_FILE,
        "the path is no regular file",
        path,
        help=("copy it into a file first",),
    )


def _sniff_plain(path: str, head: bytes, size: int) -> Sniffed:
    text = _as_text(head)
    if head.startswith(b"version https://git-lfs"):
        return Problem(
            Rule.GIT_LFS_POINTER, "the file is a git-lfs pointer, not the model itself", path,
            ("the model was never fetched into this checkout",), (f"git lfs pull --include '{Path(path).name}'",),
        )  # fmt: skip
    if _is_safetensors(head, size):
        return WeightsFile(path, size, ())
    if head.startswith(_LEGACY):
        return Problem(
            Rule.LEGACY_FORMAT, "the file is in PyTorch's old format, from before 1.6", path,
            ("it is one pickle and cannot be judged before it runs",),
            ("load it where it is trusted, then torch.save(model, 'new.pt')",),
        )  # fmt: skip
    if _is_onnx(head):
        return Problem(
            Rule.ONNX_FILE, "the file is an ONNX model", path, ("composecli reads models saved by PyTorch",),
            ("torch.export.save(torch.export.export(model, args), 'model.pt2')",),
        )  # fmt: skip
    if text is not None:
        return _text_file(path, text)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _not_a_model(
            path, "a bare pickle", "PyTorch saves models as zip archives with torch.save"
        )
    if head[4:8] == b"PTMF":
        return _not_a_model(
            path, "a mobile (flatbuffer) model", "composecli reads TorchScript as zip archives"
        )
    return _not_a_model(
        path, "no format that composecli knows", f"it starts with the bytes {head[:8].hex(' ')}"
    )


def _not_a_model(path: str, what: str, note: str) -> Problem:
    return Problem(
        Rule.NOT_A_MODEL, f"the file is {what}", path, (note,),
        ("save a model with torch.jit.save, torch.export.save or torch.save(module, path)",),
    )  # fmt: skip


def _text_file(path: str, text: str) -> Problem:
    if text.lstrip()[:15].lower().startswith(("<!doctype", "<html")):
        return _not_a_model(
            path, "a web page", "a login or error page was saved in the place of the file"
        )
    first = text.strip().splitlines()[0][:60] if text.strip() else ""
    return _not_a_model(
        path, "a text file", f"it starts with: {first}" if first else "it holds white space only"
    )


def _as_text(head: bytes) -> str | None:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return None
        text = head[: error.start].decode("utf-8")
    return text if all(char.isprintable() or char in string.whitespace for char in text) else None


def _is_safetensors(head: bytes, size: int) -> bool:
    if len(head) < 10:
        return False
    length = int(struct.unpack("<Q", head[:8])[0])
    return head[8:9] == b"{" and 2 <= length <= size - 8


def _is_onnx(head: bytes) -> bool:
    """An ONNX ModelProto starts with field 1, its IR version, then field 2 or 8: the producer or the opset."""
    if len(head) < 8 or head[0] != 0x08 or not 1 <= head[1] <= 20:
        return False
    return head[2] in (0x12, 0x3A, 0x42)


def _sniff_archive(path: str, size: int) -> Sniffed:
    try:
        archive = Archive(Path(path))
    except NotAnArchive as error:
        return damaged(
            path, f"{error} ({size:,} bytes)", title="the archive is truncated or damaged"
        )
    with archive:
        return sniff_archive(path, size, archive)


def sniff_archive(path: str, size: int, archive: Archive) -> Sniffed:
    """What an archive holds that is open already."""
    try:
        return _sniff_members(path, size, archive)
    except (NotAnArchive, NotAPickle) as error:
        return damaged(path, str(error))


def _sniff_members(path: str, size: int, archive: Archive) -> Sniffed:
    names = archive.names
    if "constants.pkl" in names and "data.pkl" in names:
        pickles = torchscript.pickles(archive)
        return of_records(path, tuple(torchscript.record_problems(archive, pickles))) or ModelFile(
            path, ModelKind.TORCHSCRIPT, size, traced=torchscript.traced_example(archive),
            devices=torchscript.baked_devices(archive), provenance=torchscript.provenance(archive),
            reasons=tuple(torchscript.unsafe(archive, pickles)),
        )  # fmt: skip
    exported = "archive_format" in names or "serialized_exported_program.json" in names
    if exported and any(name.endswith(".json") for name in names):
        return of_records(path, tuple(programs.record_problems(archive))) or ModelFile(
            path, ModelKind.EXPORTED, size, exported=exported_contract(archive),
            reasons=tuple(programs.unsafe(archive)),
        )  # fmt: skip
    if "data.pkl" in names:
        walked = archive.pickle("data.pkl")
        damage = of_records(path, tuple(find_out_of_bounds(walked, record_sizes(archive, "data/"))))
        return damage or _sniff_checkpoint(path, size, judge(walked))
    some = ", ".join(sorted(names)[:3])
    return _not_a_model(
        path, "a zip archive that PyTorch did not write", f"it holds {some or 'nothing'}"
    )


def _sniff_checkpoint(path: str, size: int, checkpoint: Checkpoint) -> Sniffed:
    match checkpoint.holds:
        case Holds.MODULE:
            return ModelFile(path, ModelKind.PICKLED, size, checkpoint=checkpoint)
        case Holds.WEIGHTS:
            return WeightsFile(path, size, checkpoint.keys, checkpoint)
        case Holds.TENSOR:
            return _not_a_model(
                path, "a saved tensor", "a model was expected; as an input, name it --input @FILE"
            )
        case Holds.OTHER:
            return _not_a_model(
                path, "a saved Python object that is no module", "it holds no tensors by name"
            )


def weights_alone(weights: WeightsFile) -> Problem:
    """The problem that a file of weights is where a model is wanted."""
    some = ", ".join(weights.keys[:4])
    return Problem(
        Rule.STATE_DICT_ALONE, "the file holds weights and no code (a bare state dict)", weights.path,
        (f"its keys: {some}{', …' if len(weights.keys) > 4 else ''}",) if some else (),
        (f"name a factory that makes the module: package.module:factory@{weights.path}",),
    )  # fmt: skip
