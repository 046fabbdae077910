"""Fits: sizes by name are shown as text."""

from __future__ import annotations

from composecli.core.fit import Fit, Holds, format_sizes


def test_a_fit_is_unknown_until_more_is_known() -> None:
    assert Fit() == Fit(Holds.UNKNOWN, (), None, None)
    assert format_sizes({"N": 2, "H": 28}) == "N = 2, H = 28"
