"""Shards: the request for each file that an index names, with the trust and the pin that it has.

Trust in an index covers its shards. A hash that is stated for the index is one of its own bytes
alone, so each shard needs a hash of its own: no byte that is read is without one then.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule
from composecli.files.shards import index_bytes, parse_index
from composecli.runtime.loading.admission import hash_problem
from composecli.workers.protocol import OpenRequest

MAX_SHARDS_SHOWN = 4


def shard_requests(request: OpenRequest) -> Mapping[OpenRequest, tuple[str, ...]]:
    """Return the request for each shard of an index, with the names of its tensors.

    Raises:
        CouldNotAttempt: if the index has another hash than the one that is trusted, or a shard of
            such an index has no hash stated.
        NotAnIndex: if the file is no index, or names a file that cannot be a shard.
        OSError: if it cannot be read.
    """
    reference = request.reference
    assert isinstance(reference, FactoryReference)
    # Read once: the bytes with this hash are those that name the shards.
    data = index_bytes(request.path)
    problem = hash_problem(request, hashlib.sha256(data).hexdigest())
    if problem is not None:
        raise CouldNotAttempt(problem)
    shards = parse_index(data, os.path.dirname(request.path))
    pins = dict(request.pins)
    hashes = {path: pins.get(os.path.realpath(path)) for path in shards}
    unpinned = [path for path, sha256 in hashes.items() if sha256 is None]
    if request.sha256 is not None and unpinned:
        raise CouldNotAttempt(_not_pinned(request, unpinned))
    requests = dict[OpenRequest, tuple[str, ...]]()
    for path, names in shards.items():
        shard = replace(reference, path=path)
        inner = replace(request, reference=shard, key=None, sha256=hashes[path])
        requests[inner] = names
    return requests


def _not_pinned(request: OpenRequest, shards: Sequence[str]) -> Problem:
    """Return the problem of an index that is pinned, with files that are not."""
    title = f"the index is pinned, and {len(shards)} of the files that it names are not"
    shown = ", ".join(shards[:MAX_SHARDS_SHOWN])
    more = len(shards) - MAX_SHARDS_SHOWN
    if more > 0:
        shown += f" and {more} more"
    help = (
        "state the hash of each of them, too: --trust FILE@sha256:HEX",
        "'sha256sum FILE' prints the hash of a file",
    )
    notes = (f"without a hash: {shown}",)
    return Problem(Rule.NOT_THE_FILE_THAT_IS_TRUSTED, title, request.path, notes, help)
