"""The cache keeps values safely, and its key covers everything that can change an answer.

Tests of the key work on a copy of the package, in a Python of its own, and without torch: if the
code changes and the key does not, a new version of composecli would serve the answers of an old
one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import composecli
from composecli.workers.cache_store import MAX_ENTRIES, Cache, default_folder

PACKAGE = Path(composecli.__file__).parent
CODE_SUFFIXES = (".py", ".txt")
PRINT_KEY = """
from pathlib import Path
from composecli.workers.cache_store import Cache
print(Cache(Path("unused")).versions)
"""
# Print the files that can be lengthened by a byte without changing the key.
PRINT_UNCOVERED = """
import sys
from pathlib import Path
from composecli.workers.cache_store import Cache

for name in sys.argv[1:]:
    before = Cache(Path("unused")).versions
    with open(name, "ab") as file:
        file.write(b"#")
    if Cache(Path("unused")).versions == before:
        print(name)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, with the folder above it ready to be put on Python's path."""
    copy = tmp_path / "site" / "composecli"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def run_beside(package: Path, code: str, *arguments: str) -> str:
    """Return what `code` prints when it imports this copy of the package."""
    completed = subprocess.run(
        [sys.executable, "-B", "-c", code, *arguments],
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return completed.stdout


def code_files(package: Path) -> list[Path]:
    """Return every file of the package that holds code or the list of allowed ops."""
    return sorted(path for path in package.rglob("*") if path.suffix in CODE_SUFFIXES)


def test_every_code_file_is_part_of_the_key(package: Path) -> None:
    files = code_files(package)
    assert package / "files" / "safety" / "ops.txt" in files
    assert package / "runtime" / "forward" / "run.py" in files
    assert run_beside(package, PRINT_UNCOVERED, *map(str, files)) == ""


@pytest.mark.parametrize("name", ["new_room/rule.py", "runtime/new_room/deep/rule.py", "ops.txt"])
def test_adding_a_file_anywhere_changes_the_key(package: Path, name: str) -> None:
    before = run_beside(package, PRINT_KEY)
    assert run_beside(package, PRINT_KEY) == before
    (package / name).parent.mkdir(parents=True, exist_ok=True)
    (package / name).write_text("")
    assert run_beside(package, PRINT_KEY) != before


def test_changing_a_file_without_changing_its_size_changes_the_key(package: Path) -> None:
    before = run_beside(package, PRINT_KEY)
    path = package / "core" / "dims.py"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b" ")
    assert run_beside(package, PRINT_KEY) != before


def test_values_are_found_by_their_key(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", "1")
    assert cache.get(("a", 1)) is None
    cache.put(("a", 1), {"b": [1, None]})
    cache.put(("a", 2), "other")
    assert cache.get(("a", 1)) == {"b": [1, None]}
    assert cache.get(("a", 2)) == "other"


def test_failed_write_leaves_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache", "1")
    cache.put("key", 1)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    cache.put("other", 2)
    assert cache.get("key") == 1
    assert cache.get("other") is None
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_other_versions_have_other_entries(tmp_path: Path) -> None:
    Cache(tmp_path / "cache", "1").put("key", 1)
    assert Cache(tmp_path / "cache", "1").get("key") == 1
    assert Cache(tmp_path / "cache", "2").get("key") is None


def test_number_of_entries_is_limited(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", "1")
    cache.put(0, 0)
    for number in range(MAX_ENTRIES + 1):
        (tmp_path / "cache" / f"{number:064}.json").touch()
    cache.make_room()
    cache.put("last", 1)
    assert cache.get("last") == 1
    assert len(list((tmp_path / "cache").iterdir())) < MAX_ENTRIES


def test_clear_removes_entries_and_temporary_files_only(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "1")
    tmp_path.chmod(0o700)
    for number in range(3):
        cache.put(number, number)
    (tmp_path / ".0123456789abcdef").touch()
    (tmp_path / "notes.txt").touch()
    assert cache.clear() == 3
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="the folder of Linux")
def test_folder_follows_the_xdg_convention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert default_folder() == Path("/elsewhere/composecli")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_folder() == Path("/home/me/.cache/composecli")
