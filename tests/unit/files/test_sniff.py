"""What a file is, from its content: each wrong file is a clear problem of its own."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from composecli.core.errors import Problem
from composecli.core.model_ref import ModelKind
from composecli.files.sniff import ModelFile, WeightsFile, sniff
from tests.models import Shelf


def oldest() -> bytes:
    """A tar archive with one of the members that PyTorch wrote before version 0.1.10."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return data.getvalue()


def saved(value: object) -> bytes:
    data = io.BytesIO()
    torch.save(value, data)
    return data.getvalue()


def zipped(**members: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return data.getvalue()


ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\xd2\x01\n\x13\n\x05input"
WRONG = {
    "empty": (b"", "CC903", "empty"),
    "truncated": (saved(nn.Linear(2, 2))[:400], "CC904", "truncated"),
    "only a head": (b"PK\x03\x04", "CC904", "truncated"),
    "git-lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
        "CC905",
        "git-lfs",
    ),
    "onnx": (ONNX, "CC906", "ONNX"),
    "oldest": (oldest(), "CC911", "tar archive"),
    "text": (b"hello world\n", "CC908", "text file"),
    "spaces": (b"  \n\n", "CC908", "text file"),
    "utf-8": ("käse\n".encode() * 2000, "CC908", "text file"),
    "web page": (b"<!DOCTYPE html><title>Sign in</title>", "CC908", "web page"),
    "pickle": (pickle.dumps({"a": 1}), "CC908", "bare pickle"),
    "flatbuffer": (b"\x10\x00\x00\x00PTMF\xff\xfe", "CC908", "mobile"),
    "noise": (b"\x00\xff\x12\x99" * 30, "CC908", "in a format that composecli does not know"),
    "other zip": (
        zipped(**{"model.keras": "x"}),
        "CC908",
        "zip archive that PyTorch did not write",
    ),
    "a tensor": (saved(torch.rand(3)), "CC908", "saved tensor"),
    "an object": (saved({"lr": 0.1}), "CC908", "not a module"),
    "a broken pickle": (
        zipped(**{"a/data.pkl": "\x80\x02}", "a/version": "3"}),
        "CC904",
        "damaged",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_for_what_it_is(tmp_path: Path, name: str) -> None:
    data, code, words = WRONG[name]
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    found = sniff(str(path))
    assert isinstance(found, Problem)
    assert found.code == code
    assert words in found.title
    assert found.help


def test_a_path_that_is_not_a_regular_file_is_a_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, code in (
        ("nothing.pt", "CC901"),
        (".", "CC902"),
        ("pipe", "CC902"),
        ("nul\0l", "CC901"),
    ):
        found = sniff(str(tmp_path / name))
        assert isinstance(found, Problem)
        assert found.code == code


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("scripted", ModelKind.TORCHSCRIPT),
        ("traced", ModelKind.TORCHSCRIPT),
        ("exported", ModelKind.EXPORTED),
        ("pickled", ModelKind.PICKLED),
    ],
)
def test_a_model_is_recognized_by_its_content(
    shelf: Shelf, tmp_path: Path, form: str, kind: ModelKind
) -> None:
    saved_path = shelf.save("linear", nn.Linear(10, 5), form, (torch.rand(2, 10),))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(Path(saved_path).read_bytes())
    found = sniff(str(path))
    assert isinstance(found, ModelFile)
    assert found.kind is kind


@pytest.mark.parametrize(
    "wrapper", [lambda held: held, lambda held: {"state_dict": held, "epoch": 3}]
)
def test_weights_alone_are_found_with_their_keys(tmp_path: Path, wrapper: object) -> None:
    assert callable(wrapper)
    path = tmp_path / "model.pt"
    torch.save(wrapper(nn.Linear(2, 2).state_dict()), path)
    found = sniff(str(path))
    assert isinstance(found, WeightsFile)
    assert found.keys


def test_safetensors_are_weights(tmp_path: Path) -> None:
    head = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"\0" * 4)
    found = sniff(str(path))
    assert isinstance(found, WeightsFile)


def test_stored_example_inputs_are_read(shelf: Shelf) -> None:
    traced = sniff(shelf.save("linear", nn.Linear(10, 5), "traced", (torch.rand(2, 10),)))
    resaved = sniff(shelf.save("linear", nn.Linear(10, 5), "resaved", (torch.rand(2, 10),)))
    assert isinstance(traced, ModelFile)
    assert isinstance(resaved, ModelFile)
    assert str(traced.traced) == "float32[2, 10]"
    assert resaved.traced is None


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(["scripted", "traced", "exported", "pickled"]),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    kept=st.floats(0.2, 1.0),
)
def test_a_damaged_file_is_a_problem_or_a_model_and_never_a_traceback(
    shelf: Shelf, tmp_path: Path, form: str, flips: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(
        Path(shelf.save("linear", nn.Linear(10, 5), form, (torch.rand(2, 10),))).read_bytes()
    )
    for place, value in flips:
        data[int(place * (len(data) - 1))] = value
    path = tmp_path / "damaged.pt"
    path.write_bytes(data[: int(len(data) * kept)] if kept < 0.9 else data)
    assert isinstance(sniff(str(path)), ModelFile | WeightsFile | Problem)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(["scripted", "traced", "exported", "pickled"]),
    member=st.integers(0, 40),
    edit=st.tuples(st.floats(0, 1), st.binary(max_size=6), st.integers(0, 6)),
)
def test_a_damaged_member_is_a_problem_or_a_model_and_never_a_traceback(
    shelf: Shelf, tmp_path: Path, form: str, member: int, edit: tuple[float, bytes, int]
) -> None:
    """The archive is rewritten, so that the damaged member has the right checksum."""
    source = shelf.save("linear", nn.Linear(10, 5), form, (torch.rand(2, 10),))
    place, put, gone = edit
    path = tmp_path / "damaged.pt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        names = [
            name
            for name in old.namelist()
            if name.endswith((".pkl", ".json", ".py", "archive_format"))
        ]
        for name in old.namelist():
            data = old.read(name)
            if name == names[member % len(names)]:
                start = int(place * len(data))
                data = data[:start] + put + data[start + gone :]
            new.writestr(name, data)
    assert isinstance(sniff(str(path)), ModelFile | WeightsFile | Problem)
