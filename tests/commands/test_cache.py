"""Cached answers need no worker, are the same, and never replace the safety scan."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.console import OutputOptions
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.cache_store import MAX_ENTRIES
from composecli.workers.protocol import OpenRequest, R, Request, Worker
from tests.checkpoints import OLD_FORMAT
from tests.commands.running import Composecli, Ran
from tests.models import Shelf, Table, TwoOutputs, encoder
from tests.safety.fixtures import scripted, touching
from tests.safety.test_threats import FORWARD


class Starts:
    """Starts workers in this process, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def start_worker(self, _options: OutputOptions) -> Worker:
        self.count += 1
        return InProcessWorker()


@pytest.fixture
def starts(composecli: Composecli) -> Starts:
    starts = Starts()
    composecli.start_worker = starts.start_worker
    return starts


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "composecli"


def commands(shelf: Shelf) -> list[list[str]]:
    linear, head = shelf.save("linear", nn.Linear(10, 5)), shelf.save("head_3", nn.Linear(3, 2))
    image = shelf.save("encoder", encoder())
    two = shelf.save("two_outputs", TwoOutputs())
    exported = shelf.save("linear_exported", nn.Linear(10, 5), "exported", (torch.rand(2, 10),))
    return [
        ["check", linear, head],
        ["check", linear, linear],
        ["check", image, linear, "--format", "json"],
        ["check", exported, head],
        ["check", linear, head, "--mode", "parallel"],
        ["check", linear, head, "--input", "float32[4,10]"],
        ["check", linear, head, "--strict", "--training", "train"],
        ["inspect", two],
        ["inspect", image, "--device", "meta", "--format", "json"],
        ["inspect", exported],
    ]


@pytest.mark.parametrize("number", range(10))
def test_repeated_command_prints_the_same_and_needs_no_worker(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, number: int
) -> None:
    command = commands(shelf)[number]
    uncached = composecli(*command, "--no-cache")
    first = composecli(*command)
    assert starts.count == 2
    again = composecli(*command)
    assert _without_isolation(again) == _without_isolation(first) == _without_isolation(uncached)
    assert starts.count == 2


class RefusesNaN(nn.Module):
    """Fails where the marks of slices come."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not bool(x.isnan().any())
        return self.layer(x)


def test_slices_that_cannot_be_followed_need_no_worker_again(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path
) -> None:
    model, head = (
        shelf.save("refuses_nan", RefusesNaN()),
        shelf.save("head_3", nn.Linear(3, 2)),
    )
    first = composecli("check", model, head)
    assert composecli("check", model, head) == first
    assert starts.count == 1


def _without_isolation(ran: Ran) -> Any:
    """Return what a command printed; no process had to be isolated if all answers are cached."""
    if not ran.out.startswith("{"):
        return ran
    return (ran.code, ran.err, {**ran.json, "isolation": None})


def _quantized(shelf: Shelf) -> str:
    """Save a model that cannot be loaded on the meta device."""
    with warnings.catch_warnings(action="ignore"):
        module = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(10, 3)), {nn.Linear}
        )
        return shelf.save("quantized", module)


def test_contract_that_was_not_found_is_searched_again(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path
) -> None:
    linear, head = shelf.save("linear", nn.Linear(10, 5)), shelf.save("head_3", nn.Linear(3, 2))
    for count in (1, 2):
        assert composecli("check", linear, head, "--input", "float64[2,10]").code == 1
        assert starts.count == count


def test_model_that_cannot_be_opened_does_not_shift_the_numbers_of_others(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path
) -> None:
    head = shelf.save("head_3", nn.Linear(3, 2))
    command = ["check", _quantized(shelf), head, "--device", "meta"]
    uncached = composecli(*command, "--no-cache")
    assert composecli(*command) == composecli(*command) == uncached


def test_join_of_cached_models_is_built_and_verified(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    linear, head = shelf.save("linear", nn.Linear(10, 5)), shelf.save("head_5", nn.Linear(5, 2))
    for name in ("one.pt", "other.pt"):
        joined = composecli.json("join", linear, head, "-o", tmp_path / name)
        assert joined.code == 0
        assert all(check["passed"] for check in joined.json["written"]["checks"])
    assert starts.count == 2


def test_other_content_under_the_same_name_is_another_file(
    composecli: Composecli, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    for module in (nn.Linear(10, 5), nn.Linear(11, 5), nn.Linear(10, 5).double()):
        torch.jit.script(module).save(str(path))
        report = composecli.json("inspect", path)
        width, dtype = module.in_features, str(module.weight.dtype).removeprefix("torch.")
        assert report.json["model"]["contract"]["text"] == f"{dtype}[N, {width}] -> {dtype}[N, 5]"
    assert starts.count == 3


def test_same_content_under_another_name_is_the_same_file(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    first = shelf.save("linear", nn.Linear(10, 5))
    shutil.copy(first, tmp_path / "copy.pt")
    one, other = composecli("inspect", first), composecli("inspect", tmp_path / "copy.pt")
    assert one.out.replace(first, "X").split("layer")[1] == other.out.split("layer")[1]
    assert starts.count == 1


class Heavy(Table):
    """A model that is loaded whole if it is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(5, 60_000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, self.table] @ self.weight


