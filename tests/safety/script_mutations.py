"""Mutations of what torch evaluates and trusts in a TorchScript archive.

They change signatures, constants and names in the source, names of members, and functions, classes
and places of the memo in the pickles. The order of the calls to `random` is part of the interface,
as in `mutations`.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Sequence
from random import Random

from tests.safety.fixtures import rewritten, text
from tests.safety.mutations import Mutated

# Each of these would create the file MARK, read a file, or compute.
EVALUATED = (
    'torch.save(torch.ones([1]), "MARK")',
    'annotate(int, ops.aten.save(torch.ones([1]), "MARK"))',
    'torch.from_file("/etc/passwd", False, 3)',
    'ops.aten.from_file("/etc/passwd", False, 3)',
    'getattr(torch, "\\163ave")(torch.ones([1]), "MARK")',
    '[torch.from_file("/etc/passwd", False, 3)][0]',
    "__torch__.evil()",
    "[" * 3000 + "]" * 3000,
    "1 + 2",
    "-inf",
    'torch.device("cpu")',
    "CONSTANTS.c0",
    "3",
    '"MARK"',
)
TYPES = ("int", "Tensor", "List[Tensor]", "Tuple[int, int]", "NoneType", "__torch__.Evil", "Any")
# Places where torch evaluates EXPR; they are inserted as whole lines, behind the indent.
STATEMENTS = (
    "x1 : Final[TYPE] = EXPR",
    "x1 : TYPE = EXPR",
    "x1 : EXPR = TYPE",
    "x1 : TYPE",
    "EXPR",
    "__parameters__ = [EXPR]",
    '__annotations__["x1"] = EXPR',
    "def evil(x: TYPE=EXPR) -> TYPE:\n  return x",
    "def evil():\n  return EXPR",
    "def evil(self,\n    x: TYPE=EXPR) -> NoneType:\n    return None",
    "class Evil(NamedTuple):\n  x : TYPE = EXPR",
    "class Evil(Enum):\n  x = EXPR",
    "class Evil(Interface):\n  def f(self, x: TYPE=EXPR) -> TYPE:\n    pass",
    "# type: (TYPE) -> TYPE",
    '_0 = """EXPR',
    "_0 = \\\n  EXPR",
    "_0 = 1def evil(x: TYPE=EXPR):",
)
PUT_BETWEEN = (
    "\t",
    "\r",
    "\f",
    "\0",
    "\\\n",
    "#",
    "'",
    '"',
    '"""',
    "\n",
    "  ",
    "\u0435",
    "0x",
    "1",
)
FUNCTIONS = (
    b"K\x00",
    b"K\x01",
    b"h\x00",
    b"h\x01",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_tensor\\x5fv2\n",
    b"ctorch._utils\n_rebuild_qtensor\n",
    b"ctorch._utils\n_rebuild_sparse_tensor\n",
    b"ctorch._tensor\n_rebuild_from_type_v2\n",
    b"ctorch.jit._pickle\nbuild_intlist\n",
    b"ctorch.jit._pickle\nbuild_tensor_from_id\n",
    b"ctorch.jit._pickle\nrestore_type_tag\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nEvilStorage\n",
    b"c__main__\nTensorID\n",
    b"cbuiltins\ncomplex\n",
    b"ctorch\nsave\n",
    b"c__torch__\nEvil\n",
)
ARGUMENTS = (
    b")",
    b"K\x01\x85",
    b"]\x85",
    b"]K\x01a\x85",
    b"](K\x01K\x02e" + text("List[Tensor]") + b"\x86",
    b"](K\x01e" + text("List[" * 3000 + "int" + "]" * 3000) + b"\x86",
    text("MARK") + b"\x85",
    b"}",
    b")" + b"\x85" * 5000,
)
_OPCODE_STARTS = re.compile(rb"[NK)}\]\x88\x89]|q.|h.", re.DOTALL)


def mutate_script(data: bytes, random: Random, mark: str) -> Mutated:
    """Return a TorchScript archive with one or two mutations."""
    mutations: Sequence[Callable[[bytes, Random, str], Mutated]] = (
        _default,
        _statement,
        _character,
        _function,
        _bytes_of_pickle,
        _rename,
        _second_folder,
    )
    mutated = random.choice(mutations)(data, random, mark)
    if random.random() < 0.7:
        return mutated
    try:
        again = random.choice(mutations[:5])(mutated.data, random, mark)
    except (IndexError, ValueError):
        # Nothing of that kind is left.
        return mutated
    return Mutated(again.data, f"{mutated.description}, {again.description}")


def _members(data: bytes, ending: str) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [name for name in archive.namelist() if name.endswith(ending)]


def _read(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name)


