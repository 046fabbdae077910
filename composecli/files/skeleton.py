"""Skeletons: archives without their tensors, which are all that a question about shapes needs.

The code and the pickles are the file's own, and the records are empty. TorchScript's reader reads
the records all the same, except for storages whose pickled device is `meta`.
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence

from composecli.files.archive import Archive
from composecli.files.members import Members
from composecli.files.pickle import Operation

# Code with more constants than this is frozen: its weights are constants.
MAX_CONSTANT_BYTES = 2**20

_FOLDER = "archive"
# Members that are copied. `.storage_alignment` is not: PyTorch would use it to compute where the
# records of a file with content are.
_COPIED = re.compile(r"code/.*|version|byteorder|\.data/.*")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS = ("GET", "BINGET", "LONG_BINGET")
# A reference to a storage is the tuple ("storage", class, key, device, count).
_REFERENCE_LENGTH = 5
_DEVICE_POSITION = 3


def script_skeleton(archive: Archive) -> bytes | None:
    """Return a TorchScript archive without its tensors.

    The constants of its code stay, because PyTorch compares them when it compiles. None if its
    pickles are not as PyTorch writes them.
    """
    data = with_storages_on(archive, "data.pkl", "meta")
    constants = with_storages_on(archive, "constants.pkl", "cpu")
    if data is None or constants is None:
        return None
    pickles = {"data.pkl": data, "constants.pkl": constants}
    whole_records = frozenset(_constants(archive))
    return _write_skeleton(archive, pickles, whole_records)


def has_foreign_byte_order(members: Members) -> bool:
    """Return whether its tensors have another byte order than this machine."""
    return members.byte_order() != sys.byteorder.encode()


def is_frozen(archive: Archive) -> bool:
    """Return whether the code of a TorchScript archive probably has weights as constants.

    It does if its constants are larger than any table of sizes or names.
    """
    size = sum(map(archive.size, _constants(archive)))
    return size > MAX_CONSTANT_BYTES


def _constants(archive: Archive) -> list[str]:
    """Return the members that hold the tensors among the constants of the code."""
    return [name for name in archive.names if name.startswith("constants/")]


def _write_skeleton(
    archive: Archive, pickles: Mapping[str, bytes], whole_records: Collection[str]
) -> bytes:
    """Return a small archive: changed pickles, code, and empty records for weights."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as skeleton:
        for name in sorted(archive.names):
            target = f"{_FOLDER}/{name}"
            if name in pickles:
                skeleton.writestr(target, pickles[name])
            elif name in whole_records or _COPIED.fullmatch(name):
                skeleton.writestr(target, archive.read(name))
            elif name.startswith(("data/", "constants/")):
                skeleton.writestr(target, b"")
    return buffer.getvalue()


def with_storages_on(archive: Archive, name: str, device: str) -> bytes | None:
    """Return a pickle of an archive with every storage on this device; see `rewrite_device`."""
    data, operations = archive.read(name), archive.operations(name)
    return rewrite_device(data, operations, device)


def rewrite_device(data: bytes, operations: Sequence[Operation], device: str) -> bytes | None:
    """Return a pickle with every storage on this device.

    None if PyTorch would write it in another way: the result could then differ from the pickle that
    was checked.

    The pickler writes a text once, stores it in the memo, and pushes it from there later. The
    device of a storage and an equal text with another meaning may share a slot, so both are written
    out:

        BINUNICODE cpu, BINPUT 7  (a device)  ->  BINUNICODE meta
        BINGET 7                  (a device)  ->  BINUNICODE meta
        BINGET 7                  (a text)    ->  BINUNICODE cpu
    """
    slots = [operation.argument for operation in operations if operation.name in _PUTS]
    if len(slots) != len(set(slots)):
        return None
    devices = set[int]()
    for index, operation in enumerate(operations):
        if operation.name == "BINPERSID":
            pushed = _device_index(operations, index)
            if pushed is None:
                return None
            devices.add(pushed)
    texts = dict[int, str]()
    for index in devices:
        for slot in _slots_of(operations, index):
            texts[slot] = str(operations[index].argument)
    pieces = _rewritten_pieces(data, operations, devices, texts, device)
    return b"".join(pieces)


def _rewritten_pieces(
    data: bytes,
    operations: Sequence[Operation],
    devices: Collection[int],
    texts: Mapping[int, str],
    device: str,
) -> Iterator[bytes]:
    """Yield the bytes of each operation.

    `devices` are the indices of the operations that push a storage's device, and `texts` the memo
    slots that have one, with its text.
    """
    ends = [operation.place for operation in operations[1:]]
    ends.append(len(data))
    for index, (operation, end) in enumerate(zip(operations, ends, strict=True)):
        if index in devices:
            yield _unicode_operation(device)
        elif operation.name in _GETS and operation.argument in texts:
            yield _unicode_operation(texts[operation.argument])
        elif operation.name not in _PUTS or operation.argument not in texts:
            yield data[operation.place : end]


def _unicode_operation(text: str) -> bytes:
    """Return the bytes of BINUNICODE: its opcode, the length in 4 bytes, and the text."""
    encoded = text.encode()
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def _device_index(operations: Sequence[Operation], reference: int) -> int | None:
    """Return the index of the operation that pushes the device of a storage.

    `reference` is the index of the BINPERSID behind the storage's tuple:

        MARK  BINUNICODE storage  GLOBAL class  BINUNICODE 0  BINUNICODE cpu  BININT 6  TUPLE
    """
    index = reference - 1
    while index > 0 and operations[index].name in _PUTS:
        index -= 1
    if operations[index].name != "TUPLE":
        return None
    pushes = list[int]()
    for place in range(index - 1, -1, -1):
        name = operations[place].name
        if name == "MARK":
            break
        if name not in _PUTS:
            pushes.append(place)
    else:
        return None
    if len(pushes) != _REFERENCE_LENGTH:
        return None
    pushes.reverse()
    device = pushes[_DEVICE_POSITION]
    if operations[device].name not in ("BINUNICODE", *_GETS):
        return None
    return device


def _slots_of(operations: Sequence[Operation], index: int) -> Iterator[int]:
    """Yield the memo slots in which the text that is pushed at `index` is stored."""
    if operations[index].name in _GETS:
        return
    while operations[index + 1].name in _PUTS:
        index += 1
        yield int(operations[index].argument)
