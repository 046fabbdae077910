"""Recognizing files by their content, never by their names."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from composecli.core.command_line import one_word
from composecli.core.contract import Contract
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import ModelKind
from composecli.core.pytree import Call
from composecli.core.rules import Rule
from composecli.files import torchscript
from composecli.files.archive import Archive, NotAnArchive
from composecli.files.checkpoint import Checkpoint, Content, scan_checkpoint
from composecli.files.checkpoint_entries import ANY_MODEL, Selector, is_training_state
from composecli.files.contract_file import is_contract, read_contract
from composecli.files.foreign_formats import (
    FOREIGN_FORMATS,
    Recognizer,
    not_a_model,
    not_regular,
    starts_with,
    unknown_bytes,
    unreadable,
)
from composecli.files.members import Members, open_members
from composecli.files.old_format import is_old_format
from composecli.files.pickle import NotAPickle
from composecli.files.pt2 import exported_contract
from composecli.files.pt2_layout import looks_exported
from composecli.files.safety import pt2_program
from composecli.files.safety.refusals import Reason, damaged, of_checkpoint, of_program, of_records
from composecli.files.safety.remedies import for_modules, for_weights
from composecli.files.shards import NotAnIndex, is_index, read_index
from composecli.files.storage_bounds import find_out_of_bounds, record_sizes
from composecli.files.zip_format import END_SIGNATURE, LOCAL_SIGNATURE

HEAD_BYTES = 4096
MAX_SHOWN_KEYS = 4
MAX_SHOWN_MODULES = 12
MAX_SHOWN_MEMBERS = 3

# What `torch.save` writes before and besides the object.
_MARKS_OF_SAVE = frozenset(
    ("version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id")
)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file with a model: its kind, and the facts in its content.

    `exported` is the contract that a torch.export archive or a contract file states, `traced` the
    example inputs of a traced TorchScript archive, and `devices` are those in the archive's code.
    `reasons` speak against running it.
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


class WeightsFormat(StrEnum):
    """A format of weights."""

    PICKLED = "pickled"
    SAFETENSORS = "safetensors"
    SHARDS = "an index of shards"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file with weights. Its `keys` and the `names` of weights are read only if it is pickled.

    For a factory, a pickled module is weights, too. Only tensors are loaded. Whatever else is in
    the file is never built, so nothing has to be trusted.
    """

    path: str
    size: int
    keys: tuple[str, ...]
    format: WeightsFormat = WeightsFormat.PICKLED
    names: tuple[str, ...] = ()


Sniffed = ModelFile | WeightsFile | Problem
# The content of a file of a format: its path, its size, and the entry that is meant.
Sniffer = Callable[[str, int, Selector], Sniffed]


def sniff(path: str, selector: Selector = ANY_MODEL) -> Sniffed:
    """Return the model or the weights in a file, or a problem that names its real format.

    `selector` says which entry of a checkpoint is meant.
    """
    try:
        path.encode()
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return not_regular(path, status.st_mode)
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError) as error:
        return unreadable(path, error)
    for recognizes, sniff_as in _FORMATS:
        if recognizes(head, status.st_size):
            return sniff_as(path, status.st_size, selector)
    for is_foreign, problem in FOREIGN_FORMATS:
        if is_foreign(head, status.st_size):
            return problem(path, head)
    return unknown_bytes(path, head)


def _safetensors(path: str, size: int, _selector: Selector) -> WeightsFile:
    """Return the weights in a safetensors file; its keys are not read here."""
    return WeightsFile(path, size, (), WeightsFormat.SAFETENSORS)


def _sniff_index(path: str, size: int, _selector: Selector) -> Sniffed:
    """Sniff every file that an index names: each must hold weights."""
    try:
        shards = read_index(path)
    except (NotAnIndex, OSError) as error:
        return damaged(path, str(error), title="the index does not fit its files")
    for shard in shards:
        found = _sniff_shard(shard)
        if isinstance(found, Problem):
            return found
        if isinstance(found, ModelFile):
            return not_a_model(shard, "not weights", f"{path} names it as a file with weights")
    return WeightsFile(path, size, (), WeightsFormat.SHARDS)


