"""Fits: sizes by name and conditions are shown as text."""

from __future__ import annotations

from composecli.core.fit import Fit, Holds, format_sizes, format_when


def test_a_fit_is_unknown_until_more_is_known() -> None:
    assert Fit() == Fit(Holds.UNKNOWN, (), None, None)
    assert format_sizes({"N": 2, "H": 28}) == "N = 2, H = 28"


def test_conditions_are_written_as_part_of_a_sentence() -> None:
    assert format_when(("H>=32 & H%16==0", "8<=W<=64")) == "H>=32 and H%16==0 and 8<=W<=64"
