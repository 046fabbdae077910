"""The source of TorchScript code: whether it has the form in which PyTorch's printer writes it.

PyTorch compiles the code of an archive before anything can look at its graphs. While it does so, it
evaluates default values and constants of classes, and it reads expressions by recursion. So the
source is checked first. It is read in three steps, each of which refuses any unknown form:

1. Characters and strings. There are no comments, continued lines, tabs or triple quotes, so that a
   line ends where it ends for PyTorch's lexer, and a string does, too.
2. Lines. At the top are classes and functions; in a class are attributes, constants and methods.
3. Signatures, attributes and constants, in `torchscript_types`.

The statements of a function only have to be lines, since PyTorch does not run them: its graph is
scanned afterwards. A function inside a function takes no arguments, and so has no default values.

Source of the format: `torch/csrc/jit/serialization/python_print.cpp` writes it, and
`torch/csrc/jit/frontend/lexer.h`, `parser.cpp` and `import_source.cpp` read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from composecli.files.torchscript_types import (
    IDENTIFIER,
    NUMBER,
    NotPrinted,
    Reader,
    Signature,
    Type,
    read_type,
)

# PyTorch reads these by recursion, and 8 MiB of stack are enough for 1000 to 3000 levels. A line
# that is shorter than these limits cannot exceed them.
MAX_EXPRESSION_DEPTH = 200
MAX_BLOCK_DEPTH = 100
# Classes and functions that use each other: PyTorch compiles the next before it finishes the last.
MAX_USE_DEPTH = 250
# Some of the largest models have ten thousand.
MAX_DEFINITIONS = 200_000

_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"')
_FORM = re.compile(
    r"(?:[ !%&()*+,\-./0-9:<=>@A-Z\[\]^_a-z{|}~\n]++"
    r'|"(?!"")(?:[^"\\\x00-\x1f\x7f]++|\\[^\x00-\x1f\x7f])*+")*+'
)
# A number that runs on into letters or dots ends somewhere else for PyTorch than it seems.
_RUN_ON = re.compile(rf"(?<![\w.])(?!{NUMBER}(?![\w.]))\d|(?<!\d)\.\d", re.ASCII)
_RESERVED_WORD = re.compile(r"\b(?:def|class|import|global|elif|lambda|op_version_set)\b")
_INNER_FUNCTION = re.compile(rf" *def {IDENTIFIER}\(\):")
_CLASS = re.compile(rf"class ({IDENTIFIER})(?:\(({IDENTIFIER})\))?:")
_BASES = ("Module", "NamedTuple", "Interface", "ModuleInterface", "Enum")
_NAMES = re.compile(
    r'  __(?:parameters|buffers|forward_hooks|forward_pre_hooks)__ = \[(?:", ?)*"?\]'
    r"|  __annotations__ = \[\]"
)
_ATTRIBUTE = re.compile(rf"  ({IDENTIFIER}) : ([^=]+)")
_QUOTED_ATTRIBUTE = re.compile(r'  __annotations__\["\] = (.+)')
_QUOTED_NAME = re.compile(r'\["((?:[^"\\]|\\.)*)"\]')
_CONSTANT = re.compile(rf"  ({IDENTIFIER}) : Final(\[.+\]) = (.+)")
_MEMBER = re.compile(rf'  ({IDENTIFIER}) = (-?{NUMBER}|"(?:[^"\\]|\\.)*")')
_OLD_HEADER = re.compile(r"op_version_set = \d{1,9}|import [\w.]+", re.ASCII)
_OWN_NAME = re.compile(r"__torch__(?:\.[A-Za-z_]\w*)+", re.ASCII)
_DEPTH_TOKEN = re.compile(rf"[(\[{{]|[)\]}}]|,|\*\*|//|[<>=!]=|[-+*/%@<>&|^~.:=]|{IDENTIFIER}")
_OPENING, _CLOSING = "([{", ")]}"
_WORD_OPERATORS = ("and", "or", "not", "in", "is", "if", "else", "for")
_METHOD_INDENT = 2


@dataclass(slots=True)
class Definition:
    """A class or a function of an archive's code, by its qualified name.

    `base` is that of a class, such as `Module` or `NamedTuple`, empty if it has none, and None for
    a function. `attributes` are the types of a class's attributes or fields, in order, `members`
    the values of an enum, and `methods` the signatures of its methods. `uses` are the other
    definitions that PyTorch may compile for it.
    """

    name: str
    base: str | None
    attributes: dict[str, Type] = field(default_factory=dict)
    members: list[float | int | str] = field(default_factory=list)
    methods: dict[str, Signature] = field(default_factory=dict)
    uses: set[str] = field(default_factory=set)


# Definitions by their qualified names.
Program = Mapping[str, Definition]


def read_program(sources: Mapping[str, bytes]) -> Program:
    """Return the definitions in the sources of an archive, by the module that each one is.

    The source of `code/__torch__/models.py` is the module `__torch__.models`.

    Raises:
        NotPrinted: if a source is not as PyTorch prints it. The message names the line.
    """
    program = dict[str, Definition]()
    constructed = dict[str, str]()
    for module, source in sources.items():
        reader = _SourceReader(module, source)
        for definition in reader.definitions():
            if definition.name in program:
                raise NotPrinted(f"{definition.name} is defined twice")
            program[definition.name] = definition
        constructed |= reader.constructed
        if len(program) > MAX_DEFINITIONS:
            raise NotPrinted(f"there are more than {MAX_DEFINITIONS:,} definitions")
    for name, place in constructed.items():
        if name not in program or program[name].base != "NamedTuple":
            raise NotPrinted(f"{place}: a call of {name}, which PyTorch would run")
    _check_uses(program)
    return program


class _SourceReader:
    """Reads one source from its first line to its last."""

    def __init__(self, module: str, source: bytes) -> None:
        """Check the characters, and split the text into lines with and without its strings."""
        self._module = module
        text = source.decode("latin-1")
        form = _FORM.match(text)
        assert form is not None
        if form.end() != len(text):
            line = text.count("\n", 0, form.end()) + 1
            what = "a character that PyTorch does not print"
            if text[form.end()] > "\x7f":
                what = "a name beyond ASCII, which PyTorch prints but cannot load"
            raise NotPrinted(f"{module}, line {line}: {what}")
        without_strings = _STRING.sub('"', text)
        run_on = _RUN_ON.search(without_strings)
        if run_on is not None:
            line = without_strings.count("\n", 0, run_on.start()) + 1
            raise NotPrinted(f"{module}, line {line}: a number that runs on")
        self._originals = text.split("\n")
        self._lines = without_strings.split("\n")
        self._place = 0
        self.constructed = dict[str, str]()

    def definitions(self) -> Iterator[Definition]:
        """Yield the classes and functions.

        Raises:
            NotPrinted: if a line does not have the form that it has to have.
        """
        try:
            while self._place < len(self._lines):
                line = self._lines[self._place]
                if line.startswith("class "):
                    yield self._read_class(line)
                elif line.startswith("def "):
                    definition = Definition(self._qualified(line[4:].partition("(")[0]), None)
                    self._read_function(definition, 0)
                    yield definition
                elif not line.strip() or _OLD_HEADER.fullmatch(line):
                    self._place += 1
                else:
                    raise NotPrinted("neither a class nor a function")
        except NotPrinted as error:
            raise NotPrinted(f"{self._module}, line {self._place + 1}: {error}") from None

    def _qualified(self, name: str) -> str:
        return f"{self._module}.{name}"

    def _read_class(self, line: str) -> Definition:
        """Read a class: its attributes, and then its methods."""
        match = _CLASS.fullmatch(line)
        if match is None or match[2] not in (None, *_BASES):
            raise NotPrinted("a class of a kind that PyTorch does not print")
        definition = Definition(self._qualified(match[1]), match[2] or "")
        self._place += 1
        while self._place < len(self._lines):
            line = self._lines[self._place]
            if line.startswith("  def "):
                signature = self._read_function(definition, _METHOD_INDENT)
                if signature.name in definition.methods:
                    raise NotPrinted(f"{signature.name} is defined twice")
                definition.methods[signature.name] = signature
            elif line.startswith("  "):
                self._read_field(definition, line)
                self._place += 1
            else:
                break
        return definition

    def _read_field(self, definition: Definition, line: str) -> None:
        """Read a line of a class that is not part of a method."""
        constant = _CONSTANT.fullmatch(line)
        if definition.base == "Enum":
            self._read_member(definition)
        elif definition.base in ("Interface", "ModuleInterface"):
            raise NotPrinted("an interface with more than methods")
        elif attribute := _ATTRIBUTE.fullmatch(line):
            self._add_attribute(definition, attribute[1], attribute[2])
        elif definition.base == "NamedTuple":
            # PyTorch would take the type of a field with a default value for an expression.
            raise NotPrinted("a named tuple with more than the types of its fields")
        elif attribute := _QUOTED_ATTRIBUTE.fullmatch(line):
            name = _QUOTED_NAME.search(self._originals[self._place])
            assert name is not None
            self._add_attribute(definition, name[1], attribute[1])
        elif constant is not None:
            read_type(f"Final{constant[2]}")
            self._read_literal(constant[3])
        elif not _NAMES.fullmatch(line):
            raise NotPrinted("a statement that PyTorch does not print in a class")

    def _add_attribute(self, definition: Definition, name: str, text: str) -> None:
        """Add an attribute with its type."""
        if name in definition.attributes:
            raise NotPrinted(f"{name} is defined twice")
        definition.attributes[name] = read_type(text)
        definition.uses.update(_OWN_NAME.findall(text))

    def _read_member(self, definition: Definition) -> None:
        """Read a member of an enum, whose value is a number or a text."""
        match = _MEMBER.fullmatch(self._originals[self._place])
        if match is None:
            raise NotPrinted("a member of an enum that is neither a number nor a text")
        definition.members.append(_value_of(match[2]))

    def _read_literal(self, text: str) -> None:
        """Read a value that PyTorch evaluates."""
        reader = Reader(text)
        reader.read_literal()
        reader.expect_end()
        self._note(reader)

    def _note(self, reader: Reader) -> None:
        """Note the classes that literals call, which must prove to be named tuples."""
        for name in reader.constructed:
            self.constructed[name] = f"{self._module}, line {self._place + 1}"

    def _read_function(self, definition: Definition, indent: int) -> Signature:
        """Read a function and its statements, and add the names that it uses to a definition."""
        text = self._lines[self._place]
        while _balance(text) and self._place + 1 < len(self._lines):
            self._place += 1
            text += f"\n{self._lines[self._place]}"
        reader = Reader(text)
        signature = reader.read_signature()
        self._note(reader)
        definition.uses.update(_OWN_NAME.findall(text))
        self._place += 1
        self._read_statements(definition, indent)
        return signature

    def _read_statements(self, definition: Definition, indent: int) -> None:
        """Read the statements of a function, which are indented more than its first line."""
        margin = " " * (indent + 1)
        for line in self._lines[self._place :]:
            if line and not line.startswith(margin):
                break
            _check_statement(line)
            if "__torch__" in line:
                definition.uses.update(_OWN_NAME.findall(line))
            self._place += 1


def _value_of(text: str) -> float | int | str:
    """Return the value of an enum's member."""
    if text.startswith('"'):
        return text[1:-1].encode("latin-1").decode("utf-8", "surrogateescape")
    if text.removeprefix("-").isdigit():
        return int(text)
    return float(text.removesuffix("j"))


