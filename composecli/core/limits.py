"""Limits of texts: numbers and messages that a file or a command line may make as long as it likes.

The limits of a reader stand beside it; .github/SECURITY.md lists them all.
"""

from __future__ import annotations

# Python refuses to read or print longer integers; a 64-bit size has 19 digits.
MAX_DIGITS = 100
# The largest size of a tensor: torch stores sizes as signed integers of 64 bits.
MAX_SIZE = 2**63 - 1
MAX_SHOWN_LENGTH = 200


def shorten(text: str, length: int = MAX_SHOWN_LENGTH) -> str:
    """Return a text as it fits in a message, with the number of characters that are left out."""
    hidden = len(text) - length
    if hidden <= 0:
        return text
    return f"{text[:length]}… (and {hidden:,} more characters)"


def read_integer(text: str) -> int:
    """Return an integer in decimal notation.

    Raises:
        ValueError: if it is none, or has more digits than any size; the message is for users.
    """
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{shorten(text)} is too long for a number")
    return int(text)
