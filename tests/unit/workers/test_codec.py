"""Values survive encoding and decoding, and other data is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.blueprint import Branch, Feed, Merge, Parallel, Sequential, Stage
from composecli.core.bridge import Cast, Flatten, Linear, Squeeze, Step
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.observations import Accepted, Detail, Rejected, RejectionKind, Remedy
from composecli.core.pytree import (
    Argument,
    Call,
    Literal,
    Opaque,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
)
from composecli.workers.codec import NotAMessage, decode, encode
from composecli.workers.protocol import (
    AnyReply,
    AnyRequest,
    Measure,
    MeasureKind,
    OpenRequest,
    ProbeRequest,
    Sandbox,
    Training,
)

SPECS = st.builds(
    TensorSpec,
    st.sampled_from(["float32", "int64"]),
    st.lists(st.integers(0, 9), max_size=4).map(tuple),
    st.integers(1, 9),
    st.one_of(st.none(), st.integers(0, 3)),
)
LEAVES: st.SearchStrategy[Tree] = st.one_of(
    SPECS,
    st.builds(
        Literal,
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    ),
    st.builds(Opaque, st.text()),
)
TREES: st.SearchStrategy[Tree] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda items: TreeSequence("tuple", tuple(items)), st.lists(inner, max_size=3)),
        st.builds(
            lambda items: TreeMapping(tuple(items)),
            st.lists(st.tuples(st.text(), inner), max_size=3),
        ),
    ),
    max_leaves=6,
)
CALLS = st.lists(st.builds(Argument, TREES, st.one_of(st.none(), st.text())), max_size=3).map(
    lambda a: Call(tuple(a))
)
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(Cast, st.just("float32")),
    st.builds(Flatten, st.integers(0, 3)),
    st.builds(Squeeze, st.integers(0, 3)),
    st.builds(Linear, st.integers(0, 3), st.integers(1, 9), st.integers(1, 9)),
)
BRIDGES = st.lists(STEPS, max_size=3).map(tuple)
PATHS = st.lists(st.one_of(st.integers(0, 5), st.text()), max_size=3).map(tuple)
FEEDS = st.builds(Feed, PATHS, st.one_of(st.none(), st.text()), BRIDGES)
STAGES = st.builds(Stage, st.integers(0, 3), st.lists(FEEDS, max_size=2).map(tuple))
BLUEPRINTS = st.one_of(
    st.lists(STAGES, max_size=3).map(lambda stages: Sequential(tuple(stages))),
    st.builds(
        Parallel,
        st.lists(st.builds(Branch, st.integers(0, 3), PATHS, BRIDGES), max_size=3).map(tuple),
        st.sampled_from(list(Merge)),
        st.integers(-3, 3),
    ),
)
REQUESTS = st.builds(ProbeRequest, BLUEPRINTS, CALLS, st.integers(0, 9), st.sampled_from(Detail))
REPLIES = st.one_of(
    st.builds(Accepted, st.lists(TREES, max_size=2).map(tuple), st.text()),
    st.builds(
        Rejected,
        st.integers(0, 3),
        st.text(),
        st.text(),
        st.text(),
        op=st.one_of(st.none(), st.text()),
        kind=st.sampled_from(RejectionKind),
        remedies=st.lists(st.sampled_from(Remedy), max_size=2).map(tuple),
    ),
    st.builds(
        Sandbox,
        st.lists(st.builds(Measure, st.sampled_from(MeasureKind), st.text())).map(tuple),
        st.lists(st.text()).map(tuple),
    ),
)


@given(REQUESTS)
def test_requests_survive_the_round_trip(request: ProbeRequest) -> None:
    assert decode(AnyRequest, json.loads(json.dumps(encode(request)))) == request


@given(REPLIES)
def test_replies_survive_the_round_trip(reply: Accepted | Rejected | Sandbox) -> None:
    assert decode(AnyReply, json.loads(json.dumps(encode(reply)))) == reply


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(), st.sampled_from(["type", "results", "device"])), inner, max_size=4
        ),
    ),
    max_leaves=10,
)


@given(JSON)
def test_other_data_is_refused_and_never_decoded_as_another_type(data: object) -> None:
    try:
        value = decode(AnyReply, data)
    except NotAMessage:
        return
    assert isinstance(value, AnyReply)


@pytest.mark.parametrize(
    "data",
    [
        {"type": "Opened", "handle": "0", "facts": None},
        {"type": "Described", "rows": [], "more": 1},
        {"type": "Path", "parts": []},
        {"type": "Refused"},
        [],
        "Described",
    ],
)
def test_incomplete_messages_are_refused(data: object) -> None:
    with pytest.raises(NotAMessage):
        decode(AnyReply, data)


def test_other_objects_cannot_be_encoded() -> None:
    with pytest.raises(TypeError, match="no place in a message"):
        encode(object())


def test_class_variables_are_not_part_of_a_message() -> None:
    request = OpenRequest(
        FileReference("a.pt"), ModelKind.PICKLED, "cpu", Training.EVAL, trusted=True, key="model"
    )
    data = encode(request)
    assert "activity" not in data
    assert decode(OpenRequest, data) == request
    with pytest.raises(NotAMessage, match="activity"):
        decode(OpenRequest, {**data, "activity": "loading"})
