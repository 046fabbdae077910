"""Hostile files of many kinds, by the installed command with the lock and without, and in Python.

Each ends in a refusal with its rule. Nothing in it runs, and nothing is left behind.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from composecli import inspect
from composecli.core.errors import CouldNotAttempt
from tests.commands.running import Composecli, Installed, Ran, environment
from tests.safety.fixtures import (
    MODULE,
    exported,
    in_json,
    linear,
    rewritten,
    saved,
    script_archive,
    script_object,
)
from tests.safety.hostile_pickles import pickle_with
from tests.safety.kernels import SCRIPT
from tests.safety.test_compiling import OTHERS, RECORD, SOURCES, VALUES
from tests.safety.test_exported_threats import EDITS, PROGRAM, TEXTS, edited
from tests.safety.test_module_states import STATES, Posing

MAX_SECONDS = 30
MAX_OUTPUT = 200_000
UNSAFE = ("CC926",)
DAMAGED = ("CC904",)


class Hostile(NamedTuple):
    """A hostile file that is made for the path of a marker, and the codes that may refuse it."""

    make: Callable[[Path], bytes]
    codes: tuple[str, ...]


def source(name: str) -> Hostile:
    return Hostile(
        lambda marker: script_archive(SOURCES[name].replace("MARK", str(marker))), UNSAFE
    )


def value(name: str, *codes: str) -> Hostile:
    def make(_: Path) -> bytes:
        code, values = VALUES[name]
        model = script_object("Model", {"training": b"\x89", **values})
        return script_archive(code, model, more=RECORD)

    return Hostile(make, codes or UNSAFE)


def program(name: str) -> Hostile:
    def make(marker: Path) -> bytes:
        return rewritten(exported(), {PROGRAM: edited(EDITS[name], marker.parent)})

    return Hostile(make, UNSAFE)


def json_text(name: str) -> Hostile:
    return Hostile(lambda _: rewritten(exported(), {PROGRAM: TEXTS[name]}), DAMAGED)


def with_member(data: bytes, name: str, content: bytes) -> bytes:
    """Return the archive with a member at its end, wherever its folder is."""
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def header_at(place: int) -> bytes:
    """Return an archive whose directory says that the header of a member is there."""
    file = io.BytesIO(saved(nn.Linear(3, 2)))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/more", b"")
        archive.infolist()[0].header_offset = place
    return file.getvalue()


def claiming(size: int) -> bytes:
    """Return an archive of which both headers of some code claim this unpacked size."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\x80\x02N.", zipfile.ZIP_STORED)
        archive.writestr("model/constants.pkl", b"\x80\x02).", zipfile.ZIP_STORED)
        info = zipfile.ZipInfo("model/code/__torch__.py")
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w", force_zip64=True) as member:
            member.write(bytes(30_000_000))
        info.file_size = size
    real, claimed = struct.pack("<Q", 30_000_000), struct.pack("<Q", size)
    return file.getvalue().replace(real, claimed)


def state(items: bytes) -> bytes:
    """Return a checkpoint of a Linear whose state has these opcodes as a further entry."""
    return rewritten(
        saved(nn.Linear(3, 2)),
        {"data.pkl": lambda data: data.replace(b"X\x08\x00\x00\x00training", items, 1)},
    )


def pickled(value: str, place: str) -> bytes:
    """Return a checkpoint with a value that is hard to write out."""
    return rewritten(saved({"a": torch.ones(16)}), {"data.pkl": pickle_with(value, place)})


def nested_keys(_: Path) -> bytes:
    """Return a state dict with a key of 26 tuples that each hold the next one twice."""
    key = b")" + b"q\x00h\x00\x86" * 26
    return rewritten(saved({"a": torch.ones(2)}), {"data.pkl": b"\x80\x02}" + key + b"K\x01s."})


def beyond(_: Path) -> bytes:
    """Return a module with a weight that leaves its record."""
    return rewritten(
        saved(nn.Linear(3, 2)),
        {"data.pkl": lambda data: data.replace(b"K\x02K\x03\x86", b"M\xff\x7fK\x03\x86", 1)},
    )


def through_the_memo(_: Path) -> bytes:
    """Return a module like that, whose weights are rebuilt by a function from the memo."""
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"

    def indirect(data: bytes) -> bytes:
        longer = data.replace(b"K\x02K\x03\x86", b"M\xff\x7fK\x03\x86", 1)
        return longer.replace(rebuild, rebuild + b"r\x00\x00\x00\x700j\x00\x00\x00\x70", 1)

    return rewritten(saved(nn.Linear(3, 2)), {"data.pkl": indirect})


