"""The maps to the original source beside TorchScript code: numbers, texts, tuples and lists."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from composecli.files.torchscript_debug import MAX_DEPTH, check_debug_pickle
from composecli.files.torchscript_values import NotWritten

LIST = b"ctorch.jit._pickle\nbuild_intlist\n"


def _written() -> bytes:
    """Return a map that torch writes."""
    data = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Sequential(nn.Linear(3, 2)), torch.rand(1, 3)), data)
    with zipfile.ZipFile(data) as archive:
        names = [name for name in archive.namelist() if name.endswith(".debug_pkl")]
        return max((archive.read(name) for name in names), key=len)


WRITTEN = _written()


def test_what_torch_writes_is_accepted() -> None:
    check_debug_pickle(WRITTEN)


@given(place=st.integers(0, len(WRITTEN) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_ends_in_a_refusal_or_in_data(place: int, byte: int) -> None:
    changed = WRITTEN[:place] + bytes((byte,)) + WRITTEN[place + 1 :]
    try:
        check_debug_pickle(changed)
    except NotWritten:
        return


@pytest.mark.parametrize(
    "opcodes",
    [
        b"N" * 2,
        b"(N",
        b"(t" + b"\x85" * (MAX_DEPTH + 2),
        b"ctorch\nsave\n)R",
        LIST + b"](\x85",
        b"N(\x86",
        b"](e0",
        b"Nr" + struct.pack("<I", 2**31),
        b"h\x00",
        b"X\xff\xff\xff\x7f",
        b"\x8a\x01\x01",
        b"}",
        b")\x81",
        b"(" + b"\x87",
    ],
)
def test_other_pickles_are_refused(opcodes: bytes) -> None:
    with pytest.raises(NotWritten):
        check_debug_pickle(b"\x80\x02" + opcodes + b".")


def test_another_protocol_is_refused() -> None:
    with pytest.raises(NotWritten, match="protocol"):
        check_debug_pickle(b"\x80\x04N.")
