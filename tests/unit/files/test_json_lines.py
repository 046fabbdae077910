"""Lines of values in a JSON text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.files.json_lines import line_of

TEXT = """
{
  "a, \\"b": [1, "}", {"c": null,
      "d": [[], {}, -1.5e3]}],

  "e": true
}
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ((), 2), (('a, "b',), 3), (('a, "b', 1), 3), (('a, "b', 2, "d"), 4),
        (('a, "b', 2, "d", 2), 4), (("e",), 6), (("e", "f"), 6), (("z",), 2), (('a, "b', 9), 3),
    ],
)  # fmt: skip
def test_the_line_of_a_value(place: tuple[str | int, ...], line: int) -> None:
    assert line_of(TEXT, place) == line


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES, st.data())
def test_a_marked_value_is_on_its_line(value: Any, data: st.DataObject) -> None:
    place = list[str | int]()
    inner = value
    while isinstance(inner, list | dict) and inner:
        steps: list[str | int] = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        step = data.draw(st.sampled_from(steps))
        place.append(step)
        if data.draw(st.booleans()):
            inner[step] = "the mark"  # type: ignore[index]
            break
        inner = inner[step]  # type: ignore[index]
    else:
        return
    text = json.dumps(value, indent=1)
    assert "the mark" in text.splitlines()[line_of(text, tuple(place)) - 1]
