"""The contract of a model as far as it is known without running it: from its file, or the cache."""

from __future__ import annotations

from typing import NoReturn

from composecli.commands.composition import contract_of
from composecli.commands.progress import silent
from composecli.commands.requests import Options
from composecli.commands.resolve import identify
from composecli.commands.session import Session
from composecli.core.contract import Contract
from composecli.core.errors import CouldNotAttempt
from composecli.workers.cache_store import Cache, default_folder
from composecli.workers.caching import CachingWorker


class _NotCached(BaseException):
    """A model would have to run. It is no problem that inference would report as its own."""


def known_contract(model: str) -> Contract | None:
    """Return the contract that an earlier command with default options found, or that is stated.

    None if there is none, or if the model must not or cannot be read.
    """
    try:
        target = identify(model)
        if target.file is not None and target.file.exported is not None:
            return target.file.exported
        worker = CachingWorker(_refuse, Cache(default_folder()))
        session = Session(worker, Options(), silent)
        session.confine((target,))
        found = session.infer(session.open(target))
    except (CouldNotAttempt, _NotCached):
        return None
    return contract_of(found)


def _refuse() -> NoReturn:
    """Start no worker.

    Raises:
        _NotCached: always.
    """
    raise _NotCached
