"""Archives without their tensors: what a question of shapes needs of a model, and no more.

The code and the pickles are the file's own, and the records are empty. TorchScript reads its records wherever they go,
but for storages that are said to lie on the meta device.
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence

from composecli.files.archive import Archive
from composecli.files.pickle import Operation

LARGEST_CONSTANTS = 2**20
_FOLDER = "archive"
# Of a member, before its name: APPNOTE 4.3.7; there is nothing behind the name.
_LOCAL_HEADER = 30
# Without `.storage_alignment`, from which PyTorch would compute where records lie in a file that has them.
_KEPT = re.compile(r"code/.*|version|byteorder|\.data/.*")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS = ("GET", "BINGET", "LONG_BINGET")
# Of a reference to a storage.
_ELEMENTS, _DEVICE = 5, 3


def script_skeleton(archive: Archive) -> bytes | None:
    """A TorchScript archive without its tensors, but for the constants of its code, which PyTorch compares when it
    compiles; None where its pickles are not what PyTorch writes."""
    data = with_storages_on(archive, "data.pkl", "meta")
    held = with_storages_on(archive, "constants.pkl", "cpu")
    if data is None or held is None:
        return None
    pickles = {"data.pkl": data, "constants.pkl": held}
    return _written(archive, pickles, frozenset(_constants(archive)))


def has_foreign_byte_order(archive: Archive) -> bool:
    """Whether its tensors were written in another order of bytes than this machine's."""
    return "byteorder" in archive.names and archive.read("byteorder") != sys.byteorder.encode()


def is_frozen(archive: Archive) -> bool:
    """Whether the code of a TorchScript archive holds weights as constants."""
    return sum(map(archive.size, _constants(archive))) > LARGEST_CONSTANTS


def _constants(archive: Archive) -> list[str]:
    return [name for name in archive.names if name.startswith("constants/")]


def checkpoint_skeleton(archive: Archive) -> bytes:
    """A checkpoint without its tensors: PyTorch reads none of them onto the meta device."""
    return _written(archive, {"data.pkl": archive.read("data.pkl")}, frozenset())


def record_starts(emptied: bytes) -> dict[int, str]:
    """Where the records of such a checkpoint would start: number of the byte -> record."""
    with zipfile.ZipFile(io.BytesIO(emptied)) as archive:
        members = archive.infolist()
    names = {member: member.filename.removeprefix(f"{_FOLDER}/") for member in members}
    return {
        member.header_offset + _LOCAL_HEADER + len(member.filename.encode()): name
        for member, name in names.items()
        if name.startswith("data/")
    }


def _written(archive: Archive, pickles: dict[str, bytes], whole: frozenset[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        for name in sorted(archive.names):
            if name in pickles:
                written.writestr(f"{_FOLDER}/{name}", pickles[name])
            elif name in whole or _KEPT.fullmatch(name):
                written.writestr(f"{_FOLDER}/{name}", archive.read(name))
            elif name.startswith(("data/", "constants/")):
                written.writestr(f"{_FOLDER}/{name}", b"")
    return buffer.getvalue()


def with_storages_on(archive: Archive, name: str, device: str) -> bytes | None:
    """A pickle of an archive with every storage on this device."""
    return rewrite_device(archive.read(name), archive.operations(name), device)


def rewrite_device(data: bytes, operations: Sequence[Operation], device: str) -> bytes | None:
    """The pickle with every storage on this device; None where it is written in another way than PyTorch's: then it
    might say another thing than the one that was judged. A text that says a device for another reason stays as it is,
    though pickles share them."""
    puts = [operation.argument for operation in operations if operation.name in _PUTS]
    if len(puts) != len(set(puts)):
        return None
    places = {
        _device_of(operations, number)
        for number, item in enumerate(operations)
        if item.name == "BINPERSID"
    }
    if None in places:
        return None
    texts = {
        slot: str(operations[place].argument)
        for place in places
        if place is not None
        for slot in _slots(operations, place)
    }
    ends = [operation.place for operation in operations[1:]] + [len(data)]
    pieces = list[bytes]()
    for number, (operation, end) in enumerate(zip(operations, ends, strict=True)):
        if number in places:
            pieces.append(_literal(device))
        elif operation.name in _GETS and operation.argument in texts:
            pieces.append(_literal(texts[operation.argument]))
        elif operation.name not in _PUTS or operation.argument not in texts:
            pieces.append(data[operation.place : end])
    return b"".join(pieces)


def _literal(text: str) -> bytes:
    return b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()


def _device_of(operations: Sequence[Operation], persistent: int) -> int | None:
    """The operation that pushes the device in `(storage, class, key, device, count)`."""
    number = persistent - 1
    while number > 0 and operations[number].name in _PUTS:
        number -= 1
    if operations[number].name != "TUPLE":
        return None
    pushes = list[int]()
    for place in range(number - 1, -1, -1):
        name = operations[place].name
        if name == "MARK":
            pushes.reverse()
            device = pushes[_DEVICE] if len(pushes) == _ELEMENTS else 0
            return device if operations[device].name in ("BINUNICODE", *_GETS) else None
        if name not in _PUTS:
            pushes.append(place)
    return None


def _slots(operations: Sequence[Operation], place: int) -> Iterator[int]:
    """Where the text that is pushed here is remembered, to be pushed again."""
    while operations[place + 1].name in _PUTS and operations[place].name not in _GETS:
        place += 1
        yield int(operations[place].argument)