def _balance(text: str) -> int:
    """Return how many brackets are still open at the end of a line."""
    count = text.count
    return count("(") + count("[") + count("{") - count(")") - count("]") - count("}")


def _check_statement(line: str) -> None:
    """Check that a line is one statement, of no kind that defines or evaluates anything.

    Raises:
        NotPrinted: if not, or if it is nested deeper than in any model.
    """
    if _balance(line):
        raise NotPrinted("a statement of more than one line")
    if _RESERVED_WORD.search(line) and not _INNER_FUNCTION.fullmatch(line):
        raise NotPrinted("a statement that PyTorch does not print in a function")
    if len(line) <= MAX_EXPRESSION_DEPTH:
        return
    statement = line.lstrip(" ")
    if len(line) - len(statement) > 2 * MAX_BLOCK_DEPTH:
        raise NotPrinted("blocks that are nested deeper than in any model")
    if _depth(statement) > MAX_EXPRESSION_DEPTH:
        raise NotPrinted("an expression that is nested deeper than in any model")


def _depth(statement: str) -> int:
    """Return how deep an expression can be nested at most.

    Every operator, bracket and dot may add a level, up to the next comma:

        torch.add(torch.mul(x, y), 1)  ->  . ( . (  ->  4
    """
    deepest = depth = 0
    bases = list[int]()
    for token in _DEPTH_TOKEN.findall(statement):
        if token in _OPENING:
            depth += 1
            bases.append(depth)
        elif token in _CLOSING:
            if bases:
                depth = bases.pop()
        elif token == ",":
            depth = bases[-1] if bases else 0
        elif token in _WORD_OPERATORS or not token[0].isidentifier():
            depth += 1
        deepest = max(deepest, depth)
    return deepest


