"""Harmless files that do what a hostile file could do.

If anything in one of them ran, it would create the marker file.
"""

from __future__ import annotations

import io
import json
import linecache
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

# What becomes of one member of an archive: new content, a function of the old, or None to drop it.
Change = Callable[[bytes], bytes] | bytes | None

PLAIN = """class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)
"""


class Touch:
    """An object whose pickle creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (self.path, "w")


def saved(value: object, **options: Any) -> bytes:
    """Return what torch.save writes."""
    data = io.BytesIO()
    torch.save(value, data, **options)
    return data.getvalue()


def scripted(body: str, marker: Path) -> bytes:
    """Return an archive of the scripted `class Model`; `MARK` in its code is the marker's path."""
    names: dict[str, Any] = {"__name__": "__main__"}
    path = marker.with_name("fixture_module.py")
    code = body.replace("MARK", repr(str(marker)))
    path.write_text(f"import torch\nfrom torch import nn, Tensor\n\n{code}\n")
    try:
        # TorchScript can compile only a class whose source is in a file.
        exec(compile(path.read_text(), str(path), "exec"), names)  # noqa: S102
        linecache.checkcache(str(path))
        with warnings.catch_warnings(action="ignore"):
            data = io.BytesIO()
            torch.jit.save(torch.jit.script(names["Model"]()), data)
    finally:
        path.unlink()
    return data.getvalue()


def linear(folder: Path) -> bytes:
    """Return an archive of a scripted linear layer that does no harm."""
    return scripted(PLAIN, folder / "unused")


def source_of_model(data: bytes) -> str:
    """Return the name of the member with the source of `Model`.

    torch chooses another file name each time it scripts a class of the same name.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sources = [name for name in archive.namelist() if name.endswith(".py")]
        return next(name for name in sources if b"class Model(Module)" in archive.read(name))


def exported() -> bytes:
    """Return a .pt2 archive of a linear layer with a dynamic batch size."""
    data = io.BytesIO()
    sizes = ({0: torch.export.Dim("n", min=2, max=64)},)
    program = torch.export.export(nn.Linear(3, 2), (torch.rand(4, 3),), dynamic_shapes=sizes)
    torch.export.save(program, data)
    return data.getvalue()


class Halves(nn.Module):
    """A module whose export has an expression, a guard, and keys in its structures."""

    def forward(self, parts: dict[str, torch.Tensor], *, scale: float) -> dict[str, torch.Tensor]:
        size = parts["a"].shape[0] // 2
        return {"first": parts["a"][:size] * scale, "rest": parts["b"].unflatten(0, (-1, 2))}


def exported_sizes() -> bytes:
    """Return a .pt2 archive of `Halves`."""
    data = io.BytesIO()
    size = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        Halves(),
        ({"a": torch.rand(6, 3), "b": torch.rand(8, 3)},),
        {"scale": 0.5},
        dynamic_shapes={"parts": {"a": {0: size}, "b": {0: size}}, "scale": None},
    )
    torch.export.save(program, data)
    return data.getvalue()


def rewritten(data: bytes, changes: Mapping[str, Change], *, compress: bool = False) -> bytes:
    """Return the archive with some members changed.

    Members are named by the end of their path. None drops a member; a name that matches no member
    adds one.
    """
    result = io.BytesIO()
    remaining = dict(changes)
    compression = zipfile.ZIP_STORED
    if compress:
        compression = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.infolist():
            content: bytes | None = old.read(member)
            for name in [name for name in remaining if member.filename.endswith(name)]:
                content = _apply(remaining.pop(name), old.read(member))
            if content is not None:
                new.writestr(member.filename, content, compress_type=compression)
        folder = old.namelist()[0].split("/", 1)[0]
        for name, change in remaining.items():
            assert isinstance(change, bytes)
            new.writestr(f"{folder}/{name}", change)
    return result.getvalue()


def member(data: bytes, ending: str) -> bytes:
    """Return the content of the member of an archive whose name ends so."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(name for name in archive.namelist() if name.endswith(ending))
        return archive.read(name)


def _apply(change: Change, content: bytes) -> bytes | None:
    if callable(change):
        return change(content)
    return change


def in_json(change: Callable[[Any], None]) -> Change:
    """Return a change that edits the parsed JSON of a member in place."""

    def edit(data: bytes) -> bytes:
        parsed = json.loads(data)
        change(parsed)
        return json.dumps(parsed).encode()

    return edit


def touching(marker: Path) -> bytes:
    """Return a checkpoint that creates the marker if it is unpickled without restrictions."""
    return saved((Touch(marker),))


def called(name: bytes, argument: int) -> bytes:
    """Return a state dict that calls a builtin, such as `builtins bytearray` with a size."""
    inner = b"\x80\x02}X\x01\x00\x00\x00ac" + name + b"\n(J" + struct.pack("<i", argument) + b"tRs."
    return rewritten(saved({"a": torch.ones(2)}), {"data.pkl": inner})


def shared_tuples(depth: int) -> bytes:
    """Return a pickle of nested pairs; each holds the next one twice (2**depth in all)."""
    inner = b"\x80\x02)" + b"q\x00h\x00\x86" * depth + b"."
    return rewritten(saved({"a": torch.ones(2)}), {"data.pkl": inner})


def pickled(value: object) -> bytes:
    """Return a bare pickle, without an archive around it."""
    return pickle.dumps(value, protocol=2)


MODULE = """class Model(Module):
  __parameters__ = []
  __buffers__ = []
  training : bool
  def forward(self: __torch__.Model,
    x: Tensor) -> Tensor:
    return torch.mul(x, 2)
"""


def text(value: str) -> bytes:
    """Return the opcode of a text in a pickle."""
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def script_object(name: str, state: Mapping[str, bytes], module: str = "__torch__") -> bytes:
    """Return the opcodes of an object of a class in TorchScript code, from those of its values."""
    items = b"".join(text(key) + value for key, value in state.items())
    return f"c{module}\n{name}\n".encode() + b")\x81}(" + items + b"ub"


MODEL_OBJECT = script_object("Model", {"training": b"\x89"})


def script_archive(
    source: str | bytes,
    value: bytes = MODEL_OBJECT,
    *,
    constants: bytes = b")",
    more: Mapping[str, bytes] | None = None,
) -> bytes:
    """Return a TorchScript archive with this source, and these opcodes as the value of its pickle.

    `more` are further members.
    """
    if isinstance(source, str):
        source = source.encode()
    members = {
        "code/__torch__.py": source,
        "data.pkl": b"\x80\x02" + value + b".",
        "constants.pkl": b"\x80\x02" + constants + b".",
        "version": b"3\n",
        **(more or {}),
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"model/{name}", content)
    return data.getvalue()
