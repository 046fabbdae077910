"""Keys: how the command line names an entry of a checkpoint.

A key has the names of the dicts around an entry, with dots between them: `ema.shadow`. A dot in a
name is written `\\.`, but need not be unless something else has the same key. So `a.b` is the entry
`b` of `a` if there is one, and otherwise the entry that is named `a.b`; `a\\.b` is always that one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_SEPARATOR = re.compile(r"(?<!\\)\.")


def key_of(path: Sequence[str]) -> str:
    """Return the key that leads through these names, and to nothing else."""
    return ".".join(name.replace(".", r"\.") for name in path)


def words_of(key: str) -> list[str]:
    """Return the parts of a key between its dots. Dots inside a name stay as they are written."""
    return _SEPARATOR.split(key)


def plain(key: str) -> str:
    """Return a part of a key with the dots of its names as the names have them."""
    return key.replace(r"\.", ".")


def rests_behind(name: str, key: str) -> Iterator[str]:
    """Yield what is left of a key behind a name that it starts with; nothing if it does not."""
    for written in dict.fromkeys((key_of((name,)), name)):
        if key == written:
            yield ""
        elif key.startswith(f"{written}."):
            yield key.removeprefix(f"{written}.")
