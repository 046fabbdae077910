"""The pickle walk: it says what a pickle holds, and runs nothing."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from composecli.core.pytree import Literal, TensorSpec, TreeMapping, TreeSequence
from composecli.files.checkpoint import Holds, judge
from composecli.files.pickle import Constructed, NotAPickle, PickleDict, parse
from composecli.files.pickle_tree import tree_of

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


def data_pkl(value: object) -> bytes:
    data = io.BytesIO()
    torch.save(value, data)
    with zipfile.ZipFile(data) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


@given(PLAIN, st.integers(2, 5))
def test_plain_data_is_read_as_it_is(value: object, protocol: int) -> None:
    assert plain(parse(pickle.dumps(value, protocol)).value) == value


@given(PLAIN, st.data())
def test_a_broken_pickle_is_refused_and_nothing_else(value: object, data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps(value, 2))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    try:
        parse(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except NotAPickle:
        return


class Touch:
    """A pickle of it makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_nothing_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    walked = parse(pickle.dumps(Touch(marker)))
    assert not marker.exists()
    assert isinstance(walked.value, Constructed)
    assert any("pathlib" in str(name) or "getattr" in str(name) for name in walked.imports)
    assert judge(walked).untrusted


def test_tensors_are_read_with_their_sizes() -> None:
    held = {"a": torch.zeros(2, 3), "b": [torch.zeros(4, dtype=torch.int64), 5]}
    assert tree_of(parse(data_pkl(held)).value) == TreeMapping(
        (
            ("a", TensorSpec("float32", (2, 3))),
            ("b", TreeSequence("list", (TensorSpec("int64", (4,)), Literal(5)))),
        )
    )


class Own(nn.Linear):
    pass


def hooked() -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 2))
    module[0].register_forward_hook(print)
    return module


def shadowed() -> nn.Module:
    module = nn.Linear(2, 2)
    module.__dict__["forward"] = nn.Identity()
    return module


@pytest.mark.parametrize(
    ("value", "holds", "untrusted", "hooks"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2)), Holds.MODULE, 0, 0),
        (nn.Transformer(4, 2, 1, 1, 4), Holds.MODULE, 0, 0),
        (nn.TransformerEncoderLayer(4, 2, activation="gelu"), Holds.MODULE, 0, 0),
        (nn.Linear(2, 2).double(), Holds.MODULE, 0, 0),
        (Own(2, 2), Holds.MODULE, 1, 0),
        (hooked(), Holds.MODULE, 1, 1),
        (shadowed(), Holds.MODULE, 0, 1),
        (nn.Linear(2, 2).state_dict(), Holds.WEIGHTS, 0, 0),
        ({"model": nn.Linear(2, 2).state_dict()}, Holds.WEIGHTS, 0, 0),
        (torch.zeros(2), Holds.TENSOR, 0, 0),
        ({"lr": 0.1}, Holds.OTHER, 0, 0),
    ],
)
def test_a_checkpoint_is_judged(value: object, holds: Holds, untrusted: int, hooks: int) -> None:
    checkpoint = judge(parse(data_pkl(value)))
    assert checkpoint.holds is holds
    assert len(checkpoint.untrusted) == untrusted
    assert len(checkpoint.hooks) == hooks
