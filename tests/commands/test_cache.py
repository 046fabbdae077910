"""What was seen before is answered without a worker, says the same, and is never trusted for more than speed."""

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

from composecli.workers import child
from composecli.workers.cache_store import MOST_ENTRIES, Cache
from composecli.workers.caching import CachingWorker
from composecli.workers.protocol import Opened, OpenRequest
from tests.commands.running import Composecli
from tests.models import Shelf, Table, TwoOutputs, encoder
from tests.safety.fixtures import scripted, touching
from tests.safety.test_threats import FORWARD


class Starts:
    """How many workers were started, and what they did."""

    def __init__(self) -> None:
        self.count = 0


@pytest.fixture
def starts(composecli: Composecli, monkeypatch: pytest.MonkeyPatch) -> Starts:
    found, usual = Starts(), child.SubprocessWorker

    def start(*words: object, **options: object) -> object:
        found.count += 1
        return usual(*words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(child, "SubprocessWorker", start)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "composecli"


def words(shelf: Shelf) -> list[list[str]]:
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
        ["check", linear, head, "--input", "float64[2,10]"],
        ["check", linear, head, "--strict", "--training", "train"],
        ["inspect", two],
        ["inspect", image, "--device", "meta", "--format", "json"],
        ["inspect", exported],
    ]


@pytest.mark.parametrize("number", range(10))
def test_the_second_answer_is_the_first_and_needs_no_worker(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, number: int
) -> None:
    asked = words(shelf)[number]
    fresh = composecli(*asked, "--no-cache")
    first = composecli(*asked)
    assert starts.count == 2
    assert composecli(*asked) == first == fresh
    assert starts.count == 2


def _quantized(shelf: Shelf) -> str:
    """A model that cannot be had on meta."""
    with warnings.catch_warnings(action="ignore"):
        module = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(10, 3)), {nn.Linear}
        )
        return shelf.save("quantized", module)


def test_a_model_that_cannot_be_opened_as_asked_keeps_the_others_in_order(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path
) -> None:
    asked = ["check", _quantized(shelf), shelf.save("head_3", nn.Linear(3, 2)), "--device", "meta"]
    fresh = composecli(*asked, "--no-cache")
    assert composecli(*asked) == composecli(*asked) == fresh


