"""Harmless files that do what a stranger's could: each would make the marker appear if anything in it ran."""

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

Change = Callable[[bytes], bytes] | bytes | None


class Touch:
    """A pickle of it makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (self.path, "w")


def saved(value: object, **options: Any) -> bytes:
    data = io.BytesIO()
    torch.save(value, data, **options)
    return data.getvalue()


def scripted(body: str, marker: Path) -> bytes:
    """A scripted `class Model`, with `MARK` in its code being the marker's path."""
    names: dict[str, Any] = {"__name__": "__main__"}
    path = marker.with_name("fixture_module.py")
    path.write_text(
        f"import torch\nfrom torch import nn, Tensor\n\n{body.replace('MARK', repr(str(marker)))}\n"
    )
    try:
        exec(compile(path.read_text(), str(path), "exec"), names)  # noqa: S102 (TorchScript wants a class with source)
        linecache.checkcache(str(path))
        with warnings.catch_warnings(action="ignore"):
            data = io.BytesIO()
            torch.jit.save(torch.jit.script(names["Model"]()), data)
    finally:
        path.unlink()
    return data.getvalue()


def linear(folder: Path) -> bytes:
    return scripted(PLAIN, folder / "unused")


def source_of_model(data: bytes) -> str:
    """The member with the source of `Model`; torch gives a class of the same name another file each time."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sources = [name for name in archive.namelist() if name.endswith(".py")]
        return next(name for name in sources if b"class Model(Module)" in archive.read(name))


PLAIN = """class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)
"""


def exported() -> bytes:
    data = io.BytesIO()
    sizes = ({0: torch.export.Dim("n", min=2, max=64)},)
    torch.export.save(
        torch.export.export(nn.Linear(3, 2), (torch.rand(4, 3),), dynamic_shapes=sizes), data
    )
    return data.getvalue()


def rewritten(data: bytes, changes: Mapping[str, Change], *, compress: bool = False) -> bytes:
    """The archive with members changed, by the end of their names; None leaves one out, a new name adds one."""
    result = io.BytesIO()
    left = dict(changes)
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.infolist():
            content: bytes | None = old.read(member)
            for name in [name for name in left if member.filename.endswith(name)]:
                change = left.pop(name)
                content = change(old.read(member)) if callable(change) else change
            if content is not None:
                kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
                new.writestr(member.filename, content, compress_type=kind)
        folder = old.namelist()[0].split("/", 1)[0]
        for name, change in left.items():
            assert isinstance(change, bytes)
            new.writestr(f"{folder}/{name}", change)
    return result.getvalue()


def in_json(change: Callable[[Any], None]) -> Change:
    def changed(data: bytes) -> bytes:
        found = json.loads(data)
        change(found)
        return json.dumps(found).encode()

    return changed


def touching(marker: Path) -> bytes:
    """A checkpoint that runs when it is unpickled with anything allowed."""
    return saved((Touch(marker),))


def called(name: bytes, argument: int) -> bytes:
    """A state dict in which a builtin is called: `builtins bytearray` and a size."""
    inner = b"\x80\x02}X\x01\x00\x00\x00ac" + name + b"\n(J" + struct.pack("<i", argument) + b"tRs."
    return rewritten(saved({"a": torch.ones(2)}), {"data.pkl": inner})


def shared_tuples(depth: int) -> bytes:
    inner = b"\x80\x02)" + b"q\x00h\x00\x86" * depth + b"."
    return rewritten(saved({"a": torch.ones(2)}), {"data.pkl": inner})


def pickled(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)
