"""TorchScript source: what has the form that PyTorch's printer writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.files.torchscript_source import MAX_USE_DEPTH, read_program
from composecli.files.torchscript_types import MAX_TYPE_DEPTH, NotPrinted, Type, read_type

PRINTED = """op_version_set = 1
import __torch__.other
class Model(Module):
  __parameters__ = ["weight", ]
  __buffers__ = []
  __forward_hooks__ = ["hook", ]
  __annotations__ = []
  weight : Tensor
  __annotations__["a-b"] = __torch__.other.___torch_mangle_4.Linear
  sizes : Dict[str, List[Tuple[int, str]]]
  nothing : Tuple[()]
  F : Final[float] = inf
  S : Final[Tuple[str, int]] = ("a\\"[{b\\\\", -2)
  def forward(self: __torch__.Model,
    x: Tensor,
    scale: float=-1.0000000000000001e-30,
    size: Tuple[int]=(1,),
    device: Device=torch.device("cpu"),
    names: List[str]=annotate(List[str], []),
    kind: __torch__.Kind=__torch__.Kind.A,
    pair: __torch__.Pair=__torch__.Pair(1, CONSTANTS.c0),
    table: Dict[str, int]={"a": 1, "b": 2},
    rest: Optional[Tensor]=None) -> Tuple[Tensor, int]:
    def __forked_function0():
      return torch.add(x, 1)
    _0 = fork(__forked_function0)
    if torch.gt(1., 2):
      a, b, = (x)[1:2]
    else:
      pass
    return (x, 3)
class Pair(NamedTuple):
  first : int
  second : Tensor
class Kind(Enum):
  A = "é"
  B = "b"
class Run(ModuleInterface):
  def forward(self, x: Tensor) -> Tensor:
    pass
def free(x: Tensor) -> Tensor:
  return x
"""


def test_what_the_printer_writes_is_read() -> None:
    program = read_program({"__torch__": PRINTED.encode()})
    assert list(program) == [f"__torch__.{n}" for n in ("Model", "Pair", "Kind", "Run", "free")]
    model = program["__torch__.Model"]
    assert list(model.attributes) == ["weight", "a-b", "sizes", "nothing"]
    assert model.attributes["a-b"] == Type("__torch__.other.___torch_mangle_4.Linear")
    assert program["__torch__.Kind"].members == ["é", "b"]
    assert program["__torch__.Run"].methods["forward"].returns == Type("Tensor")


@given(place=st.integers(0, len(PRINTED) - 1), text=st.sampled_from("\t\r\f\0#'\\;$`?\u2028\xa0"))
def test_a_character_that_the_printer_does_not_write_is_refused(place: int, text: str) -> None:
    changed = PRINTED[:place] + text + PRINTED[place:]
    quotes = PRINTED[:place].rpartition("\n")[2].count('"')
    if quotes and text not in "\t\r\f\0":
        return
    with pytest.raises(NotPrinted):
        read_program({"__torch__": changed.encode()})


@pytest.mark.parametrize("call", ["torch.ones([1])", "x", "a.b", "1 + 2", "f()", "[i for i in x]"])
@pytest.mark.parametrize("literal", ["3", '"a"', "(1,)", 'torch.device("cpu")', "CONSTANTS.c0"])
def test_only_literals_are_default_values(literal: str, call: str) -> None:
    source = "def f(x: int=[{}]) -> int:\n  return x\n"
    read_program({"__torch__": source.format(literal).encode()})
    with pytest.raises(NotPrinted, match="line 1"):
        read_program({"__torch__": source.format(f"{literal}, {call}").encode()})


@pytest.mark.parametrize(
    "text", ["List[", "List[]", "a b", "int]", "torch.save()", "[int]", "3", ""]
)
def test_other_texts_are_no_types(text: str) -> None:
    with pytest.raises(NotPrinted):
        read_type(text)


def test_types_may_be_nested_up_to_the_limit() -> None:
    read_type("List[" * MAX_TYPE_DEPTH + "int" + "]" * MAX_TYPE_DEPTH)
    with pytest.raises(NotPrinted, match="nested"):
        read_type("List[" * (MAX_TYPE_DEPTH + 1) + "int" + "]" * (MAX_TYPE_DEPTH + 1))


def _chain(count: int, last: str) -> bytes:
    """Return classes that each have the next one as an attribute."""
    lines = [f"class C{number}:\n  a : __torch__.C{number + 1}\n" for number in range(count - 1)]
    return "".join([*lines, f"class C{count - 1}:\n  a : {last}\n"]).encode()


@pytest.mark.parametrize("last", ["int", "__torch__.C0"])
def test_chains_of_classes_are_limited(last: str) -> None:
    read_program({"__torch__": _chain(MAX_USE_DEPTH, last)})
    with pytest.raises(NotPrinted, match="chains"):
        read_program({"__torch__": _chain(MAX_USE_DEPTH + 1, last)})


def test_wide_programs_are_no_chains() -> None:
    lines = [f"  a{number} : __torch__.Leaf\n" for number in range(2000)]
    source = "class Model:\n" + "".join(lines) + "class Leaf:\n  a : int\n"
    assert len(read_program({"__torch__": source.encode()})) == 2
