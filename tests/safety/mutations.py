"""Mutations of the structure of model files: zip headers, opcodes of pickles, tokens of source, values of JSON.

Bytes flipped at random end in plain errors; what crashes and what runs comes of structure.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.safety.fixtures import rewritten

# Each would make the file MARK appear.
GLOBALS = (b"builtins\nexec", b"builtins\neval", b"os\nsystem", b"pathlib\nPath", b"torch.hub\nload", b"torch\nsave",
           b"builtins\ngetattr", b"torch.nn.modules.linear\nLinear", b"torch._utils\n_rebuild_tensor_v2")  # fmt: skip
CALLS = ('torch.save(x, "MARK")', 'ops.aten.save(x, "MARK")', 'torch.from_file("MARK", True, 3)', "1 / 0",
         "torch.zeros([1048576, 1048576])", "annotate(int, x)", "self.fc.weight", "torch.add(x, x)")  # fmt: skip
WORDS = ("torch.save", "ops.aten.save", "__torch__", "Tensor", "self", "torch.linear", "int")
TEXTS = ("__import__('pathlib').Path('MARK').touch()", "torch.hub.load", "torch.ops.aten.save.default", "os.system",
         "x=__import__('pathlib').Path('MARK').touch()", "../../MARK", "", "\x1b[2J", "a" * 5000, "s0 ** s0",
         "9**9**9", "Symbol('s0')", "torch.ops.aten.linear.default", "builtins.dict")  # fmt: skip
NUMBERS: tuple[Any, ...] = (-1, 0, 1, 2**31, 2**63, 10**12, 3.5, None, True, [], {})


# What reading a file ends in that was mutated once.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, StopIteration, IndexError, NotImplementedError, RuntimeError, ValueError, EOFError,
)  # fmt: skip


@dataclass(frozen=True)
class Mutated:
    """A file, and whether it is damaged in what any verdict rests on, so that none may be given."""

    data: bytes
    what: str
    broken: bool = False


def mutate(data: bytes, random: Random, mark: str) -> Mutated:
    """One file of the kind, changed in one or two places."""
    kinds = [_zip, _zip, _members, _pickle, _pickle, _pickle]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
    kinds += [_source] * 4 if any("/code/" in name for name in names) else []
    kinds += [_json] * 6 if any("/models/" in name for name in names) else []
    mutated = random.choice(kinds)(data, random, mark)
    return mutated if random.random() < 0.8 else _again(mutated, random, mark)


def _again(before: Mutated, random: Random, mark: str) -> Mutated:
    try:
        after = random.choice((_pickle, _members))(before.data, random, mark)
    except _DAMAGE:
        return before
    still = before.broken and "data/" in before.what
    return Mutated(after.data, f"{before.what}, {after.what}", still or after.broken)


def _zip(data: bytes, random: Random, _: str) -> Mutated:
    """A field of a header set to another value: what readers disagree on."""
    places = [
        found.start()
        for found in re.finditer(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06|PK\x06\x06|PK\x06\x07", data)
    ]
    place = random.choice(places) + 4 + 2 * random.randrange(21)
    size = random.choice((2, 4, 8))
    changed = bytearray(data)
    value = random.choice((0, 1, 8, 0xFFFF, len(data), random.randrange(2**16)))
    changed[place : place + size] = struct.pack("<Q", value)[: max(0, min(size, len(data) - place))]
    return Mutated(bytes(changed), f"{size} bytes at {place} are {value}")


def _members(data: bytes, random: Random, _: str) -> Mutated:
    """Members left out, cut, made longer, doubled, renamed or packed; bytes before and behind."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        records = [
            name
            for name in names
            if re.search(r"/data/(\d+|weights/weight_\d+)$", name) and archive.read(name)
        ]
    name = random.choice(names)
    match random.randrange(7):
        case 0:
            return Mutated(rewritten(data, {name: None}), f"without {name}")
        case 1 if records:
            record = random.choice(records)
            return Mutated(
                rewritten(data, {record: lambda old: old[: len(old) // 2]}),
                f"{record} cut",
                broken=True,
            )
        case 2 if records:
            record = random.choice(records)
            # By no number of bytes that a cut may have taken from a tensor of floats.
            longer = rewritten(data, {record: lambda old: old + b"\0" * 5})
            return Mutated(longer, f"{record} longer", broken="/weights/" not in record)
        case 3:
            return Mutated(data + bytes(random.randrange(1, 64)), "bytes behind", broken=True)
        case 4:
            return Mutated(bytes(random.randrange(1, 64)) + data, "bytes before")
        case 5:
            return Mutated(rewritten(data, {}, compress=True), "packed", broken=True)
        case _:
            folder = name.split("/", 1)[0]
            added = random.choice(
                ("model.json", "DATA.PKL", "x.so", "code/../x.py", "data/aotinductor/m.so")
            )
            return Mutated(rewritten(data, {added: b"{}"}), f"{added} in {folder}")


def _pickle(data: bytes, random: Random, mark: str) -> Mutated:
    """Opcodes left out, doubled or moved; arguments that are other numbers or other names."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [
            name for name in archive.namelist() if name.endswith(("data.pkl", "constants.pkl"))
        ]
        if not names:
            return Mutated(data, "as it was")
        name = random.choice(names)
        content = archive.read(name)
    spans = _spans(content)
    number = random.randrange(1, len(spans))
    start, end = spans[number]
    match random.randrange(6):
        case 0:
            changed = content[:start] + content[end:]
        case 1:
            changed = content[:end] + content[start:end] * random.randrange(1, 40) + content[end:]
        case 2:
            other = random.choice(spans)
            changed = content[:start] + content[other[0] : other[1]] + content[end:]
        case 3:
            call = (
                b"c"
                + random.choice(GLOBALS)
                + b"\n(X"
                + struct.pack("<I", len(mark))
                + mark.encode()
                + b"tR"
            )
            changed = content[:start] + call + content[start:]
        case 4:
            numbers = [span for span in spans if content[span[0]] in b"KMJ"]
            place = random.choice(numbers or spans)
            value = random.choice((0, 1, 7, 2**16, 2**31 - 1, -1))
            changed = content[: place[0]] + b"J" + struct.pack("<i", value) + content[place[1] :]
        case _:
            imports = [span for span in spans if content[span[0] : span[0] + 1] == b"c"]
            place = random.choice(imports or spans)
            changed = (
                content[: place[0]] + b"c" + random.choice(GLOBALS) + b"\n" + content[place[1] :]
            )
    return Mutated(rewritten(data, {name: changed}), f"opcode {number} of {name}")


def _spans(content: bytes) -> list[tuple[int, int]]:
    starts = [place for _, _, place in pickletools.genops(content) if place is not None]
    return list(zip(starts, [*starts[1:], len(content)], strict=True))


def _source(data: bytes, random: Random, mark: str) -> Mutated:
    """Lines of TorchScript left out, doubled, moved, or with a call in them; long and deep expressions."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = random.choice([name for name in archive.namelist() if name.endswith(".py")])
        lines = archive.read(name).decode().splitlines()
    number = random.randrange(len(lines))
    indent = re.match(r" *", lines[number])
    assert indent is not None
    match random.randrange(7):
        case 0:
            del lines[number]
        case 1:
            lines.insert(number, lines[number])
        case 2:
            other = random.randrange(len(lines))
            lines[number], lines[other] = lines[other], lines[number]
        case 3:
            lines.insert(number, f"{indent[0]}_x = {random.choice(CALLS).replace('MARK', mark)}")
        case 4:
            depth = random.choice((3, 300, 5000))
            lines.insert(number, f"{indent[0]}_x = {'(' * depth}1{')' * depth}")
        case 5:
            lines.insert(number, f"{indent[0]}while True:\n{indent[0]}  pass")
        case _:
            words = re.findall(r"[A-Za-z_][\w.]*", lines[number])
            if words:
                lines[number] = lines[number].replace(random.choice(words), random.choice(WORDS), 1)
    return Mutated(rewritten(data, {name: "\n".join(lines).encode()}), f"line {number} of {name}")


def _json(data: bytes, random: Random, mark: str) -> Mutated:
    """A value of the JSON that is another text, number or kind of thing, or is not there."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = random.choice([name for name in archive.namelist() if name.endswith(".json")])
        found = json.loads(archive.read(name))
    places = list(_places(found))
    holder, key = random.choice(places)
    match random.randrange(4):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1:
            holder[key] = random.choice(NUMBERS)
        case 2:
            other, place = random.choice(places)
            holder[key] = other[place]
        case _:
            texts = [(one, place) for one, place in places if isinstance(one[place], str)]
            holder, key = random.choice(texts or places)
            holder[key] = random.choice(TEXTS).replace("MARK", mark)
    try:
        changed = json.dumps(found).encode()
    except (ValueError, RecursionError):
        return Mutated(data, "as it was")
    return Mutated(rewritten(data, {name: changed}), f"{key} of {name}")


def _places(found: Any) -> Any:
    items = (
        found.items()
        if isinstance(found, dict)
        else enumerate(found)
        if isinstance(found, list)
        else ()
    )
    for key, value in list(items):
        yield found, key
        yield from _places(value)
