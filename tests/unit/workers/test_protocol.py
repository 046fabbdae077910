"""Every request states its reply, and the unions that the codec reads are complete."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from composecli.core.observations import Accepted, Rejected
from composecli.workers import protocol
from composecli.workers.protocol import (
    AnyReply,
    AnyRequest,
    Check,
    Failed,
    Measure,
    MeasureKind,
    Opened,
    OpenRequest,
    ProbeRequest,
    Request,
    Sandbox,
    Verified,
    reply_types,
)


@pytest.mark.parametrize(
    ("request_type", "replies"),
    [(OpenRequest, (Opened,)), (ProbeRequest, (Accepted, Rejected))],
)
def test_reply_types_are_those_of_the_generic_base(
    request_type: type[Request[Any]], replies: tuple[type, ...]
) -> None:
    assert reply_types(request_type) == replies


def test_request_without_a_reply_type_is_a_mistake() -> None:
    class Untyped(Request):  # type: ignore[type-arg]
        pass

    with pytest.raises(TypeError, match="Untyped"):
        reply_types(Untyped)


def test_the_codec_knows_every_request_and_every_reply() -> None:
    requests = {
        value
        for value in vars(protocol).values()
        if isinstance(value, type) and issubclass(value, Request) and value is not Request
    }
    assert set(get_args(AnyRequest)) == requests
    replies = {reply for request in requests for reply in reply_types(request)}
    assert set(get_args(AnyReply)) == replies | {Failed}


def test_every_request_names_its_activity() -> None:
    for request in get_args(AnyRequest):
        assert request.activity


@pytest.mark.parametrize(
    ("measure", "text"),
    [
        (Measure(MeasureKind.NO_CORE_FILE), "no core file"),
        (Measure(MeasureKind.MEMORY_LIMIT, "2.0 GB"), "memory 2.0 GB"),
        (Measure(MeasureKind.LANDLOCK, "4"), "Landlock 4"),
    ],
)
def test_measures_have_the_text_of_the_report(measure: Measure, text: str) -> None:
    assert str(measure) == text


def test_only_landlock_restricts_files() -> None:
    core, landlock = Measure(MeasureKind.NO_CORE_FILE), Measure(MeasureKind.LANDLOCK, "4")
    assert not Sandbox((core,), ("the kernel has no Landlock",)).restricts_files
    assert Sandbox((core, landlock), ()).restricts_files


def test_verification_passes_if_all_checks_pass() -> None:
    passed = Check("outputs", passed=True, detail="")
    failed = Check("names", passed=False, detail="")
    assert Verified((passed,), ()).passed
    assert not Verified((passed, failed), ()).passed
