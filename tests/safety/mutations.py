"""Mutations of the structure of model files.

They change zip headers, pickle opcodes, tokens of source code, and JSON values. Flipping bits at
random only produces plain errors; crashes and code execution need a valid structure.

The order of the calls to `random` is part of the interface: `test_fuzz` names files by their seed
and number.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.safety.fixtures import rewritten

# Each of these would create the file MARK, or do other harm.
GLOBALS = (
    b"builtins\nexec",
    b"builtins\neval",
    b"os\nsystem",
    b"pathlib\nPath",
    b"torch.hub\nload",
    b"torch\nsave",
    b"builtins\ngetattr",
    b"torch.nn.modules.linear\nLinear",
    b"torch._utils\n_rebuild_tensor_v2",
)
CALLS = (
    'torch.save(x, "MARK")',
    'ops.aten.save(x, "MARK")',
    'torch.from_file("MARK", True, 3)',
    "1 / 0",
    "torch.zeros([1048576, 1048576])",
    "annotate(int, x)",
    "self.fc.weight",
    "torch.add(x, x)",
)
WORDS = ("torch.save", "ops.aten.save", "__torch__", "Tensor", "self", "torch.linear", "int")
TEXTS = (
    "__import__('pathlib').Path('MARK').touch()",
    "torch.hub.load",
    "torch.ops.aten.save.default",
    "os.system",
    "x=__import__('pathlib').Path('MARK').touch()",
    "../../MARK",
    "",
    "\x1b[2J",
    "a" * 5000,
    "s0 ** s0",
    "9**9**9",
    "Symbol('s0')",
    "torch.ops.aten.linear.default",
    "builtins.dict",
)
NUMBERS: tuple[Any, ...] = (-1, 0, 1, 2**31, 2**63, 10**12, 3.5, None, True, [], {})
MEMBERS = ("model.json", "DATA.PKL", "x.so", "code/../x.py", "data/aotinductor/m.so")
HEADERS = re.compile(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06|PK\x06\x06|PK\x06\x07")
RECORD = re.compile(r"/data/(\d+|weights/weight_\d+)$")

# Errors that reading a file may end in after it has been mutated once.
_READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    StopIteration,
    IndexError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    EOFError,
)

# The half-open range of bytes that one opcode and its argument occupy in a pickle.
Span = tuple[int, int]


@dataclass(frozen=True)
class Mutated:
    """A mutated file; `description` is for the person who looks into a failure.

    `broken`: the damage concerns something that every contract rests on, so the file must not get
    one.
    """

    data: bytes
    description: str
    broken: bool = False


Mutation = Callable[[bytes, Random, str], Mutated]


def mutate(data: bytes, random: Random, mark: str) -> Mutated:
    """Return the file with one or two mutations of a kind that suits it."""
    mutations: list[Mutation] = [_zip, _zip, _members, _pickle, _pickle, _pickle]
    names = _open(data).namelist()
    if any("/code/" in name for name in names):
        mutations += [_source] * 4
    if any("/models/" in name for name in names):
        mutations += [_json] * 6
    mutated = random.choice(mutations)(data, random, mark)
    if random.random() < 0.8:
        return mutated
    return _mutate_again(mutated, random, mark)


def mutate_old_format(data: bytes, random: Random, mark: str) -> Mutated:
    """Return a file in the old format with one opcode changed, or its end cut or lengthened.

    Of its five pickles the fourth is the object.
    """
    file = io.BytesIO(data)
    places = [0]
    for _ in range(5):
        for _opcode in pickletools.genops(file):
            pass
        places.append(file.tell())
    match random.randrange(8):
        case 0:
            cut = random.randrange(1, len(data) - places[4])
            return Mutated(data[:-cut], f"{cut} bytes cut", broken=True)
        case 1:
            return Mutated(data + bytes(random.randrange(1, 64)), "bytes after", broken=True)
        case 2:
            offset = random.randrange(places[5], places[5] + 8)
            changed = bytearray(data)
            changed[offset] ^= random.randrange(1, 256)
            return Mutated(bytes(changed), f"another count at {offset}", broken=True)
    number = random.choice((3, 3, 3, 4))
    start, end = places[number], places[number + 1]
    content = data[start:end]
    spans = _spans(content)
    opcode = random.randrange(1, len(spans))
    content = _change_opcode(content, spans, opcode, random, mark)
    return Mutated(data[:start] + content + data[end:], f"opcode {opcode} of pickle {number}")


def _open(data: bytes) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(data))


def _mutate_again(before: Mutated, random: Random, mark: str) -> Mutated:
    try:
        after = random.choice((_pickle, _members))(before.data, random, mark)
    except _READ_ERRORS:
        return before
    # A second mutation may drop the bytes that the first one broke, but not a damaged record.
    still_broken = before.broken and "data/" in before.description
    description = f"{before.description}, {after.description}"
    return Mutated(after.data, description, still_broken or after.broken)


def _zip(data: bytes, random: Random, _: str) -> Mutated:
    """Set a field of a zip header to another value, so that zip readers disagree."""
    headers = [match.start() for match in HEADERS.finditer(data)]
    offset = random.choice(headers) + 4 + 2 * random.randrange(21)
    size = random.choice((2, 4, 8))
    changed = bytearray(data)
    value = random.choice((0, 1, 8, 0xFFFF, len(data), random.randrange(2**16)))
    fitting_size = max(0, min(size, len(data) - offset))
    changed[offset : offset + size] = struct.pack("<Q", value)[:fitting_size]
    return Mutated(bytes(changed), f"{size} bytes at {offset} are {value}")


def _members(data: bytes, random: Random, _: str) -> Mutated:
    """Drop, cut, lengthen, compress or add members, or put bytes before or after the archive."""
    with _open(data) as archive:
        names = archive.namelist()
        records = [name for name in names if RECORD.search(name) and archive.read(name)]
    name = random.choice(names)
    match random.randrange(7):
        case 0:
            return Mutated(rewritten(data, {name: None}), f"without {name}")
        case 1 if records:
            record = random.choice(records)
            cut = rewritten(data, {record: lambda old: old[: len(old) // 2]})
            return Mutated(cut, f"{record} cut", broken=True)
        case 2 if records:
            record = random.choice(records)
            # Five bytes: not a size by which a cut may have shortened a tensor of floats.
            longer = rewritten(data, {record: lambda old: old + b"\0" * 5})
            return Mutated(longer, f"{record} longer", broken="/weights/" not in record)
        case 3:
            return Mutated(data + bytes(random.randrange(1, 64)), "bytes after", broken=True)
        case 4:
            return Mutated(bytes(random.randrange(1, 64)) + data, "bytes before")
        case 5:
            return Mutated(rewritten(data, {}, compress=True), "compressed", broken=True)
        case _:
            folder = name.split("/", 1)[0]
            added = random.choice(MEMBERS)
            return Mutated(rewritten(data, {added: b"{}"}), f"{added} in {folder}")


def _pickle(data: bytes, random: Random, mark: str) -> Mutated:
    """Drop, repeat or replace an opcode of a pickle, or change its argument."""
    with _open(data) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith(("data.pkl", "constants.pkl"))]
        if not pickles:
            return Mutated(data, "unchanged")
        name = random.choice(pickles)
        content = archive.read(name)
    spans = _spans(content)
    number = random.randrange(1, len(spans))
    changed = _change_opcode(content, spans, number, random, mark)
    return Mutated(rewritten(data, {name: changed}), f"opcode {number} of {name}")


def _change_opcode(
    content: bytes, spans: list[Span], number: int, random: Random, mark: str
) -> bytes:
    start, end = spans[number]
    match random.randrange(6):
        case 0:
            return content[:start] + content[end:]
        case 1:
            repeated = content[start:end] * random.randrange(1, 40)
            return content[:end] + repeated + content[end:]
        case 2:
            other = random.choice(spans)
            return content[:start] + content[other[0] : other[1]] + content[end:]
        case 3:
            length = struct.pack("<I", len(mark))
            call = b"c" + random.choice(GLOBALS) + b"\n(X" + length + mark.encode() + b"tR"
            return content[:start] + call + content[start:]
        case 4:
            integers = [span for span in spans if content[span[0]] in b"KMJ"]
            start, end = random.choice(integers or spans)
            value = random.choice((0, 1, 7, 2**16, 2**31 - 1, -1))
            return content[:start] + b"J" + struct.pack("<i", value) + content[end:]
        case _:
            imports = [span for span in spans if content[span[0] : span[0] + 1] == b"c"]
            start, end = random.choice(imports or spans)
            return content[:start] + b"c" + random.choice(GLOBALS) + b"\n" + content[end:]


def _spans(content: bytes) -> list[Span]:
    starts = [offset for _, _, offset in pickletools.genops(content) if offset is not None]
    return list(zip(starts, [*starts[1:], len(content)], strict=True))


def _source(data: bytes, random: Random, mark: str) -> Mutated:
    """Drop, repeat, swap or edit a line of TorchScript; insert calls and deep expressions."""
    with _open(data) as archive:
        name = random.choice([name for name in archive.namelist() if name.endswith(".py")])
        lines = archive.read(name).decode().splitlines()
    number = random.randrange(len(lines))
    leading = re.match(r" *", lines[number])
    assert leading is not None
    indent = leading[0]
    match random.randrange(7):
        case 0:
            del lines[number]
        case 1:
            lines.insert(number, lines[number])
        case 2:
            other = random.randrange(len(lines))
            lines[number], lines[other] = lines[other], lines[number]
        case 3:
            lines.insert(number, f"{indent}_x = {random.choice(CALLS).replace('MARK', mark)}")
        case 4:
            depth = random.choice((3, 300, 5000))
            lines.insert(number, f"{indent}_x = {'(' * depth}1{')' * depth}")
        case 5:
            lines.insert(number, f"{indent}while True:\n{indent}  pass")
        case _:
            words = re.findall(r"[A-Za-z_][\w.]*", lines[number])
            if words:
                lines[number] = lines[number].replace(random.choice(words), random.choice(WORDS), 1)
    return Mutated(rewritten(data, {name: "\n".join(lines).encode()}), f"line {number} of {name}")


def _json(data: bytes, random: Random, mark: str) -> Mutated:
    """Drop a JSON value, or replace it with another text, number or type."""
    with _open(data) as archive:
        name = random.choice([name for name in archive.namelist() if name.endswith(".json")])
        parsed = json.loads(archive.read(name))
    places = list(_places(parsed))
    container, key = random.choice(places)
    match random.randrange(4):
        case 0 if isinstance(container, dict):
            del container[key]
        case 1:
            container[key] = random.choice(NUMBERS)
        case 2:
            other, other_key = random.choice(places)
            container[key] = other[other_key]
        case _:
            texts = [place for place in places if isinstance(place[0][place[1]], str)]
            container, key = random.choice(texts or places)
            container[key] = random.choice(TEXTS).replace("MARK", mark)
    try:
        changed = json.dumps(parsed).encode()
    except (ValueError, RecursionError):
        return Mutated(data, "unchanged")
    return Mutated(rewritten(data, {name: changed}), f"{key} of {name}")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container with a key or index into it, at every depth."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, child in items:
        yield value, key
        yield from _places(child)
