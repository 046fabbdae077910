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
ENUM = (
    '[1, {"type": "builtins.tuple", "context": "{\\"__enum__\\": true, \\"fqn\\":'
    ' \\"antigravity:A\\", \\"name\\": \\"MARK\\"}", "children_spec": []}]'
)
# Texts that PyTorch evaluates, imports, or writes into source code, by their keys.
JSON_TEXTS = {
    "in_spec": (
        ENUM,
        '[1, {"type": "collections.defaultdict", "context": null, "children_spec": []}]',
        "[1, null]",
        "[" * 900,
    ),
    "target": (
        "torch.sym_fresh_size",
        "torch.ops.aten.add.__setattr__",
        "torch.ops.aten._reshape_alias.default",
        "torch.ops.aten.as_strided.default",
        "_operator.pow",
        "_operator.lshift",
        "math.trunc",
    ),
    "expr_str": (
        "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
        "LShift(Integer(1), Integer(999999999))",
        "Max('open', Symbol('s0'))",
        "9^9^9^9",
        "FloorDiv(Symbol('s0'), Integer(0))",
        "Symbol('u99999999999')",
    ),
    "guards_code": (
        "9**9**9**9 > 1",
        "L['input'].size()[0] % 0 == 1",
        "1 << L['input'].size()[0] == 3",
        "math.trunc(torch.sym_float(L['input'].size()[0]) / 4.0) >= 0",
        "L['input'].size()[99999] == 1",
        "torch.load('MARK') == 1",
        "math.sqrt(-1) == 1",
    ),
}
JSON_TEXTS["out_spec"] = JSON_TEXTS["in_spec"]
HUGE_NUMBERS: tuple[Any, ...] = (2**63, 2**64 - 1, 2**64, -(2**63), 10**400, "1", "MARK", {"a": 1})
JSON_SPLICES = (b'{"a": 1, "a": 2, ', b'{"a": NaN, ', b'{"a": "\\ud800", ', b"\xef\xbb\xbf{")
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


def mutate_program(data: bytes, random: Random, mark: str) -> Mutated:
    """Change what a program has under a key that PyTorch evaluates, or a number, or the encoding.

    Keys outside the schema do no harm, so these mutations aim at those of it.
    """
    with _open(data) as archive:
        names = [name for name in archive.namelist() if name.endswith(".json")]
        name = random.choice(names)
        content = archive.read(name)
    if random.random() < 0.15:
        spliced = random.choice(JSON_SPLICES) + content.lstrip()[1:]
        if random.random() < 0.3:
            spliced = content.decode().encode(random.choice(("utf-16", "utf-32-le")))
        return Mutated(rewritten(data, {name: spliced}), f"spliced {name}")
    parsed = json.loads(content)
    key = random.choice((*JSON_TEXTS, "as_int"))
    places = [place for place in _places(parsed) if place[1] == key]
    if not places:
        return Mutated(data, "unchanged")
    container, _ = random.choice(places)
    value = random.choice((*JSON_TEXTS.get(key, ()), *HUGE_NUMBERS))
    if isinstance(value, str):
        value = value.replace("MARK", mark)
    if key == "guards_code" and random.random() < 0.9:
        value = [value]
    container[key] = value
    changed = json.dumps(parsed).encode()
    return Mutated(rewritten(data, {name: changed}), f"{key} of {name} is {str(value)[:40]}")


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
