"""Fingerprints of messages: the same for the same fact about the same models in the next run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from composecli.report.items import Item, Message, Results, relative_path


def fingerprints(results: Results) -> Iterator[tuple[Item, Message, str]]:
    """Yield each message with its item and its fingerprint; no two are equal.

    The line of an item and the numbers in a title change more often than the fact does.
    """
    seen = dict[str, int]()
    for item in results.items:
        for message in item.messages:
            parts = (relative_path(item.file), item.kind, item.name, message.rule.value)
            text = "\0".join((*parts, *message.models))
            number = seen[text] = seen.get(text, -1) + 1
            yield item, message, hashlib.sha256(f"{text}\0{number}".encode()).hexdigest()[:32]