def _check_uses(program: Program) -> None:
    """Check that no chain of definitions that use each other is too long.

    Definitions that use each other in a circle may all be compiled one inside the other.

    Raises:
        NotPrinted: if one is.
    """
    links = {name: _used(program, name) for name in program}
    below, circular = _peel(links)
    users = {name: set[str]() for name in circular}
    for name in circular:
        for used in links[name] & circular:
            users[used].add(name)
    above, circular = _peel(users)
    if below + len(circular) + above > MAX_USE_DEPTH:
        raise NotPrinted("its definitions use each other in longer chains than in any model")


def _peel(links: Mapping[str, set[str]]) -> tuple[int, set[str]]:
    """Return the length of the longest chain that leads into no circle, and all other names."""
    users = dict[str, list[str]]()
    unfinished = dict[str, int]()
    for name, targets in links.items():
        unfinished[name] = len(targets)
        for target in targets:
            users.setdefault(target, []).append(name)
    lengths = dict[str, int]()
    ready = [name for name, count in unfinished.items() if count == 0]
    while ready:
        name = ready.pop()
        lengths[name] = 1 + max((lengths[target] for target in links[name]), default=0)
        for user in users.get(name, ()):
            unfinished[user] -= 1
            if unfinished[user] == 0:
                ready.append(user)
    return max(lengths.values(), default=0), set(links).difference(lengths)


def _used(program: Program, name: str) -> set[str]:
    """Return the definitions that a definition uses: the text may name their members, too."""
    used = set[str]()
    for text in program[name].uses:
        used.update((text, text.rpartition(".")[0]))
    used.discard(name)
    return used & program.keys()
