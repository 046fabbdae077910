"""What an op was given and what it takes is read from the words of PyTorch."""

from __future__ import annotations

import pytest

from composecli.core.relations import Comparison
from composecli.inference.refusal_messages import refusals

EQUALS, MULTIPLE = Comparison.EQUALS, Comparison.MULTIPLE_OF


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("shape '[-1, 2048]' is invalid for input of size 16896", [(16896, MULTIPLE, 2048)]),
        ("shape '[2, -1, 16]' is invalid for input of size 100", [(50, MULTIPLE, 16)]),
        ("shape '[4, 6]' is invalid for input of size 30", [(30, EQUALS, 24)]),
        ("shape '[2, 12]' is invalid for input of size 30", [(15, EQUALS, 12)]),
        ("mat1 and mat2 shapes cannot be multiplied (2x300 and 24x5)", [(300, EQUALS, 24)]),
        (
            (
                "The size of tensor a (25) must match the size of tensor b (24) at non-singleton "
                "dimension 2"
            ),
            [(25, EQUALS, 24), (24, EQUALS, 25)],
        ),
        (
            (
                "Given groups=1, weight of size [4, 24, 1], expected input[2, 28, 5] to have 24 "
                "channels, but got 28 channels instead"
            ),
            [(28, EQUALS, 24)],
        ),
        (
            "input.size(-1) must be equal to input_size. Expected 24, got 28",
            [(28, EQUALS, 24)],
        ),
        (
            (
                "Given normalized_shape=[24], expected input with shape [*, 24], but got input of "
                "size[2, 3, 28]"
            ),
            [(28, EQUALS, 24)],
        ),
        ("shape '[-1, 0]' is invalid for input of size 5", []),
        ("shape '[-1, -1, 4]' is invalid for input of size 5", []),
        ("shape '[-7, 4]' is invalid for input of size 5", []),
        (f"shape '[-1, {'9' * 50}]' is invalid for input of size 5", []),
        ("shape '[-1, 999999999999999989]' is invalid for input of size 5", []),
        ("something else", []),
    ],
)
def test_a_refusal_is_read(message: str, expected: list[tuple[int, Comparison, int]]) -> None:
    found = [(refusal.have, *refusal.aim) for refusal in refusals(message, 2)]
    assert found == expected
