"""The records of a zip archive that composecli reads and writes.

Numbers are little-endian, and nothing pads the fields. Source: PKWARE's APPNOTE 6.3.10; each record
names its section.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

LOCAL_SIGNATURE = b"PK\x03\x04"
DESCRIPTOR_SIGNATURE = b"PK\x07\x08"
DIRECTORY_SIGNATURE = b"PK\x01\x02"
END_64_SIGNATURE = b"PK\x06\x06"
LOCATOR_SIGNATURE = b"PK\x06\x07"
END_SIGNATURE = b"PK\x05\x06"

# General purpose bit flags, section 4.4.4.
ENCRYPTED_FLAG = 0x1
DESCRIPTOR_FLAG = 0x8
UTF8_FLAG = 0x800

# Compression methods, section 4.4.5.
STORED = 0
DEFLATED = 8

# Values of a field whose number is in a zip64 field instead, sections 4.4.1.4 and 4.4.8.
IN_ZIP64_16 = 0xFFFF
IN_ZIP64_32 = 0xFFFFFFFF

# The id of a zip64 extra field, section 4.5.3.
ZIP64_EXTRA = 1
# The versions of the format that a reader must know, section 4.4.3: 2.0, or 4.5 for zip64.
VERSION = 20
VERSION_64 = 45


class LocalHeader(NamedTuple):
    """The header in front of a member, without its name and extra field: section 4.3.7."""

    signature: bytes
    version: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed_size: int
    size: int
    name_length: int
    extra_length: int


LOCAL_HEADER = struct.Struct("<4s5H3I2H")

# The record that may follow a member's content (section 4.3.9): signature, CRC-32, packed
# size, size.
DESCRIPTOR = struct.Struct("<4s3I")
DESCRIPTOR_64 = struct.Struct("<4sI2Q")


class DirectoryEntry(NamedTuple):
    """A member's entry in the directory, without its name and extra field: section 4.3.12."""

    signature: bytes
    version_made_by: int
    version: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed_size: int
    size: int
    name_length: int
    extra_length: int
    comment_length: int
    disk: int
    internal_attributes: int
    external_attributes: int
    header_start: int


DIRECTORY_ENTRY = struct.Struct("<4s6H3I5H2I")


class Extent(NamedTuple):
    """Where the directory is, as both of its end records state it."""

    disk: int
    first_disk: int
    entries_on_disk: int
    entries: int
    length: int
    start: int


# The zip64 end of the directory, section 4.3.14: signature, size of the rest, version made by,
# version needed, and the fields of `Extent`.
END_64 = struct.Struct("<4sQ2H2I4Q")
# Of END_64, without the signature and this size itself.
END_64_SIZE = END_64.size - 12
# The locator of END_64, section 4.3.15: signature, its disk, its start, number of disks.
LOCATOR = struct.Struct("<4sIQI")
# The end of the directory, section 4.3.16: signature, the fields of `Extent`, comment's length.
END = struct.Struct("<4s4H2IH")
