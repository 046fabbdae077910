"""Types, signatures and literals in TorchScript source, as PyTorch's printer writes them.

PyTorch evaluates the default values of arguments and the constants of classes while it compiles the
code, before anything can look at a graph. So these may only be literals, which compute nothing:

    None, True, 3, -1.5e-05, inf, "text", [1, 2], (1,), {"a": 1}, torch.device("cpu"),
    CONSTANTS.c0, annotate(List[int], []), an enum's member, a named tuple of such values

The text that is read here has `"` in the place of each string, see `torchscript_source`.

Source of the format: `torch/csrc/jit/serialization/python_print.cpp`, and
`torch/csrc/jit/frontend/script_type_parser.cpp` for what is evaluated.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

# PyTorch reads types and literals by recursion. The types of real models nest five deep.
MAX_TYPE_DEPTH = 32

NUMBER = r"\d+(?:\.\d*)?(?:e[+-]?\d+)?j?"
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_TOKEN = re.compile(rf'{IDENTIFIER}|{NUMBER}|->|["()\[\]{{}},.:=+-]')
_CONSTANT = re.compile(r"c\d{1,9}")
_SIMPLE_VALUES = frozenset(("None", "True", "False", "inf", "nan", '"'))
_MODULE_OF_THE_FILE = "__torch__"
_KEYWORDS = frozenset(
    (
        "and", "as", "assert", "break", "class", "continue", "def", "del", "elif", "else", "for",
        "global", "if", "import", "in", "is", "lambda", "not", "or", "pass", "raise", "return",
        "while", "with",
    )
)  # fmt: skip


class NotPrinted(Exception):
    """Source that PyTorch does not print. The message says what is wrong with it."""


class Type(NamedTuple):
    """A type such as `Dict[str, List[int]]`: its dotted name and the types in its brackets."""

    name: str
    arguments: tuple[Type, ...] = ()


class Signature(NamedTuple):
    """The types of a function's parameters and of its value, None if unstated."""

    name: str
    parameters: tuple[Type | None, ...]
    returns: Type | None


@lru_cache(maxsize=4096)
def read_type(text: str) -> Type:
    """Return the type that a text is.

    Raises:
        NotPrinted: if it is anything else.
    """
    reader = Reader(text)
    found = reader.read_type()
    reader.expect_end()
    return found


