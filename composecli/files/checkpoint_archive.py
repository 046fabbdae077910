"""A part of a checkpoint as an archive of its own, which PyTorch loads in its place.

It holds one pickle, which is written anew from the nodes of that part, and the records that the
pickle refers to. So PyTorch reads just the checked nodes: no old format, and no objects beside
the weights, nor the state of an optimizer.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import IO

from composecli.files.archive import Archive
from composecli.files.members import Members
from composecli.files.pickle_writer import write
from composecli.files.private_copy import anonymous_file
from composecli.files.zip_format import LOCAL_HEADER

_FOLDER = "archive"
_VERSION = b"3\n"
# `.storage_alignment` is not copied: PyTorch would use it to compute where the records of a file
# with content are.
_COPIED = re.compile(r"data\.pkl|version|byteorder|\.data/.*")


def write_checkpoint(members: Members, part: object) -> IO[bytes]:
    """Return an anonymous file with a part of a checkpoint, and the values of its tensors.

    `part` is a node of the pickle, or is made of such nodes.

    Raises:
        NotAPickle: if the part cannot be written.
        NotAnArchive: if the file became shorter.
    """
    file = anonymous_file()
    _write(file, members, part, with_values=True)
    file.seek(0)
    return file


def checkpoint_skeleton(members: Members, part: object) -> bytes:
    """Return an archive with a part of a checkpoint, and empty records in place of its tensors.

    PyTorch does not read the records of a checkpoint that it loads to the meta device.

    Raises:
        NotAPickle: if the part cannot be written.
    """
    buffer = io.BytesIO()
    _write(buffer, members, part, with_values=False)
    return buffer.getvalue()


def whole_skeleton(archive: Archive) -> bytes:
    """Return an archive without its tensors whose pickle is the file's own, which is trusted."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as skeleton:
        for name in sorted(archive.names):
            if name.startswith("data/"):
                skeleton.writestr(f"{_FOLDER}/{name}", b"")
            elif _COPIED.fullmatch(name):
                skeleton.writestr(f"{_FOLDER}/{name}", archive.read(name))
    return buffer.getvalue()


def record_starts(skeleton: bytes) -> dict[int, str]:
    """Return the record at each offset of a checkpoint's skeleton."""
    with zipfile.ZipFile(io.BytesIO(skeleton)) as archive:
        infos = archive.infolist()
    records = dict[int, str]()
    for info in infos:
        name = info.filename.removeprefix(f"{_FOLDER}/")
        if name.startswith("data/"):
            # `zipfile` writes no extra field here.
            header_length = LOCAL_HEADER.size + len(info.filename.encode())
            records[info.header_offset + header_length] = name
    return records


def _write(file: IO[bytes], members: Members, part: object, *, with_values: bool) -> None:
    """Write an archive as PyTorch does; its records are empty unless they are wanted."""
    with zipfile.ZipFile(file, "w") as archive:
        written = write(part)
        archive.writestr(f"{_FOLDER}/data.pkl", written.data)
        archive.writestr(f"{_FOLDER}/byteorder", members.byte_order())
        archive.writestr(f"{_FOLDER}/version", _VERSION)
        for key in written.storages:
            name = f"data/{key}"
            is_large = with_values and members.size(name) > zipfile.ZIP64_LIMIT
            with archive.open(f"{_FOLDER}/{name}", "w", force_zip64=is_large) as record:
                if with_values:
                    record.writelines(members.pieces(name))
