"""Result trees: paths into them, and the text of paths."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.pytree import (
    Argument,
    Call,
    Literal,
    Opaque,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
    call_leaves,
    describe_tree,
    find_path,
    get_path,
    keystr,
    leaves,
    paths,
    port_name,
    port_names,
    replace_call_leaf,
    replace_leaf,
    resized,
    select,
)

A, B = TensorSpec("float32", (2, 5)), TensorSpec("float32", (2, 7))
TUPLE = TreeSequence("tuple", (A, B))
DICT = TreeMapping((("logits", A), ("hidden", TreeSequence("tuple", (B, A)))))


@pytest.mark.parametrize(
    ("tree", "port", "path"),
    [
        (DICT, "logits", ("logits",)),
        (DICT, 'out["logits"]', ("logits",)),
        (DICT, "['logits']", ("logits",)),
        (DICT, "hidden.0", ("hidden", 0)),
        (DICT, '["hidden"][1]', ("hidden", 1)),
        (TUPLE, "[1]", (1,)),
        (TUPLE, "1", (1,)),
        (TreeSequence("tuple", (A, B), ("mean", "scale")), "scale", (1,)),
    ],
)
def test_a_port_is_selected(tree: Tree, port: str, path: tuple[int | str, ...]) -> None:
    assert select(tree, port) == path
    assert get_path(tree, path) is not None


@pytest.mark.parametrize("port", ["nothing", "[9]", "hidden.7", ""])
def test_a_missing_port_is_an_error(port: str) -> None:
    if port:
        with pytest.raises(KeyError):
            select(DICT, port)
    with pytest.raises(KeyError):
        get_path(DICT, ("nothing",))


def test_every_tensor_is_found_with_its_path() -> None:
    assert list(leaves(DICT)) == [(("logits",), A), (("hidden", 0), B), (("hidden", 1), A)]
    assert list(leaves(TreeSequence("list", (Literal(3), Opaque("Cache"))))) == []
    call = Call((Argument(Literal(True)), Argument(TUPLE)))
    assert list(call_leaves(call)) == [((1, 0), A), ((1, 1), B)]
    assert call.elements == 10 + 14
    assert str(call) == "float32[2, 5], float32[2, 7]"


def test_a_tensor_is_replaced_and_the_rest_is_kept() -> None:
    new = TensorSpec("float32", (9,))
    assert get_path(replace_leaf(DICT, ("hidden", 1), new), ("hidden", 1)) == new
    assert get_path(replace_leaf(DICT, ("hidden", 1), new), ("hidden", 0)) == B
    with pytest.raises(KeyError):
        replace_leaf(DICT, ("logits", 0), new)
    with pytest.raises(KeyError):
        replace_call_leaf(Call((Argument(A),)), {("x",): new})


def test_a_call_is_resized_on_each_of_its_axes() -> None:
    call = Call((Argument(TensorSpec("float32", (2, 5), sample=3)), Argument(B)))
    wider = resized(call, (((0,), 1), ((1,), 1), ((0,), 0)), 9)
    first, second = (spec for _, spec in call_leaves(wider))
    assert first == TensorSpec("float32", (9, 9))
    assert second == TensorSpec("float32", (2, 9))


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (A, "a tensor"),
        (TUPLE, "a tuple of 2"),
        (DICT, "a dict with logits, hidden"),
        (TreeMapping(()), "a dict with nothing"),
        (Literal(None), "nothing"),
        (Literal(3), "the int 3"),
        (Opaque("DynamicCache"), "an object of type DynamicCache"),
    ],
)
def test_a_tree_is_described(tree: Tree, text: str) -> None:
    assert describe_tree(tree) == text


NESTED = TreeSequence(
    "tuple",
    (A, TreeMapping((("a b", B), ("0", A), ("c", TreeSequence("tuple", (A, B), ("x", "y"))))), B),
    ("mean", "extra", "scale"),
)


@pytest.mark.parametrize(
    ("tree", "path", "name"),
    [
        (DICT, ("logits",), "logits"),
        (DICT, ("hidden", 1), "hidden[1]"),
        (TUPLE, (1,), "[1]"),
        (NESTED, (0,), "mean"),
        (NESTED, (1, "a b"), 'extra["a b"]'),
        (NESTED, (1, "0"), 'extra["0"]'),
        (NESTED, (1, "c", 1), "extra.c.y"),
    ],
)
def test_a_port_has_one_name_and_is_found_by_every_way_to_write_it(
    tree: Tree, path: tuple[int | str, ...], name: str
) -> None:
    assert port_name(path, tree) == name
    dotted = ".".join(map(str, path))
    texts = [name, keystr(path), keystr(path).replace('"', "'"), dotted, f"out{keystr(path)}"]
    if not name.startswith("["):
        texts.append(f"out.{name}")
    for text in texts:
        assert find_path(tree, text) == path


KEYS = st.one_of(st.sampled_from(["a", "b", "a b", "0", "out"]), st.text(min_size=1, max_size=3))
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.just(A),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: TreeSequence("list", tuple(items))),
        st.dictionaries(KEYS, inner, max_size=3).map(lambda d: TreeMapping(tuple(d.items()))),
    ),
    max_leaves=8,
)


@given(TREES)
def test_every_tensor_of_a_tree_is_found_by_its_name(tree: Tree) -> None:
    for path, _ in leaves(tree):
        name = port_name(path, tree)
        if path:
            assert port_name(find_path(tree, name) or (), tree) == name


def test_a_word_is_found_before_another_way_to_write_a_path() -> None:
    tree = TreeMapping((("a", TreeMapping((("b", A),))), ("a.b", B)))
    assert find_path(tree, '["a.b"]') == ("a.b",)
    assert find_path(tree, "a.b") == ("a", "b")


def test_only_integers_of_32_and_64_bits_may_hold_ids() -> None:
    assert TensorSpec("int64", ()).may_hold_ids
    assert not TensorSpec("uint8", ()).may_hold_ids


def test_the_names_of_all_parts_are_those_of_each() -> None:
    leaf = TensorSpec("float32", (2,))
    pair = TreeSequence("tuple", (leaf, Literal(None)), ("mean", "log var"))
    tree = TreeMapping((("out", pair), ("a b", TreeSequence("list", (leaf, pair))), ("n", leaf)))
    names = port_names(tree)
    assert list(names) == paths(tree)
    assert names == {path: port_name(path, tree) for path in paths(tree)}
    assert port_names(leaf) == {(): ""}


def test_the_names_of_many_outputs_take_one_walk() -> None:
    count = 100_000
    tree = TreeMapping(tuple((f"o{number}", Literal(None)) for number in range(count)))
    started = process_time()
    assert find_path(tree, f"o{count - 1}") == (f"o{count - 1}",)
    assert process_time() - started < 20