class Reader:
    """Reads the tokens of one line.

    `constructed` are the classes of the file that a literal calls. Only a named tuple may be called
    there, because a class would run code.
    """

    def __init__(self, text: str) -> None:
        """Split a text into tokens.

        Raises:
            NotPrinted: if there are other characters in it.
        """
        self._tokens = _TOKEN.findall(text)
        self._place = 0
        self.constructed = list[str]()
        if "".join(self._tokens) != re.sub(r"[ \n]", "", text):
            raise NotPrinted("a character that PyTorch does not print there")

    def _peek(self) -> str:
        """Return the next token, empty at the end."""
        if self._place < len(self._tokens):
            return str(self._tokens[self._place])
        return ""

    def _next(self) -> str:
        """Return the next token and move behind it."""
        token = self._peek()
        self._place += 1
        return token

    def _accept(self, token: str) -> bool:
        """Move behind the next token if it is this one."""
        is_next = self._peek() == token
        if is_next:
            self._place += 1
        return is_next

    def expect(self, token: str) -> None:
        """Move behind a token.

        Raises:
            NotPrinted: if the next one is another.
        """
        if not self._accept(token):
            raise NotPrinted(f"{self._peek() or 'the end'} in the place of {token}")

    def expect_end(self) -> None:
        """Check that every token is read.

        Raises:
            NotPrinted: if not.
        """
        if self._peek():
            raise NotPrinted(f"{self._peek()} in the place of the end")

    def identifier(self) -> str:
        """Read a name that is no keyword.

        Raises:
            NotPrinted: if the next token is none.
        """
        token = self._next()
        if not token[:1].isidentifier() or token in _KEYWORDS:
            raise NotPrinted(f"{token or 'the end'} in the place of a name")
        return token

    def _dotted_name(self) -> str:
        """Read a name such as `__torch__.models.Encoder`."""
        name = self.identifier()
        while self._accept("."):
            name += f".{self.identifier()}"
        return name

    def read_type(self, depth: int = 0) -> Type:
        """Read a type: a name, and the types in its brackets. `Tuple[()]` is the empty tuple.

        Raises:
            NotPrinted: if it is anything else, or nested too deep.
        """
        if depth > MAX_TYPE_DEPTH:
            raise NotPrinted("a type that is nested deeper than in any model")
        name = self._dotted_name()
        if not self._accept("["):
            return Type(name)
        if self._accept("("):
            self.expect(")")
            self.expect("]")
            return Type(name)
        arguments = [self.read_type(depth + 1)]
        while self._accept(","):
            arguments.append(self.read_type(depth + 1))
        self.expect("]")
        return Type(name, tuple(arguments))

    def read_signature(self) -> Signature:
        """Read `def name(self, x: Tensor, size: int=3) -> Tensor:` to its end.

        Raises:
            NotPrinted: if it is anything else, or a default value is no literal.
        """
        self.expect("def")
        name = self.identifier()
        self.expect("(")
        parameters = list[Type | None]()
        while not self._accept(")"):
            if parameters:
                self.expect(",")
            parameters.append(self._parameter())
        returns = None
        if self._accept("->"):
            returns = self.read_type()
        self.expect(":")
        self.expect_end()
        return Signature(name, tuple(parameters), returns)

    def _parameter(self) -> Type | None:
        """Read a parameter and its default value, if it has one, and return its type."""
        self.identifier()
        kind = None
        if self._accept(":"):
            kind = self.read_type()
        if self._accept("="):
            self.read_literal()
        return kind

    def read_literal(self, depth: int = 0) -> None:
        """Read a value that computes nothing.

        Raises:
            NotPrinted: if it is anything else, or nested too deep.
        """
        if depth > MAX_TYPE_DEPTH:
            raise NotPrinted("a value that is nested deeper than in any model")
        token = self._peek()
        if token == "-":
            self._next()
            token = self._peek()
            if token not in ("inf", "nan") and not token[:1].isdigit():
                raise NotPrinted(f"- before {token or 'the end'}")
        if token in _SIMPLE_VALUES or token[:1].isdigit():
            self._next()
        elif token in _CONTAINERS:
            self._next()
            self._read_items(_CONTAINERS[token], depth + 1, is_dict=token == "{")
        else:
            self._read_named(depth + 1)

    def _read_items(self, end: str, depth: int, *, is_dict: bool = False) -> None:
        """Read literals up to the end of a container."""
        while not self._accept(end):
            self.read_literal(depth)
            if is_dict:
                self.expect(":")
                self.read_literal(depth)
            if self._peek() != end:
                self.expect(",")

    def _read_named(self, depth: int) -> None:
        """Read a value that starts with a name: a constant, a device, or one of the file's types.

        Raises:
            NotPrinted: if it is a call or a variable.
        """
        name = self._dotted_name()
        head, _, last = name.rpartition(".")
        if name == "annotate":
            self.expect("(")
            self.read_type(depth)
            self.expect(",")
            self.read_literal(depth)
            self.expect(")")
        elif name == "torch.device":
            for token in ("(", '"', ")"):
                self.expect(token)
        elif head == "CONSTANTS" and _CONSTANT.fullmatch(last):
            return
        elif name.startswith(f"{_MODULE_OF_THE_FILE}."):
            self._read_own_value(name, depth)
        else:
            raise NotPrinted(f"{name}, which PyTorch would evaluate")

    def _read_own_value(self, name: str, depth: int) -> None:
        """Read the rest of an enum's member, or of a named tuple with its fields."""
        if self._accept("("):
            self.constructed.append(name)
            self._read_items(")", depth)


_CONTAINERS = {"[": "]", "(": ")", "{": "}"}
