"""Many commands at a time share one cache, and a broken cache does not matter to the answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch import nn

from tests.commands.running import environment
from tests.models import Shelf

SCRIPT = Path(sys.executable).with_name("composecli")
AT_A_TIME = 8


def _check(pair: tuple[str, str], base: Path, *, prefix: str = "") -> tuple[int, str]:
    """Run the installed command with a cache below `base`; return its code and its verdict."""
    command = ["bash", "-c", f'{prefix} exec "$@"', "bash", str(SCRIPT), "check", *pair]
    ran = subprocess.run(
        [*command, "--format", "json", "--max-seconds", "60"],
        capture_output=True,
        text=True,
        env={**environment(), "XDG_CACHE_HOME": str(base)},
        timeout=300,
        check=False,
    )
    assert ran.stderr == ""
    return ran.returncode, json.loads(ran.stdout)["verdict"]


@pytest.fixture
def pairs(shelf: Shelf) -> dict[tuple[str, str], tuple[int, str]]:
    """Pairs of models, and the right answer about each."""
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("five", nn.Linear(5, 2))
    c = shelf.save("three", nn.Linear(3, 2))
    return {(a, b): (0, "compatible"), (a, c): (1, "bridgeable"), (b, c): (1, "bridgeable")}


def _stress(pairs: dict[tuple[str, str], tuple[int, str]], base: Path, count: int) -> None:
    """Run the command many times on one cache; every answer is right and every entry whole."""
    chosen = [list(pairs)[number % len(pairs)] for number in range(count)]
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        answers = list(threads.map(lambda pair: _check(pair, base), chosen))
    assert answers == [pairs[pair] for pair in chosen]
    folder = base / "composecli"
    for entry in folder.iterdir():
        assert "key" in json.loads(entry.read_text())


def test_commands_at_the_same_time_share_a_cache(
    pairs: dict[tuple[str, str], tuple[int, str]], tmp_path: Path
) -> None:
    _stress(pairs, tmp_path, 20)


@pytest.mark.long
def test_many_commands_at_the_same_time_share_a_cache(
    pairs: dict[tuple[str, str], tuple[int, str]], tmp_path: Path
) -> None:
    _stress(pairs, tmp_path, 200)


def _truncate(folder: Path) -> None:
    for entry in folder.iterdir():
        os.truncate(entry, entry.stat().st_size // 2)


def _fill_with_garbage(folder: Path) -> None:
    for entry in folder.iterdir():
        entry.write_bytes(bytes(range(256)) * 9)


def _nest(folder: Path) -> None:
    for entry in folder.iterdir():
        entry.write_text("[" * 200_000)


def _replace_by_folders(folder: Path) -> None:
    for entry in list(folder.iterdir()):
        entry.unlink()
        entry.mkdir()


def _empty_values(folder: Path) -> None:
    for entry in folder.iterdir():
        stored = json.loads(entry.read_text())
        entry.write_text(json.dumps({**stored, "value": {"open": {"answer": {}, "contents": []}}}))


def _link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def _replace_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def _open_to_others(folder: Path) -> None:
    folder.chmod(0o777)


def _give_away(folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(folder, 65534, 65534)


def _swap(folder: Path) -> None:
    """Give each entry the content of another, which is whole but answers something else."""
    entries = sorted(folder.iterdir())
    contents = [entry.read_bytes() for entry in entries]
    for entry, content in zip(entries, [*contents[1:], contents[0]], strict=True):
        entry.write_bytes(content)


DAMAGES: tuple[Callable[[Path], None], ...] = (
    _truncate,
    _fill_with_garbage,
    _nest,
    _replace_by_folders,
    _empty_values,
    _link,
    _replace_by_a_file,
    _open_to_others,
    _give_away,
    _swap,
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a cache was filled once."""
    return tmp_path_factory.mktemp("filled")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_damaged_cache_does_not_matter(
    pairs: dict[tuple[str, str], tuple[int, str]],
    filled: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
) -> None:
    pair, answer = next(iter(pairs.items()))
    if not (filled / "composecli").exists():
        assert _check(pair, filled) == answer
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "composecli")
    assert _check(pair, tmp_path) == answer


def test_cache_that_takes_no_more_does_not_matter(
    pairs: dict[tuple[str, str], tuple[int, str]], tmp_path: Path
) -> None:
    """No file may grow beyond a kilobyte, as on a disk that is nearly full."""
    pair, answer = next(iter(pairs.items()))
    for _ in range(2):
        assert _check(pair, tmp_path, prefix="ulimit -f 1;") == answer
    for entry in (tmp_path / "composecli").iterdir():
        json.loads(entry.read_text())
