"""Bounds: a report has the first of each list, and counts the others."""

from __future__ import annotations

from composecli.report.bounds import MAX_ITEMS, MAX_TEXT_CHARS, BoundedData, bounded, is_deep


def test_a_long_list_is_cut_and_counted() -> None:
    data = BoundedData()
    cut = data.cut({"a/b": {"notes": list(range(MAX_ITEMS + 5))}, "seams": [1] * (MAX_ITEMS + 1)})
    assert len(cut["a/b"]["notes"]) == MAX_ITEMS
    assert len(cut["seams"]) == MAX_ITEMS + 1
    assert data.left_out == [{"path": "/a~1b/notes", "items": 5}]


def test_a_long_text_is_cut_and_counted() -> None:
    cut = BoundedData().cut("x" * (MAX_TEXT_CHARS + 1234))
    assert cut.endswith("… (and 1,234 more characters)")


def test_a_screen_counts_the_lines_that_it_leaves_out() -> None:
    assert bounded(["a"] * 100_000)[-1] == "and 99,980 more"
    assert bounded(["a", "b"]) == ("a", "b")


def test_deep_data_is_noticed() -> None:
    deep: list[object] = []
    for _ in range(1000):
        deep = [deep]
    assert (is_deep(deep), is_deep({"a": [1]})) == (True, False)