def test_a_join_of_known_models_is_built_and_verified(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    linear, head = shelf.save("linear", nn.Linear(10, 5)), shelf.save("head_5", nn.Linear(5, 2))
    for name in ("one.pt", "other.pt"):
        joined = composecli.json("join", linear, head, "-o", tmp_path / name)
        assert joined.code == 0
        assert all(check["passed"] for check in joined.json["written"]["checks"])
    assert starts.count == 2


def test_another_content_under_the_same_name_is_another_file(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    for module in (nn.Linear(10, 5), nn.Linear(11, 5), nn.Linear(10, 5).double()):
        torch.jit.script(module).save(str(path))
        found = composecli.json("inspect", path)
        width, dtype = module.in_features, str(module.weight.dtype).removeprefix("torch.")
        assert found.json["model"]["contract"]["text"] == f"{dtype}[N, {width}] -> {dtype}[N, 5]"
    assert starts.count == 3


def test_the_same_content_under_another_name_is_known(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    first = shelf.save("linear", nn.Linear(10, 5))
    shutil.copy(first, tmp_path / "copy.pt")
    one, other = composecli("inspect", first), composecli("inspect", tmp_path / "copy.pt")
    assert one.out.replace(first, "X").split("layer")[1] == other.out.split("layer")[1]
    assert starts.count == 1


class Heavy(Table):
    """It is loaded whole when it is frozen."""

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
def test_values_that_an_answer_rests_on_have_to_be_the_same(
    composecli: Composecli,
    shelf: Shelf,
    starts: Starts,
    folder: Path,
    tmp_path: Path,
    make: Callable[..., Any],
    module: nn.Module,
) -> None:
    """Not what the directory says of them: another's file may have the checksums of this one."""
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


def test_a_known_file_is_judged_all_the_same(
    composecli: Composecli, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(scripted(FORWARD.format("torch.save(x, 'marker')"), tmp_path / "marker"))
    for _ in range(2):
        assert composecli("inspect", path).code == 3
    path.write_bytes(touching(tmp_path / "marker"))
    assert composecli("inspect", path).code == 3


def test_what_is_trusted_is_run_each_time(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path
) -> None:
    path = shelf.save("linear", nn.Linear(10, 5), "pickled")
    for _ in range(2):
        assert composecli("inspect", path, "--trust", path).code == 0
    assert starts.count == 2


@pytest.mark.parametrize(
    "damage", ["", "{", '{"key": 1}', '{"key": null, "value": []}', "nonsense", "[" * 100_000]
)
def test_a_damaged_entry_is_as_if_it_were_not_there(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, damage: str
) -> None:
    asked = ["check", shelf.save("linear", nn.Linear(10, 5)), shelf.save("head_3", nn.Linear(3, 2))]
    first = composecli(*asked)
    for entry in folder.iterdir():
        entry.write_text(damage)
    assert composecli(*asked) == first
    assert starts.count == 2


def test_an_answer_of_another_form_is_as_if_it_were_not_there(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path
) -> None:
    asked = ["check", shelf.save("linear", nn.Linear(10, 5)), shelf.save("head_3", nn.Linear(3, 2))]
    first = composecli(*asked)
    for entry in folder.iterdir():
        held = json.loads(entry.read_text())
        if isinstance(held["value"], dict):
            held["value"] = {
                question: {"type": "Accepted", "results": 3} for question in held["value"]
            }
            entry.write_text(json.dumps(held))
    assert composecli(*asked) == first
    assert starts.count == 2


@pytest.mark.skipif(sys.platform == "win32", reason="the modes of POSIX")
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707])
def test_a_folder_that_others_may_write_to_is_not_used(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, mode: int
) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    composecli("inspect", path)
    folder.chmod(mode)
    before = sorted(folder.iterdir())
    composecli("inspect", path)
    assert starts.count == 2
    assert sorted(folder.iterdir()) == before


def test_a_link_in_the_place_of_the_folder_is_not_followed(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert composecli("inspect", shelf.save("linear", nn.Linear(10, 5))).code == 0
    assert not list((tmp_path / "elsewhere").iterdir())


def test_where_nothing_can_be_kept_everything_works(
    composecli: Composecli, shelf: Shelf, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    for _ in range(2):
        assert composecli("inspect", shelf.save("linear", nn.Linear(10, 5))).code == 0
    assert starts.count == 2
    assert composecli("cache", "clear").code == 0


def test_a_write_that_fails_leaves_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put("key", 1)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    cache.put("other", 2)
    assert cache.get("key") == 1
    assert cache.get("other") is None
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_another_version_of_anything_finds_nothing(tmp_path: Path) -> None:
    Cache(tmp_path / "cache", "1").put("key", 1)
    assert Cache(tmp_path / "cache", "1").get("key") == 1
    assert Cache(tmp_path / "cache", "2").get("key") is None


def test_there_is_an_end_to_what_is_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put(0, 0)
    for number in range(MOST_ENTRIES + 1):
        (tmp_path / "cache" / f"{number:064}.json").touch()
    cache.make_room()
    cache.put("last", 1)
    assert cache.get("last") == 1
    assert len(list((tmp_path / "cache").iterdir())) < MOST_ENTRIES


def test_room_is_made_before_more_is_learned(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path
) -> None:
    folder.mkdir(mode=0o700, parents=True)
    for number in range(MOST_ENTRIES + 1):
        (folder / f"{number:064}.json").touch()
    path = shelf.save("linear", nn.Linear(10, 5))
    first = composecli("inspect", path)
    assert len(list(folder.iterdir())) < MOST_ENTRIES
    assert composecli("inspect", path) == first
    assert starts.count == 1


def test_clear_forgets_and_says_how_much(
    composecli: Composecli, shelf: Shelf, starts: Starts, folder: Path
) -> None:
    path = shelf.save("linear", nn.Linear(10, 5))
    composecli("inspect", path)
    count = len(list(folder.iterdir()))
    (folder / ".0123456789abcdef").write_text("half of an entry, of a run that was killed")
    assert composecli("cache", "clear").out == f"removed {count} entries from {folder}\n"
    assert not list(folder.iterdir())
    composecli("inspect", path)
    assert starts.count == 2


def test_a_file_without_checksums_is_not_known_by_its_directory(
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_a_pipe_in_the_place_of_a_model_is_not_waited_for(
    composecli: Composecli, starts: Starts, folder: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    assert composecli("inspect", tmp_path / "pipe.pt").code == 3


def test_a_file_that_changes_meanwhile_is_not_remembered(
    composecli: Composecli,
    starts: Starts,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is known by what it was, and opened as what it is by then."""
    path = tmp_path / "model.pt"
    torch.jit.script(nn.Linear(10, 5)).save(str(path))
    first = path.read_bytes()
    usual = CachingWorker.open

    def late(self: CachingWorker, request: OpenRequest) -> Opened:
        torch.jit.script(nn.Linear(11, 5)).save(str(path))
        return usual(self, request)

    monkeypatch.setattr(CachingWorker, "open", late)
    assert (
        composecli.json("inspect", path).json["model"]["contract"]["text"]
        == "float32[N, 11] -> float32[N, 5]"
    )
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent))
    path.write_bytes(first)
    Path(folder).mkdir(exist_ok=True)
    assert not any(b"Accepted" in entry.read_bytes() for entry in folder.iterdir())
