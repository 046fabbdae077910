"""The pure half of the package: it needs neither torch nor the libraries of the command line."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "composecli"
DIMS = frozenset(("Fixed", "Free", "Derived", "Unknown"))

# Imports the rooms and collects their tests, with any import of the libraries made an error.
COLLECT = """
import pkgutil, sys
import pytest

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in LIBRARIES:
            raise ImportError(f"the pure half imports {name}")

LIBRARIES = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Refuse())
for room in sys.argv[2].split(","):
    package = __import__(f"composecli.{room}", fromlist=["__path__"])
    for module in pkgutil.walk_packages(package.__path__, f"composecli.{room}."):
        __import__(module.name)
options = ["-q", "--collect-only", "-p", "no:xdist", "-p", "no:cacheprovider"]
sys.exit(pytest.main([*options, *sys.argv[3:]]))
"""


@pytest.mark.parametrize(
    ("rooms", "libraries"),
    [(("core", "compose", "inference"), ("torch", "click", "rich")), (("report",), ("torch",))],
)
def test_pure_rooms_and_their_tests_do_not_import_these_libraries(
    rooms: tuple[str, ...], libraries: tuple[str, ...]
) -> None:
    folders = [f"tests/unit/{room}" for room in rooms]
    command = [sys.executable, "-c", COLLECT, ",".join(libraries), ",".join(rooms), *folders]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_" in done.stdout


def test_only_core_dims_distinguishes_the_kinds_of_dims() -> None:
    """Everything else calls a function of that module that has an answer for every kind."""
    found = list[str]()
    for file in sorted(PACKAGE.rglob("*.py")):
        if file == PACKAGE / "core" / "dims.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if _distinguishes_dims(node):
                found.append(f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    assert found == []


def _distinguishes_dims(node: ast.AST) -> bool:
    match node:
        case ast.Call(ast.Name("isinstance"), [_, kinds]):
            return bool(_names(kinds) & DIMS)
        case ast.MatchClass(kind):
            return bool(_names(kind) & DIMS)
        case _:
            return False


def _names(node: ast.AST) -> set[str]:
    """Return all names in an expression: those of a class, of a tuple and of a union of classes."""
    names = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
    return names | {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)}


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("isinstance(dim, Fixed)", True),
        ("isinstance(dim, dims.Free | str)", True),
        ("isinstance(dim, (int, Unknown))", True),
        ("isinstance(Free, type)", False),
        ("Free('N')", False),
        ("match dim:\n case Derived(): pass", True),
        ("match dim:\n case TensorSpec(): pass", False),
    ],
)
def test_a_distinction_is_recognized(code: str, answer: bool) -> None:
    assert any(_distinguishes_dims(node) for node in ast.walk(ast.parse(code))) is answer