def deep_expression(_: Path) -> bytes:
    def change(parsed: Any) -> None:
        for tensor in parsed["graph_module"]["graph"]["tensor_values"].values():
            for size in tensor["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = "(" * 20_000 + "1" + ")" * 20_000

    return rewritten(exported(), {PROGRAM: in_json(change)})


def long_size(_: Path) -> bytes:
    """Return an export whose weights have a size of 5,000 digits."""
    long = b'"sizes": [{"as_int": ' + b"9" * 5000 + b"}"
    index = "model_weights_config.json"
    return rewritten(
        exported(), {index: lambda data: data.replace(b'"sizes": [{"as_int": 2}', long, 1)}
    )


HOSTILE = {
    "1: a default value that writes": source("a default value"),
    "1: a default value that reads": source("a default value that reads"),
    "1: a class constant that writes": source("a class constant that saves"),
    "2: a source in other letters": Hostile(
        lambda _: script_archive(MODULE, more=OTHERS["a source in other letters"]), UNSAFE
    ),
    "2: a function that torch does not know": value("a function that torch does not know"),
    "2: a storage of no dtype": value("a storage of no dtype"),
    "3: TorchScript with two roots": Hostile(
        lambda marker: with_member(linear(marker.parent), "other/data.pkl", b"\x80\x02N."), DAMAGED
    ),
    "3: a module with two roots": Hostile(
        lambda _: with_member(saved(nn.Linear(3, 2)), "other/data.pkl", b"\x80\x02N."), DAMAGED
    ),
    "3: an export with two roots": Hostile(
        lambda _: with_member(exported(), "other/models/model.json", b"{}"), DAMAGED
    ),
    "4: a shared library": program("a shared library"),
    "4: the environment": program("the environment as a key"),
    "4: an enum": program("an enum in a tuple"),
    "4: a factory": program("a factory"),
    "4: a fresh size": program("a function of torch that computes nothing"),
    "4: UTF-16": json_text("UTF-16"),
    "4: a mark of the byte order": json_text("a mark of the byte order"),
    "4: the same key twice": json_text("the same key twice"),
    "4: NaN": json_text("NaN"),
    "8: a tensor beyond its record": Hostile(beyond, ("CC927",)),
    "8: the same by a function from the memo": Hostile(through_the_memo, ("CC927",)),
    "8: the same by a function that is a number": value("a function that is a number"),
    "8: a state that is a list": Hostile(
        lambda _: saved(Posing(STATES["a list of pairs"])), ("CC908", "CC909", "CC910")
    ),
    "9: a header at 2^63": Hostile(lambda _: header_at(2**63), DAMAGED),
    "9: a header at 2^64 - 1": Hostile(lambda _: header_at(2**64 - 1), DAMAGED),
    "9: code that claims 3 GB": Hostile(lambda _: claiming(3 * 10**9), DAMAGED),
    "9: code that claims 8 GB": Hostile(lambda _: claiming(8 * 10**9), DAMAGED),
    "9: a size of 5,000 digits": Hostile(long_size, DAMAGED),
    "9: a name of 5,000 digits": Hostile(
        lambda _: pickled("a long integer", "the name of a submodule"), DAMAGED
    ),
    "9: lists that share their items": Hostile(
        lambda _: pickled("shared lists", "an attribute"), ("CC909", "CC910")
    ),
    "9: an object 1,200 deep": Hostile(
        lambda _: pickled("a deep object", "a function beside a weight"), ("CC907",)
    ),
    "9: an expression 20,000 deep": Hostile(deep_expression, UNSAFE),
    "9: a key of 26 tuples": Hostile(nested_keys, DAMAGED),
    "9: a tower of powers": program("a tower of powers in a guard"),
}


def check_refused(ran: Ran, codes: tuple[str, ...], folder: Path, content: bytes) -> None:
    """Check that a command has refused the only file of a folder, and changed nothing."""
    output = ran.out + ran.err
    assert ran.code == 3, output
    assert any(f"[{code}]" in output for code in codes), output
    assert "Traceback" not in output
    assert len(output) < MAX_OUTPUT
    assert os.listdir(folder) == ["model"]
    assert (folder / "model").read_bytes() == content


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_the_lock_and_without(
    tmp_path: Path, installed: Installed, composecli: Composecli, name: str
) -> None:
    folder, marker = tmp_path / "folder", tmp_path / "marker"
    folder.mkdir()
    content = HOSTILE[name].make(marker)
    path = folder / "model"
    path.write_bytes(content)
    marker.unlink(missing_ok=True)
    for run in (installed, composecli):
        start = time.monotonic()
        ran = run("inspect", path, "--isolation", "none" if run is composecli else "best")
        assert time.monotonic() - start < MAX_SECONDS
        check_refused(ran, HOSTILE[name].codes, folder, content)
        assert not marker.exists()
    with pytest.raises(CouldNotAttempt) as caught:
        inspect(path)
    assert caught.value.problem.code in HOSTILE[name].codes
    assert not marker.exists()


VIEWS = {
    "a view": "torch._reshape_alias(x, [400, 250], [250, 1]) + 1",
    "strides": "torch.as_strided(x, [400, 250], [250, 1], 0) + 1",
    "strides written to": "torch.as_strided_scatter(x, x, [400, 250], [250, 1], 0) + 1",
}


@pytest.mark.parametrize("isolation", ["best", "none"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_forward_does_not_leave_its_memory(
    tmp_path: Path, installed: Installed, name: str, isolation: str
) -> None:
    path = tmp_path / "model"
    path.write_bytes(script_archive(MODULE.replace("torch.mul(x, 2)", VIEWS[name])))
    ran = installed("inspect", path, "--input", "2,2", "--isolation", isolation)
    check_refused(ran, ("CC310",), tmp_path, path.read_bytes())
    words = " ".join((ran.out + ran.err).split())
    assert "an op was called with a view beyond its tensors' memory" in words


@pytest.mark.parametrize("isolation", ["best", "none"])
@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_a_model_that_prints_does_not_reach_the_report(
    tmp_path: Path, closed: str, isolation: str
) -> None:
    """With a stream closed, the channel to the child could get its number."""
    path = tmp_path / "model"
    path.write_bytes(
        script_archive(MODULE.replace("    return", '    print("hostile")\n    return'))
    )
    line = f"{SCRIPT} inspect {path} --input 2,2 --isolation {isolation} --format json {closed}"
    ran = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=environment(), check=False
    )
    assert ran.returncode in (0, 3), ran.stderr
    assert json.loads(ran.stdout)["exit_code"] == ran.returncode
    assert "hostile" not in ran.stdout
    assert os.listdir(tmp_path) == ["model"]
