"""Lines of a TOML text, for messages."""

from __future__ import annotations

import pytest

from composecli.core.documents import Place
from composecli.files.toml_lines import Lines

TEXT = '''# a comment with [brackets] and "quotes
top = 1
[models]   # another one
one = "a [b] # no comment"
"two words" = { path = "x", inputs = ["1,2", "3"] }
long = """
[not a header]
\\""" still inside
"""
[models.three]
path = 'C:\\'  # a literal text keeps its backslash

[[chain]]
models = [
    "one",  # ] no end
    "two",

    [ "deep", "deeper" ],
    "three",
]
name = "first"
[[chain]]
models = ["one", "two"]
[[chain.notes]]
text = "a"
[[chain.notes]]
text = "b"
[ options ]
a.b = true
'''
LINES: list[tuple[Place, int]] = [
    (("top",), 2),
    (("models",), 3),
    (("models", "one"), 4),
    (("models", "two words", "inputs", 1), 5),
    (("models", "long"), 6),
    (("models", "three"), 10),
    (("models", "three", "path"), 11),
    (("chain", 0), 13),
    (("chain", 0, "models"), 14),
    (("chain", 0, "models", 0), 15),
    (("chain", 0, "models", 1), 16),
    (("chain", 0, "models", 2, 1), 18),
    (("chain", 0, "models", 3), 19),
    (("chain", 0, "name"), 21),
    (("chain", 1), 22),
    (("chain", 1, "models", 1), 23),
    (("chain", 1, "notes", 0, "text"), 25),
    (("chain", 1, "notes", 1, "text"), 27),
    (("options", "a", "b"), 29),
    (("options", "missing"), 28),
    (("missing",), 1),
    ((), 1),
]


@pytest.mark.parametrize(("place", "line"), LINES)
def test_the_line_of_a_value_is_where_it_is_written(place: Place, line: int) -> None:
    assert Lines(TEXT).of(place) == line
    assert Lines(TEXT.rstrip("\n")).of(place) == line
