"""Trust: which file it covers, and the text that states it."""

from __future__ import annotations

from pathlib import Path

import pytest

from composecli.commands.trust import Trust, parse_op, parse_trust

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "trust"),
    [
        ("a.pt", Trust("a.pt")),
        (f"a.pt@sha256:{DIGEST}", Trust("a.pt", DIGEST)),
        (f"a.pt@sha256:{DIGEST.upper()}", Trust("a.pt", DIGEST)),
        ("a@b.pt", Trust("a@b.pt")),
        (f"a@sha256:b.pt@sha256:{DIGEST}", Trust("a@sha256:b.pt", DIGEST)),
    ],
)
def test_trust_may_pin_the_content(text: str, trust: Trust) -> None:
    assert parse_trust(text) == trust


@pytest.mark.parametrize("digest", ["", "12", DIGEST[:-1], DIGEST + "0", "g" * 64])
def test_a_pin_that_is_not_a_digest_is_refused(digest: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        parse_trust(f"a.pt@sha256:{digest}")


def test_trust_covers_every_path_to_the_same_file(here: Path) -> None:
    Path("a.pt").touch()
    Path("link.pt").symlink_to("a.pt")
    for path in ("a.pt", "./a.pt", str(here / "a.pt"), "link.pt"):
        assert Trust("a.pt").covers(path)
    assert not Trust("a.pt").covers("b.pt")


@pytest.mark.parametrize("text", ["aten::from_file", "torchvision::nms"])
def test_an_op_has_a_namespace(text: str) -> None:
    assert parse_op(text) == text


@pytest.mark.parametrize("text", ["", "from_file", "aten::", "::from_file", "aten::a b", "a::b::c"])
def test_another_op_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not the name of an op"):
        parse_op(text)