def _frozen(module: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.freeze(torch.jit.script(module.eval()))


@pytest.mark.parametrize(
    ("make", "module"),
    [(torch.jit.script, Table()), (_frozen, Table()), (_frozen, Heavy())],
    ids=["read for an op", "a constant", "loaded whole"],
)
def test_answer_that_depends_on_tensor_values_needs_the_same_values(
    composecli: Composecli,
    starts: Starts,
    folder: Path,
    tmp_path: Path,
    make: Callable[..., Any],
    module: nn.Module,
) -> None:
    """The checksums of the archive do not count: another file may have the same ones."""
    path = tmp_path / "model.pt"
    make(module).save(str(path))
    first = composecli("inspect", path, "--input", "2,5")
    assert (first.code, starts.count) == (0, 1)
    assert composecli("inspect", path, "--input", "2,5") == first
    assert starts.count == 1
    old = torch.arange(5).numpy().tobytes()
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, torch.arange(100, 105).numpy().tobytes()))
    other = composecli("inspect", path, "--input", "2,5")
    assert (other.code, starts.count) == (3, 2)
    assert other == composecli("inspect", path, "--input", "2,5", "--no-cache")


def test_known_file_is_scanned_again(
    composecli: Composecli, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(scripted(FORWARD.format("torch.save(x, 'marker')"), tmp_path / "marker"))
    for _ in range(2):
        assert composecli("inspect", path).code == 3
    path.write_bytes(touching(tmp_path / "marker"))
    assert composecli("inspect", path).code == 3


def test_trusted_file_runs_each_time(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path
) -> None:
    path = shelf.save("linear", nn.Linear(10, 5), "pickled")
    for _ in range(2):
        assert composecli("inspect", path, "--trust", path).code == 0
    assert starts.count == 2


@pytest.mark.parametrize(
    "damage", ["", "{", '{"key": 1}', '{"key": null, "value": []}', "nonsense", "[" * 100_000]
)
def test_damaged_entries_are_ignored(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, damage: str
) -> None:
    linear, head = shelf.save("linear", nn.Linear(10, 5)), shelf.save("head_3", nn.Linear(3, 2))
    first = composecli("check", linear, head)
    for entry in folder.iterdir():
        entry.write_text(damage)
    assert composecli("check", linear, head) == first
    assert starts.count == 2


def test_answers_of_another_form_are_ignored(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path
) -> None:
    linear, head = shelf.save("linear", nn.Linear(10, 5)), shelf.save("head_3", nn.Linear(3, 2))
    first = composecli("check", linear, head)
    for path in folder.iterdir():
        entry = json.loads(path.read_text())
        if isinstance(entry["value"], dict):
            answer = {"type": "Accepted", "results": 3}
            entry["value"] = dict.fromkeys(entry["value"], answer)
            path.write_text(json.dumps(entry))
    assert composecli("check", linear, head) == first
    assert starts.count == 2


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX file modes")
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707])
def test_folder_that_others_may_write_to_is_not_used(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, mode: int
) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    composecli("inspect", path)
    folder.chmod(mode)
    before = sorted(folder.iterdir())
    composecli("inspect", path)
    assert starts.count == 2
    assert sorted(folder.iterdir()) == before


