"""The inputs from which the fuzzer of the readers starts, and those that longer runs found."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from composecli.files.sniff import ModelFile, sniff
from tests.safety import readers
from tests.safety.fuzz_readers import honest_files, seeds
from tests.safety.hostile_pickles import PLACES, SHARED, VALUES, pickle_of_many, pickle_with
from tests.safety.readers import READERS

LIMIT_SECONDS = 20
MAX_CPU_SECONDS = 6


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Return small honest files of each kind."""
    return honest_files(tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("name", list(READERS))
def test_readers_refuse_or_answer(files: list[bytes], name: str) -> None:
    inputs = seeds(name, files, mutated=2)
    assert len(inputs) > 10
    for data in inputs:
        failure = READERS[name].attempt(data)
        assert not failure, (failure, data)


@pytest.mark.parametrize("name", ["pickles", "programs", "sources"])
def test_an_honest_input_is_read_as_a_model(tmp_path: Path, files: list[bytes], name: str) -> None:
    """The files around the inputs must not be what is refused."""
    recognized = list[ModelFile]()
    for data in seeds(name, files, mutated=0):
        for content in READERS[name].files(data):
            (tmp_path / "file").write_bytes(content)
            found = sniff(str(tmp_path / "file"))
            if isinstance(found, ModelFile) and not found.refusal():
                recognized.append(found)
    assert recognized


@pytest.mark.parametrize("name", list(READERS))
def test_an_error_that_is_no_refusal_is_a_failure(files: list[bytes], name: str) -> None:
    data = seeds(name, files, mutated=0)[0]
    with patch.object(readers, "sniff", side_effect=RecursionError("too deep")):
        assert "RecursionError: too deep" in READERS[name].attempt(data)
    with patch.object(readers, "MAX_SECONDS", 0):
        assert "it took" in READERS[name].attempt(data)


@contextmanager
def time_limit() -> Iterator[None]:
    """End the body by an error if it takes too long: some of these would never end."""

    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("value", list(VALUES))
def test_a_value_that_is_hard_to_write_out_is_refused_in_each_place(value: str) -> None:
    for place in PLACES:
        with time_limit():
            failure = READERS["pickles"].attempt(pickle_with(value, place))
        assert "Traceback" not in failure, (place, failure)


@pytest.mark.parametrize("name", list(SHARED))
def test_what_many_entries_share_is_looked_at_once(name: str) -> None:
    start = time.process_time()
    with time_limit():
        failure = READERS["pickles"].attempt(pickle_of_many(name))
    assert "Traceback" not in failure
    assert time.process_time() - start < MAX_CPU_SECONDS
