"""A pickle that is written from parsed nodes says the same as the original."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from composecli.files.pickle import NotAPickle, Persistent, parse
from composecli.files.pickle_writer import write


def dump(value: object) -> bytes:
    return write(value).data


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4).map(OrderedDict)
    ),
)


@given(PLAIN, st.integers(2, 5))
def test_plain_data_survives_in_every_protocol(value: object, protocol: int) -> None:
    written = dump(parse(pickle.dumps(value, protocol)).value)
    assert pickle.loads(written) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", [{1, 2}, set[int](), frozenset((1, 2)), {"a": {3}}])
def test_sets_survive(value: object, protocol: int) -> None:
    assert pickle.loads(dump(parse(pickle.dumps(value, protocol)).value)) == value


def test_what_is_shared_stays_shared() -> None:
    inner = [1]
    copy: Any = pickle.loads(dump(parse(pickle.dumps((inner, {"a": inner}))).value))
    assert copy[0] is copy[1]["a"]


def test_a_list_may_contain_itself() -> None:
    endless = list[object]()
    endless.append(endless)
    copy: Any = pickle.loads(dump(parse(pickle.dumps(endless)).value))
    assert copy[0] is copy


def test_a_tuple_may_contain_itself_through_a_list() -> None:
    # A list, stored as 0; the tuple around it, stored as 1, is appended to the list.
    parts = b"\x80\x02]q\x00h\x00\x85q\x01a"
    copy: Any = pickle.loads(dump(parse(parts + b".").value))
    assert copy[0][0] is copy
    with pytest.raises(NotAPickle, match="inside itself"):
        dump(parse(parts + b"0h\x01.").value)


def test_nesting_is_not_limited_by_the_stack_of_python() -> None:
    data = b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."
    written = dump(parse(data).value)
    assert written.count(b"(") >= 50_000


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x03C\x01a.",
        b"\x80\x02ca b\nc d\n.",
        b"\x80\x02X\x01\x00\x00\x00aQ.",
    ],
    ids=["bytes", "a name with a space", "a reference to no storage"],
)
def test_what_pytorch_never_writes_is_refused(data: bytes) -> None:
    with pytest.raises(NotAPickle):
        dump(parse(data).value)


def test_storages_are_moved_to_the_cpu() -> None:
    key = ("storage", "Class", "0", "cuda:0", 6)
    restored = parse(dump([Persistent(key)]))
    (reference,) = restored.references
    assert reference.key == ("storage", "Class", "0", "cpu", 6)


def test_torch_reads_what_is_written_of_a_checkpoint(tmp_path: object) -> None:
    from composecli.files.archive import Archive

    data = io.BytesIO()
    torch.save({"w": torch.arange(6.0).view(2, 3)}, data, pickle_protocol=5)
    with Archive.of_bytes(data.getvalue()) as archive:
        written = dump(archive.pickle("data.pkl").value)
    assert b"\x95" not in written[:3]
    assert b"_rebuild_tensor_v2" in written
