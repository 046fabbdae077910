"""Command lines: a shell reads back the words, and no name is taken for an option."""

from __future__ import annotations

import shlex

from hypothesis import given
from hypothesis import strategies as st

from composecli.core.command_line import command_line, file_word, option_words, pairs_of


@given(st.lists(st.text(min_size=1)))
def test_a_shell_splits_a_line_into_its_words(words: list[str]) -> None:
    assert shlex.split(command_line(words)) == words


@given(st.text(min_size=1))
def test_the_word_of_a_file_is_no_option(name: str) -> None:
    assert not file_word(name).startswith("-")
    assert file_word(name) in (name, f"./{name}")


def test_values_that_look_like_options_stay_values() -> None:
    words = ("--trust", "-x.pt", "--key", "-k", "--input", "1,3")
    expected = ["--trust", "./-x.pt", "--key=-k", "--input", "1,3"]
    assert list(option_words(pairs_of(words))) == expected
