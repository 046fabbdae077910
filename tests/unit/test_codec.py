"""The codec: what is sent is what arrives, and nothing but what was expected."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.blueprint import Branch, Feed, Merge, Parallel, Sequential, Stage
from composecli.core.bridge import Cast, Flatten, Linear, Squeeze, Step
from composecli.core.observations import Accepted, Detail, Rejected
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
from composecli.workers.protocol import ProbeRequest, Reply, Request

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
    ),
)


@given(REQUESTS)
def test_a_request_arrives_as_it_was_sent(request: ProbeRequest) -> None:
    assert decode(Request, json.loads(json.dumps(encode(request)))) == request


@given(REPLIES)
def test_a_reply_arrives_as_it_was_sent(reply: Accepted | Rejected) -> None:
    assert decode(Reply, json.loads(json.dumps(encode(reply)))) == reply


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
def test_nonsense_is_refused_and_never_becomes_something_else(data: object) -> None:
    try:
        found = decode(Reply, data)
    except NotAMessage:
        return
    assert isinstance(found, Reply)


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
def test_a_message_that_is_not_whole_is_refused(data: object) -> None:
    with pytest.raises(NotAMessage):
        decode(Reply, data)


def test_what_has_no_place_in_a_message_is_refused() -> None:
    with pytest.raises(TypeError, match="no place in a message"):
        encode(object())