def test_link_in_place_of_the_folder_is_not_followed(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert composecli("inspect", shelf.save("linear", nn.Linear(10, 5))).code == 0
    assert not list((tmp_path / "elsewhere").iterdir())


def test_commands_work_without_a_writable_folder(
    composecli: Composecli, shelf: Shelf, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    for _ in range(2):
        assert composecli("inspect", shelf.save("linear", nn.Linear(10, 5))).code == 0
    assert starts.count == 2
    assert composecli("cache", "clear").code == 0


def test_old_entries_are_removed_before_new_ones_are_written(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path
) -> None:
    folder.mkdir(mode=0o700, parents=True)
    for number in range(MAX_ENTRIES + 1):
        (folder / f"{number:064}.json").touch()
    path = shelf.save("linear", nn.Linear(10, 5))
    first = composecli("inspect", path)
    assert len(list(folder.iterdir())) < MAX_ENTRIES
    assert composecli("inspect", path) == first
    assert starts.count == 1


def test_cache_clear_removes_all_entries_and_counts_them(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path
) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    composecli("inspect", path)
    count = len(list(folder.iterdir()))
    (folder / ".0123456789abcdef").write_text("half an entry, from a run that was killed")
    assert composecli("cache", "clear").out == f"removed {count} entries from {folder}\n"
    assert not list(folder.iterdir())
    composecli("inspect", path)
    assert starts.count == 2


def test_a_file_in_the_old_format_is_cached_by_its_content(
    composecli: Composecli, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "old.pt"
    torch.save(nn.Sequential(nn.Linear(4, 3)), path, **OLD_FORMAT)
    first = composecli("inspect", path)
    assert first.code == 0
    assert composecli("inspect", path) == first
    assert starts.count == 1
    torch.save(nn.Sequential(nn.Linear(4, 3)), path, **OLD_FORMAT)
    assert composecli("inspect", path) == first
    assert starts.count == 2
    joined = composecli("join", path, path, "--mode", "parallel", "-o", tmp_path / "both.pt")
    assert joined.code == 0, joined.err


def test_file_without_checksums_is_not_cached(
    composecli: Composecli, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        torch.save(nn.Linear(10, 5), path)
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)
    for _ in range(2):
        assert composecli("inspect", path).code == 0
    assert starts.count == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes exist only on POSIX")
def test_pipe_in_place_of_a_model_does_not_block(
    composecli: Composecli, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    assert composecli("inspect", tmp_path / "pipe.pt").code == 3


class _Replacing(InProcessWorker):
    """Replaces the file just before it opens it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def ask(self, request: Request[R]) -> R:
        if isinstance(request, OpenRequest):
            torch.jit.script(nn.Linear(11, 5)).save(str(self.path))
        return super().ask(request)


def test_file_that_changes_during_the_command_is_not_cached(
    composecli: Composecli, folder: Path, tmp_path: Path
) -> None:
    """Its fingerprint is that of the old content, and its answers are about the new content."""
    path = tmp_path / "model.pt"
    torch.jit.script(nn.Linear(10, 5)).save(str(path))
    composecli.start_worker = lambda _: _Replacing(path)
    report = composecli.json("inspect", path)
    assert report.json["model"]["contract"]["text"] == "float32[N, 11] -> float32[N, 5]"
    folder.mkdir(exist_ok=True)
    assert not any(b"Accepted" in entry.read_bytes() for entry in folder.iterdir())
