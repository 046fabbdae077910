"""Cached answers are found for the same content and the same way of opening it, and else not."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.observations import Accepted
from composecli.core.pytree import TensorSpec
from composecli.workers import cached_answers
from composecli.workers.cache_store import Cache
from composecli.workers.cached_answers import CachedAnswers, decode_or_none
from composecli.workers.protocol import Described, LayerRow, OpenRequest, Training

ANSWER = Described((LayerRow(1, "fc", "Linear", "[2, 5]", 55),))
ACCEPTED = Accepted((TensorSpec("float32", (2, 5)),), "cpu")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", "1")


def open_request(folder: Path, name: str = "a", data: bytes = b"weights") -> OpenRequest:
    path = folder / f"{name}.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/version", "3\n")
        archive.writestr(f"{name}/data.pkl", b"\x80\x02}.")
        archive.writestr(f"{name}/data/0", data)
    return OpenRequest(
        FileReference(str(path)),
        ModelKind.TORCHSCRIPT,
        "cpu",
        Training.SAVED,
        trusted=False,
        key=None,
    )


def store(cache: Cache, *requests: OpenRequest, records: tuple[str, ...] | None = None) -> None:
    """Store the answer about these models, and save it."""
    answers = CachedAnswers(cache)
    numbers = tuple(answers.add_model(request) for request in requests)
    if records is not None:
        answers.add_dependency(numbers[0], records)
    for number in numbers:
        answers.store((number,), "probe", ACCEPTED)
    answers.store(numbers, "layers", ANSWER)
    answers.save()


def find(cache: Cache, *requests: OpenRequest) -> Described | None:
    answers = CachedAnswers(cache)
    numbers = tuple(answers.add_model(request) for request in requests)
    answer: Described | None = answers.find(numbers, "layers", Described)
    return answer


def test_answer_is_found_in_the_next_run(cache: Cache, tmp_path: Path) -> None:
    request = open_request(tmp_path)
    assert find(cache, request) is None
    store(cache, request)
    assert find(cache, request) == ANSWER


def test_model_that_never_ran_has_no_answers(cache: Cache, tmp_path: Path) -> None:
    runs, never_ran = open_request(tmp_path), open_request(tmp_path, "b", b"others")
    store(cache, runs)
    answers = CachedAnswers(cache)
    numbers = tuple(answers.add_model(request) for request in (never_ran, runs))
    answers.store(numbers[:1], "layers", ANSWER)
    answers.store(numbers, "layers", ANSWER)
    answers.save()
    assert find(cache, never_ran) is None
    assert find(cache, never_ran, runs) is None
    assert find(cache, runs) == ANSWER


def test_answer_about_several_models_depends_on_their_order(cache: Cache, tmp_path: Path) -> None:
    one, other = open_request(tmp_path), open_request(tmp_path, "b", b"other weights")
    store(cache, one, other)
    assert find(cache, one, other) == ANSWER
    assert find(cache, other, one) is None
    assert find(cache, one) is None


def test_file_is_known_once_it_has_answers(cache: Cache, tmp_path: Path) -> None:
    request = open_request(tmp_path)
    path = request.path
    assert not CachedAnswers(cache).knows_file(path)
    store(cache, request)
    assert CachedAnswers(cache).knows_file(path)
    assert not CachedAnswers(cache).knows_file(str(tmp_path / "missing.pt"))


def test_other_ways_of_opening_a_file_have_other_answers(cache: Cache, tmp_path: Path) -> None:
    request = open_request(tmp_path)
    store(cache, request)
    assert find(cache, replace(request, device="meta")) is None
    assert find(cache, replace(request, training=Training.EVAL)) is None
    assert find(cache, replace(request, allowed_ops=("my::op",))) is None


def test_code_that_may_do_anything_has_no_answers(cache: Cache, tmp_path: Path) -> None:
    request = open_request(tmp_path)
    for unpredictable in (replace(request, trusted=True), replace(request, kind=ModelKind.FACTORY)):
        store(cache, unpredictable)
        assert find(cache, unpredictable) is None


@pytest.mark.parametrize("records", [("data/0",), ()], ids=["one record", "all records"])
def test_answer_that_depends_on_records_needs_their_content(
    cache: Cache, tmp_path: Path, records: tuple[str, ...]
) -> None:
    """The fingerprint relies on checksums; here the checksum of the old content is kept."""
    request = open_request(tmp_path)
    store(cache, request, records=records)
    assert find(cache, request) == ANSWER
    path = Path(request.path)
    path.write_bytes(path.read_bytes().replace(b"weights", b"WEIGHTS"))
    assert find(cache, request) is None


def test_answer_without_dependencies_is_found_by_the_checksums(
    cache: Cache, tmp_path: Path
) -> None:
    request = open_request(tmp_path)
    store(cache, request)
    path = Path(request.path)
    path.write_bytes(path.read_bytes().replace(b"weights", b"WEIGHTS"))
    assert find(cache, request) == ANSWER


def test_answers_of_several_runs_are_kept_together(cache: Cache, tmp_path: Path) -> None:
    request = open_request(tmp_path)
    one, other = CachedAnswers(cache), CachedAnswers(cache)
    for answers, question in ((one, "first"), (other, "second")):
        number = answers.add_model(request)
        answers.store((number,), question, ANSWER)
        answers.store((number,), "probe", ACCEPTED)
    one.save()
    other.save()
    answers = CachedAnswers(cache)
    number = answers.add_model(request)
    for question in ("first", "second"):
        assert answers.find((number,), question, Described) == ANSWER


def test_number_of_answers_is_limited(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_answers, "MAX_ANSWERS_PER_SUBJECT", 1)
    answers = CachedAnswers(cache)
    number = answers.add_model(open_request(tmp_path))
    for question in ("first", "second"):
        answers.store((number,), question, ANSWER)
    assert answers.find((number,), "first", Described) == ANSWER
    assert answers.find((number,), "second", Described) is None


def test_data_of_another_type_is_no_value() -> None:
    assert decode_or_none(Described, None) is None
    assert decode_or_none(Described, {"type": "Described", "rows": 3}) is None
    assert decode_or_none(Described, {"type": "Described", "rows": []}) == Described(())