def _sniff_shard(path: str) -> Sniffed:
    """Sniff a file that an index names, which is no index itself: that could be endless."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        return unreadable(path, error)
    if is_index(head):
        return not_a_model(path, "an index, not weights", "another index names it")
    # A module is no shard, although it has weights.
    return sniff(path)


def _is_safetensors(head: bytes, size: int) -> bool:
    """Return whether this starts with the size of a header, 8 bytes, and a JSON object."""
    if len(head) < 10:
        return False
    length = int(struct.unpack("<Q", head[:8])[0])
    starts_object = head[8:9] == b"{"
    return starts_object and 2 <= length <= size - 8


def _sniff_contract(path: str, size: int, _selector: Selector) -> Sniffed:
    """Read a contract file. Nothing in it runs."""
    try:
        contract = read_contract(path)
    except CouldNotAttempt as failure:
        return failure.problem
    except OSError as error:
        return unreadable(path, error)
    return ModelFile(path, ModelKind.CONTRACT, size, exported=contract)


def _sniff_file(path: str, size: int, selector: Selector) -> Sniffed:
    """Open and sniff a zip archive, or a file in the old format."""
    try:
        members = open_members(Path(path))
    except NotAnArchive as error:
        note = f"{error} ({size:,} bytes)"
        return damaged(path, note, title="the archive is truncated or damaged")
    with members:
        return sniff_members(path, size, members, selector)


def sniff_members(path: str, size: int, members: Members, selector: Selector) -> Sniffed:
    """Return the model or the weights in an open file, or a problem."""
    try:
        if isinstance(members, Archive):
            return _sniff_archive(path, size, members, selector)
        return _sniff_checkpoint(path, size, members, selector)
    except (NotAnArchive, NotAPickle) as error:
        return damaged(path, str(error))


def _sniff_archive(path: str, size: int, archive: Archive, selector: Selector) -> Sniffed:
    """Recognize an archive by its members, and sniff it as that format."""
    names = archive.names
    if "constants.pkl" in names and "data.pkl" in names:
        return _sniff_torchscript(path, size, archive)
    if looks_exported(names):
        return _sniff_exported(path, size, archive)
    if "data.pkl" in names:
        return _sniff_checkpoint(path, size, archive, selector)
    if _MARKS_OF_SAVE.issuperset(names):
        # The pickle comes last: `torch.save` raised an error, or was killed.
        return damaged(path, "it holds no object: torch.save did not complete it")
    first_names = sorted(names)[:MAX_SHOWN_MEMBERS]
    members = ", ".join(first_names) or "nothing"
    description = "a zip archive that PyTorch did not write"
    return not_a_model(path, description, f"it holds {members}")


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


def _sniff_checkpoint(path: str, size: int, members: Members, selector: Selector) -> Sniffed:
    """Refuse damaged records, then tell modules, weights and tensors apart."""
    parsed = members.pickle("data.pkl")
    messages = find_out_of_bounds(parsed, record_sizes(members, "data/"))
    problem = of_records(path, tuple(messages))
    if problem is not None:
        return problem
    checkpoint = scan_checkpoint(parsed, selector)
    match checkpoint.content:
        case Content.MODULE:
            return ModelFile(path, ModelKind.PICKLED, size, checkpoint=checkpoint)
        case Content.WEIGHTS:
            return WeightsFile(path, size, checkpoint.keys, names=checkpoint.weights)
        case Content.SEVERAL:
            return _several_modules(path, checkpoint, selector.key)
        case Content.TENSOR:
            note = "a model was expected; as an input, name it --input @FILE"
            return not_a_model(path, "a saved tensor", note)
        case Content.OTHER:
            if selector.weights and checkpoint.keys:
                return _no_weights(path, checkpoint.keys)
            return _other_object(path, checkpoint.keys)


def _other_object(path: str, keys: tuple[str, ...]) -> Problem:
    """Return the problem of a pickle without a module and without weights."""
    note = "it contains no named tensors"
    if keys:
        note = f"no weights are in its entries: {', '.join(keys[:MAX_SHOWN_KEYS])}"
    return not_a_model(path, "a saved Python object that is not a module", note)


def _no_weights(path: str, keys: tuple[str, ...]) -> Problem:
    """Return the problem of a checkpoint of which a factory needs weights, and that has none."""
    title = "the checkpoint has no weights"
    notes = [f"its entries: {_shown_keys(keys)}"]
    training = [key for key in keys if is_training_state(key)]
    if training:
        title = "the checkpoint has no weights, but the state of an optimizer or of training"
        notes.append(f"saved for training to go on: {_shown_keys(training)}")
    help = ("name a file with the weights: one that model.state_dict() was saved to",)
    return Problem(Rule.KEYS_DO_NOT_FIT, title, path, tuple(notes), help)


def _several_modules(path: str, checkpoint: Checkpoint, key: str | None) -> Problem:
    """Return the problem of a checkpoint with modules, of which none or no single one is named."""
    keys = [module.key for module in checkpoint.modules]
    title = f"the file contains {len(keys)} modules"
    if key is not None:
        title = f"the checkpoint has no module at the key {key}"
    notes = (f"its modules: {_shown_keys(keys)}",)
    remedies = for_modules(path, checkpoint)
    help: tuple[str, ...] = ()
    if len(keys) > len(remedies):
        help = ("name any other of them in the same way: --key NAME",)
    return Problem(Rule.KEYS_DO_NOT_FIT, title, path, notes, help, remedies=remedies)


def _shown_keys(keys: Sequence[str]) -> str:
    """Return the first keys, and the number of the others."""
    text = ", ".join(keys[:MAX_SHOWN_MODULES])
    more = len(keys) - MAX_SHOWN_MODULES
    if more > 0:
        text += f" and {more} more"
    return text


# The first one that recognizes the head of a file decides on its kind.
_FORMATS: tuple[tuple[Recognizer, Sniffer], ...] = (
    (starts_with(LOCAL_SIGNATURE, END_SIGNATURE), _sniff_file),
    (_is_safetensors, _safetensors),
    (is_old_format, _sniff_file),
    (is_index, _sniff_index),
    (is_contract, _sniff_contract),
)


def weights_alone(weights: WeightsFile) -> Problem:
    """Return the problem of a file with weights in the place of a model."""
    notes = list[str]()
    if weights.keys:
        keys = ", ".join(weights.keys[:MAX_SHOWN_KEYS])
        more = ", …" if len(weights.keys) > MAX_SHOWN_KEYS else ""
        notes.append(f"its keys: {keys}{more}")
    factory = one_word(f"package.module:factory@{weights.path}")
    return Problem(
        Rule.STATE_DICT_ALONE,
        "the file contains weights but no code (a bare state dict)",
        weights.path,
        tuple(notes),
        (f"name a factory that builds the module: {factory}",),
        remedies=for_weights(weights.path, weights.names),
    )
