"""Requests: the text of options, and the command that repeats a request."""

from __future__ import annotations

import shlex

import pytest

from composecli.commands.requests import (
    CheckRequest,
    JoinRequest,
    Options,
    Selection,
    parse_device,
    parse_memory,
    parse_selection,
)
from composecli.core.blueprint import Merge, Mode
from composecli.core.bridge import BridgeMode


@pytest.mark.parametrize(
    ("text", "selection"),
    [
        ("logits", Selection(None, "logits")),
        ("[0]", Selection(None, "[0]")),
        ("2:logits", Selection(2, "logits")),
        ('12:out["a:b"]', Selection(12, 'out["a:b"]')),
        ("a:b", Selection(None, "a:b")),
    ],
)
def test_a_selection_may_name_its_model(text: str, selection: Selection) -> None:
    assert parse_selection(text) == selection


def test_an_empty_selection_is_refused() -> None:
    with pytest.raises(ValueError, match="no port is named"):
        parse_selection("")


@pytest.mark.parametrize("text", ["cpu", "meta", "cuda", "cuda:1"])
def test_a_device_is_accepted(text: str) -> None:
    assert parse_device(text) == text


@pytest.mark.parametrize("text", ["", "tpu", "cuda:", "cpu:0", "cuda:-1", "cuda:12345", "CPU"])
def test_another_device_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="there is no device"):
        parse_device(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8G", 8_000_000_000),
        ("500M", 500_000_000),
        ("1.5kB", 1500),
        ("2TB", 2 * 10**12),
        ("4096", 4096),
    ],
)
def test_a_size_is_in_bytes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.0G", "G", "8X", "-1G", "8 G"])
def test_another_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("device", "real"), [("cpu", "cpu"), ("cuda:1", "cuda:1"), ("meta", "cpu")]
)
def test_meta_leaves_the_decision_to_the_cpu(device: str, real: str) -> None:
    assert Options(device=device).real_device == real


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (CheckRequest(("a b.pt", "c.pt")), "a b.pt|c.pt"),
        (CheckRequest(("a", "b"), Mode.PARALLEL), "a|b|--mode|parallel"),
        (
            CheckRequest(("a", "b"), Mode.PARALLEL, merge=Merge.STACK, dim=0),
            "a|b|--mode|parallel|--merge|stack|--dim|0",
        ),
        (CheckRequest(("a", "b", "c"), Mode.PAIRS, dim=2), "a|b|c|--mode|pairs"),
        (CheckRequest(("a", "b"), strict=True), "a|b|--strict"),
        # Merge and dim have no meaning in sequence.
        (CheckRequest(("a", "b"), merge=Merge.ADD, dim=2), "a|b"),
        (
            CheckRequest(("a", "b"), options=Options(words=("--input", "float32[N, 3]"))),
            "a|b|--input|float32[N, 3]",
        ),
    ],
)
def test_a_command_repeats_the_request(request_: CheckRequest, words: str) -> None:
    again = shlex.split(request_.again())
    assert again == ["composecli", "check", *words.split("|")]
    bridged = shlex.split(request_.bridged(BridgeMode.AUTO))
    added = ["--bridge", "auto", "-o", "both.pt"]
    assert bridged == ["composecli", "join", *words.split("|"), *added]


def test_a_join_is_repeated_as_it_was_given() -> None:
    check = CheckRequest(("a", "b"), strict=True, bridge=BridgeMode.AUTO)
    request = JoinRequest(check, "out.pt", seed=3, force=True).judged
    given = "--seed 3 --force -o out.pt"
    assert request.again() == f"composecli join a b --strict --bridge auto {given}"
    assert request.bridged(BridgeMode.LINEAR) == (
        f"composecli join a b --strict --bridge linear {given}"
    )
