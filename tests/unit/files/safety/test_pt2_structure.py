"""Pytree specs: containers and constants pass, and whatever PyTorch would import does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from composecli.files.safety.pt2_structure import (
    MAX_DEPTH,
    UnknownStructure,
    check_structure,
    is_argument_name,
    is_unquoted,
)

LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
ENUM = {"__enum__": True, "fqn": "ctypes:CDLL", "name": "./lib.so"}
ENVIRONMENT = {"__enum__": True, "fqn": "os:environ", "name": "HOME"}
FACTORY = {
    "default_factory_module": "ctypes",
    "default_factory_name": "CDLL",
    "dict_context": ["a"],
}


BUILT_IN = {**FACTORY, "default_factory_module": "builtins", "default_factory_name": "list"}


def node(kind: Any, context: object, count: int = 0) -> dict[str, Any]:
    return {"type": kind, "context": context, "children_spec": [LEAF] * count}


def spec(kind: Any, context: object, count: int = 0) -> str:
    return json.dumps([1, node(kind, context, count)])


def problem(text: object, *, is_input: bool = False) -> str | None:
    try:
        check_structure(text, is_input=is_input)
    except UnknownStructure as error:
        return str(error)
    return None


PLAIN = {
    "leaf": json.dumps([1, LEAF]),
    "tuple": spec("builtins.tuple", "null", 2),
    "list": spec("builtins.list", "null", 1),
    "size": spec("torch.Size", "null", 1),
    "list of torch.fx": spec("torch.fx.immutable_collections.immutable_list", "null"),
    "dict": spec("builtins.dict", '["a", 7, 2.5, null, true]', 5),
    "dict of torch.fx": spec("torch.fx.immutable_collections.immutable_dict", '["a"]', 1),
    "ordered dict": spec("collections.OrderedDict", '["a", "b"]', 2),
    "deque": spec("collections.deque", "3", 1),
    "deque without a limit": spec("collections.deque", "null", 1),
    "default dict": spec("collections.defaultdict", BUILT_IN, 1),
    "namedtuple of a library": spec("collections.namedtuple", "library.Point", 2),
    "dataclass of a library": spec("library.Output", '[["a", "b"], ["c"]]', 2),
    "output of transformers": spec(
        "transformers.modeling_outputs.BaseModelOutput", '["last_hidden_state"]', 1
    ),
    "class that dumps its context": spec("library.Output", {"keys": ["a"]}, 1),
}
REFUSED = {
    "enum as a key": spec("builtins.dict", json.dumps([ENUM]), 1),
    "enum as the context": spec("builtins.dict", json.dumps(ENUM)),
    "environment as a key": spec("collections.OrderedDict", json.dumps([ENVIRONMENT]), 1),
    "enum in a tuple": spec("builtins.tuple", json.dumps(ENUM)),
    "enum in a list of torch.fx": spec(
        "torch.fx.immutable_collections.immutable_list", json.dumps(ENUM)
    ),
    "enum in a dict of torch.fx": spec(
        "torch.fx.immutable_collections.immutable_dict", json.dumps([ENUM]), 1
    ),
    "enum in a size": spec("torch.Size", json.dumps(ENUM)),
    "enum in a deque": spec("collections.deque", json.dumps(ENUM)),
    "enum of a library's class": spec("library.Output", json.dumps([["a"], ENUM]), 1),
    "enum of a class that dumps": spec("library.Output", {"a": {"b": [ENUM]}}, 1),
    "enum with other keys": spec("library.Output", json.dumps({"x": 1, **ENUM}), 1),
    "factory": spec("collections.defaultdict", FACTORY, 1),
    "factory that is a function": spec(
        "collections.defaultdict", {**BUILT_IN, "default_factory_name": "input"}, 1
    ),
    "factory that is no text": spec(
        "collections.defaultdict", {**BUILT_IN, "default_factory_name": ["list"]}, 1
    ),
    "default dict with fewer keys": spec("collections.defaultdict", BUILT_IN, 2),
    "default dict with more entries": spec("collections.defaultdict", {**BUILT_IN, "x": 1}, 1),
    "factory as a text": spec("collections.defaultdict", json.dumps(FACTORY), 1),
    "namedtuple that is a dict": spec("collections.namedtuple", "builtins.dict", 1),
    "namedtuple of torch": spec("collections.namedtuple", "torch.Size", 1),
    "namedtuple by an enum": spec("collections.namedtuple", json.dumps(ENUM), 1),
    "another class of Python": spec("builtins.set", "null"),
    "another class of torch": spec("torch.return_types.max", "null"),
    "a type that is no name": spec("import os", "null"),
    "a type that is no text": spec(["builtins.dict"], "null"),
    "a context that is no text": spec("builtins.dict", ["a"], 1),
    "fewer keys than values": spec("builtins.dict", '["a"]', 2),
    "the same key twice": spec("builtins.dict", '["a", "a"]', 2),
    "keys that are equal": spec("builtins.dict", "[1, true]", 2),
    "a key that is a list": spec("builtins.dict", '[["a"]]', 1),
    "a context with the same key twice": spec("library.Output", '{"a": 1, "a": 2}'),
    "a leaf with a context": json.dumps([1, {**LEAF, "context": "null"}]),
    "a leaf with children": spec(None, None, 1),
    "more keys": json.dumps([1, {**LEAF, "x": 1}]),
    "another protocol": json.dumps([2, LEAF]),
    "true as the protocol": json.dumps([True, LEAF]),
    "no list": json.dumps({"a": 1}),
    "a number": "1",
    "no JSON": "[",
    "no text": [1, LEAF],
    "many levels": "[" * 900 + "]" * 900,
}


@pytest.mark.parametrize("name", PLAIN)
def test_containers_and_constants_are_plain(name: str) -> None:
    assert problem(PLAIN[name]) is None


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("depth", [0, 3])
def test_anything_that_could_be_imported_is_not(name: str, depth: int) -> None:
    text: Any = REFUSED[name]
    if depth and name not in ("no list", "a number", "no JSON", "no text", "many levels"):
        protocol, inner = json.loads(text)
        for _ in range(depth):
            inner = {"type": "builtins.tuple", "context": "null", "children_spec": [LEAF, inner]}
        text = json.dumps([protocol, inner])
    assert problem(text) is not None


def test_levels_are_limited() -> None:
    inner: dict[str, Any] = LEAF
    for _ in range(MAX_DEPTH + 1):
        inner = {"type": "builtins.tuple", "context": "null", "children_spec": [inner]}
    assert problem(json.dumps([1, inner])) == "a structure of too many levels"


@pytest.mark.parametrize(
    ("key", "is_plain"),
    [("x", True), ("größe", True), ("x=print()", False), ("a b", False), ("import", False), (3, 0)],
)
def test_a_keyword_of_the_inputs_must_be_a_name(key: object, is_plain: bool) -> None:
    """PyTorch writes `def forward(self, x=print()):`, and runs that line."""
    call = node("builtins.tuple", "null")
    call["children_spec"] = [
        node("builtins.tuple", "null"),
        node("builtins.dict", json.dumps([key]), 1),
    ]
    assert (problem(json.dumps([1, call]), is_input=True) is None) == is_plain
    assert is_argument_name(key) == is_plain


@pytest.mark.parametrize("key", ["\\", "'", '"', '")+print(1)#', "a\nb"])
def test_a_key_of_the_inputs_must_not_end_its_quotes(key: str) -> None:
    text = spec("builtins.dict", json.dumps([key]), 1)
    assert problem(text, is_input=True) is not None
    assert problem(text) is None
    assert not is_unquoted(key)
