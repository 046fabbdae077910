"""Parsing pickles: the value is read, and nothing runs."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.files.checkpoint import scan_checkpoint
from composecli.files.pickle import (
    Constructed,
    NotAPickle,
    PickleDict,
    interpret,
    operations,
    parse,
)

PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.text(), inner)
    ),
    max_leaves=10,
)


def plain(node: object) -> object:
    if isinstance(node, PickleDict):
        return {key: plain(value) for key, value in node.items}
    if isinstance(node, list | tuple):
        return type(node)(plain(item) for item in node)
    return node


@given(PLAIN, st.integers(2, 5))
def test_plain_data_is_read_as_it_is(value: object, protocol: int) -> None:
    assert plain(parse(pickle.dumps(value, protocol)).value) == value


@given(PLAIN, st.data())
def test_a_broken_pickle_raises_nothing_but_not_a_pickle(
    value: object, data: st.DataObject
) -> None:
    whole = bytearray(pickle.dumps(value, 2))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    try:
        parse(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except NotAPickle:
        return


class Touch:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_parsing_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    parsed = parse(pickle.dumps(Touch(marker)))
    assert not marker.exists()
    assert isinstance(parsed.value, Constructed)
    assert any("pathlib" in str(name) or "getattr" in str(name) for name in parsed.imports)
    assert scan_checkpoint(parsed).untrusted


def test_a_pickle_that_goes_on_or_ends_early_is_refused() -> None:
    for data in (b"", b"N", b"N.x", b"N.N.", b"NN."):
        with pytest.raises(NotAPickle):
            parse(data)


def test_operations_have_their_offsets() -> None:
    data = pickle.dumps(["a"], 2)
    decoded = operations(data)
    assert decoded[0].name == "PROTO"
    assert decoded[-1].place == len(data) - 1
    assert interpret(decoded).value == ["a"]


def test_the_last_value_of_a_key_counts() -> None:
    value = PickleDict([("a", 1), ("b", 2), ("a", 3)])
    assert value.get("a") == 3
    assert value.get("c") is None


def test_objects_are_recorded_with_their_state() -> None:
    parsed = parse(pickle.dumps(Path("x"), 2))
    assert all(isinstance(node, Constructed) for node in parsed.constructed)
    assert parsed.value in parsed.constructed