def _filled(pattern: str, random: Random, mark: str) -> str:
    """Return a pattern with an expression and types in their places."""
    expression = random.choice(EVALUATED)
    kind = random.choice(TYPES)
    return pattern.replace("EXPR", expression).replace("TYPE", kind).replace("MARK", mark)


def _default(data: bytes, random: Random, mark: str) -> Mutated:
    """Give an argument of a function or of a method a default value."""
    name = random.choice(_members(data, ".py"))
    source = _read(data, name).decode()
    places = [match.end() for match in re.finditer(r"\w+: [\w.\[\], ]+?(?=[,)])", source)]
    if not places:
        return Mutated(data, "unchanged")
    place = random.choice(places)
    changed = source[:place] + _filled("=EXPR", random, mark) + source[place:]
    return Mutated(rewritten(data, {name: changed.encode()}), f"a default at {place} of {name}")


def _statement(data: bytes, random: Random, mark: str) -> Mutated:
    """Insert a statement with an expression, at any line and with any indent."""
    name = random.choice(_members(data, ".py"))
    lines = _read(data, name).decode().split("\n")
    number = random.randrange(len(lines) + 1)
    indent = " " * random.choice((0, 2, 2, 4))
    inserted = _filled(random.choice(STATEMENTS), random, mark)
    lines[number:number] = [f"{indent}{line}" for line in inserted.splitlines()]
    changed = "\n".join(lines) + "\n"
    return Mutated(rewritten(data, {name: changed.encode()}), f"a statement in {number} of {name}")


def _character(data: bytes, random: Random, _: str) -> Mutated:
    """Insert characters that lexers may read in different ways."""
    name = random.choice(_members(data, ".py"))
    source = _read(data, name).decode()
    place = random.randrange(len(source))
    changed = source[:place] + random.choice(PUT_BETWEEN) + source[place:]
    return Mutated(rewritten(data, {name: changed.encode()}), f"a character at {place} of {name}")


def _function(data: bytes, random: Random, mark: str) -> Mutated:
    """Put a call, an object or a value that is stored in the memo in the place of a value."""
    name = random.choice(_members(data, ".pkl"))
    content = _read(data, name)
    function, arguments = random.choice(FUNCTIONS), random.choice(ARGUMENTS)
    call = (
        function
        + arguments.replace(b"MARK", mark.encode())
        + random.choice((b"R", b"\x81", b"R}b"))
    )
    call += random.choice((b"", b"q\x00", b"q\xf0", b"r\0\0\0\x70"))
    matches = list(_OPCODE_STARTS.finditer(content, 2))
    if not matches:
        return Mutated(data, "unchanged")
    start, end = random.choice(matches).span()
    changed = content[:start] + call + content[end:]
    return Mutated(rewritten(data, {name: changed}), f"a call at {start} of {name}")


def _bytes_of_pickle(data: bytes, random: Random, _: str) -> Mutated:
    """Copy a part of a pickle to another place, or drop it."""
    name = random.choice(_members(data, ".pkl") + _members(data, ".debug_pkl"))
    content = _read(data, name)
    start = random.randrange(2, len(content))
    length = random.choice((1, 2, 3, 5, 20))
    place = random.randrange(2, len(content))
    changed = content[:place] + content[start : start + length] + content[place:]
    if random.random() < 0.5:
        changed = content[:start] + content[start + length :]
    return Mutated(rewritten(data, {name: changed}), f"bytes at {start} of {name}")


def _rename(data: bytes, random: Random, _: str) -> Mutated:
    """Write the name of a member in other letters, and perhaps keep the member, too."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = random.choice(archive.namelist())
        content = archive.read(name)
    folder, _, below = name.partition("/")
    other = random.choice((below.upper(), below.title(), below.replace(".py", ".PY"), f"a/{below}"))
    result = data
    if random.random() < 0.5:
        result = rewritten(data, {name: None})
    with_other = io.BytesIO(result)
    with zipfile.ZipFile(with_other, "a") as archive:
        if f"{folder}/{other}" not in archive.namelist():
            archive.writestr(f"{folder}/{other}", content)
    return Mutated(with_other.getvalue(), f"{name} as {other}")


def _second_folder(data: bytes, random: Random, _: str) -> Mutated:
    """Add members in another folder, or in none."""
    folder = random.choice(("", "other/", "ARCHIVE/"))
    with_other = io.BytesIO(data)
    with zipfile.ZipFile(with_other, "a") as archive:
        for name in random.sample(archive.namelist(), k=2):
            below = name.partition("/")[2]
            archive.writestr(f"{folder}{below}", archive.read(name))
    return Mutated(with_other.getvalue(), f"members in {folder or 'no folder'}", broken=True)
