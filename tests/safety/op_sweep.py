"""Call the allowed ops with extents beyond their storage, and see which of them leave their memory.

python -m tests.safety.op_sweep [--calls 400] [--seed 0] [--unguarded] [OP ...]

Each op runs in a child process of its own, on small tensors between pages that nobody may touch: a
read or write beyond a tensor ends the child. Arguments are drawn from the op's schema: sizes,
strides, offsets, indices and lengths are small, negative or far too large.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import mmap
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from composecli.files.safety.allowlist import allowed
from composecli.runtime.enum_arguments import READS_NO_DTYPE, enum_of, enums
from composecli.runtime.guarded_kernels import guarded_kernels
from tests.safety.op_calls import CALLS, Floats, Integers

SECONDS = 8
MEMORY = 2_500_000_000
# No offset of a hostile argument leaves this range of addresses, which is reserved and unreadable.
RESERVED = 1 << 38
PAGE = mmap.PAGESIZE
_PROT_NONE, _PROT_RW = 0, 3
_PRIVATE_ANONYMOUS_NORESERVE = 0x4022

DTYPES = (
    torch.float32, torch.float32, torch.float32, torch.float64, torch.int64, torch.int64,
    torch.int32, torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.complex64,
)  # fmt: skip
SHAPES = (
    (), (0,), (1,), (4,), (4,), (2, 3), (3, 3), (4, 4), (2, 2, 3), (1, 2, 4), (2, 2, 2, 2),
    (1, 2, 4, 4), (2, 3, 4, 4), (1, 2, 3, 3, 3), (6, 1),
)  # fmt: skip
SMALL = (0, 1, 2, 3, 4, -1, -2)
HOSTILE = (5, 17, 1000, -5, -1000, 10**6, -(10**6), 2**31 - 1, -(2**31), 2**33, -(2**33), 2**62)
TEXTS = ("mean", "sum", "none", "floor", "trunc", "bilinear", "max", "prod", "linear", "reduced")
# A division by zero, and too long a computation: nothing was read or written.
HARMLESS = (signal.SIGFPE, signal.SIGALRM)
CONSTANTS: dict[str, tuple[Any, ...]] = {
    "float": (0.0, 0.5, 1.0, -1.0, 2.0, 1e9, float("nan"), float("inf")),
    "number": (0, 1, -1, 2, 0.5, 3.0, 10**6),
    "Scalar": (0, 1, -1, 2, 0.5, 3.0, 10**6),
    "bool": (True, False),
    "str": TEXTS,
    "Device": (torch.device("cpu"),),
    "complex": (0.5 + 1j,),
    # The scans refuse other numbers.
    **{name: tuple(range(enum.count)) for name, enum in enums().items()},
}
# They return only after another thread, or are the interpreter's own.
SKIPPED = frozenset(("aten::wait", "aten::warn"))


@dataclass(frozen=True)
class Outcome:
    """What became of one op: how many calls returned, and how its child ended ("" if normally)."""

    op: str
    returned: int
    ending: str
    call: str


class Memory:
    """A page in the middle of a large range of addresses that cannot be touched."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
            ctypes.c_long,
        )  # fmt: skip
        libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        start = libc.mmap(None, RESERVED, _PROT_NONE, _PRIVATE_ANONYMOUS_NORESERVE, -1, 0)
        if start in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "cannot reserve addresses")
        self.libc = libc
        self.middle = start + RESERVED // 2

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype, *, at_end: bool) -> torch.Tensor:
        """Return an empty tensor at one end of a page of its own."""
        page = self.middle
        self.middle += 16 * PAGE
        self.libc.mprotect(page, PAGE, _PROT_RW)
        count = 1
        for size in shape:
            count *= size
        nbytes = max(1, count) * dtype.itemsize
        address = page
        if at_end:
            address += PAGE - nbytes
        buffer = (ctypes.c_char * nbytes).from_address(address)
        flat = torch.frombuffer(buffer, dtype=dtype)
        return flat[:count].reshape(shape)


class Arguments:
    """Draws arguments from schemas."""

    def __init__(self, random: Random, memory: Memory) -> None:
        self.random = random
        self.pool = dict[tuple[Any, ...], list[torch.Tensor]]()
        self.memory = memory
        self.shape: tuple[int, ...] = ()
        self.dtype = torch.float32

    def draw(self, schema: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and named arguments for an op."""
        self.shape = self.random.choice(SHAPES)
        self.dtype = self.random.choice(DTYPES)
        positional = list[Any]()
        named = dict[str, Any]()
        for argument in schema.arguments:
            is_needed = schema.overload_name == READS_NO_DTYPE and argument.name == "dtype"
            if argument.has_default_value() and not is_needed and self.random.random() < 0.4:
                if not argument.kwarg_only:
                    positional.append(argument.default_value)
                continue
            kind = str(argument.real_type)
            enum = enum_of(argument)
            if enum is not None:
                kind = enum.name
            value = self.value(kind, argument.name)
            if argument.kwarg_only:
                named[argument.name] = value
            else:
                positional.append(value)
        return positional, named

    def mutate(self, call: Sequence[Any]) -> list[Any]:
        """Return the arguments of a call that an op accepts, one or two of them made hostile."""
        values = [self._stated(value) for value in call]
        for _ in range(self.random.choice((1, 1, 2))):
            place = self.random.randrange(len(values))
            values[place] = self._hostile(values[place])
        return values

    def _stated(self, value: Any) -> Any:
        """Return a value of a table of calls, with its tensors made."""
        match value:
            case Floats(shape, dtype):
                tensor = self._from_pool(shape, dtype)
                tensor.fill_(1)
                return tensor
            case Integers(numbers, dtype):
                tensor = self._from_pool((len(numbers),), dtype)
                return tensor.copy_(torch.tensor(numbers))
            case list():
                return [self._stated(item) for item in value]
        return value

    def _hostile(self, value: Any) -> Any:
        """Return a value in place of one that an op accepts: beyond its tensors, or of its kind."""
        random = self.random
        match value:
            case torch.Tensor() if value.is_floating_point() or random.random() < 0.2:
                return self._from_pool(random.choice(SHAPES), value.dtype)
            case torch.Tensor():
                flat = value.view(-1)
                for place in range(flat.numel()):
                    if random.random() < 0.6:
                        flat[place] = self._limited()
                return value
            case bool():
                return not value
            case int():
                return random.choice(HOSTILE + SMALL)
            case float():
                return random.choice((-3.0, 1e-9, 1e9, float("nan"), float("inf"), 0.0))
            case list() if value:
                place = random.randrange(len(value))
                changed = self._hostile(value[place])
                return [*value[:place], changed, *value[place + 1 :]]
        return value

    def _limited(self) -> int:
        number = self.random.choice(HOSTILE + SMALL)
        return max(-(2**31), min(2**31 - 1, number))

    def value(self, kind: str, name: str) -> Any:
        """Return a value of a type by its name in schemas."""
        random = self.random
        if kind.startswith("Optional["):
            if random.random() < 0.4:
                return None
            return self.value(kind[9:-1], name)
        if kind.startswith("List["):
            count = random.choice((1, 2, 2, 3, 4, max(1, len(self.shape))))
            if random.random() < 0.05:
                count = 0
            return [self.value(kind[5:-1], name) for _ in range(count)]
        return self._plain(kind, name)

    def _plain(self, kind: str, name: str) -> Any:
        random = self.random
        if kind == "Tensor":
            return self.tensor(name)
        if kind in ("int", "SymInt"):
            return self.integer()
        return random.choice(CONSTANTS.get(kind, (None,)))

    def integer(self) -> int:
        """Return a small number, or one that no tensor here has room for."""
        if self.random.random() < 0.7:
            return self.random.choice(SMALL)
        return self.random.choice(HOSTILE)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor between forbidden pages, mostly of the shape and dtype of this call."""
        random = self.random
        shape, dtype = self.shape, self.dtype
        if random.random() < 0.4:
            shape = random.choice(SHAPES)
        if random.random() < 0.25:
            dtype = random.choice(DTYPES)
        if any(word in name for word in ("ind", "off", "len", "target", "sort", "ids", "batch")):
            dtype = random.choice((torch.int64, torch.int64, torch.int32))
        tensor = self._from_pool(shape, dtype)
        self._fill(tensor)
        if tensor.dim() > 1 and random.random() < 0.2:
            return tensor.transpose(0, 1)
        return tensor

    def _from_pool(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        key = (shape, dtype)
        pool = self.pool.setdefault(key, [])
        # An op may have resized its output.
        pool[:] = [tensor for tensor in pool if tensor.shape == shape]
        if len(pool) < 4:
            pool.append(self.memory.tensor(shape, dtype, at_end=len(pool) % 2 == 0))
        return self.random.choice(pool)

    def _fill(self, tensor: torch.Tensor) -> None:
        flat = tensor.view(-1)
        if tensor.dtype in (torch.int64, torch.int32):
            small = self.random.random() < 0.5
            for position in range(flat.numel()):
                number = self.integer()
                if small:
                    number = self.random.choice(SMALL)
                flat[position] = max(-(2**31), min(2**31 - 1, number))
        elif tensor.dtype.is_floating_point or tensor.dtype.is_complex:
            flat.fill_(self.random.choice((0.0, 0.5, 1.0, -3.0, 1e9)))
        else:
            flat.fill_(1)


def overloads(op: str) -> Iterator[Any]:
    """Yield the overloads of an op that torch can call, except those that write to `out`."""
    namespace, _, name = op.partition("::")
    if namespace == "prim" or op in SKIPPED:
        return
    try:
        packet = getattr(getattr(torch.ops, namespace), name)
    except (AttributeError, RuntimeError):
        return
    for overload in packet.overloads():
        yield getattr(packet, overload)


def touch(value: Any) -> None:
    """Read every element of the tensors in a result."""
    if isinstance(value, torch.Tensor):
        if value.layout is torch.strided and value.numel() < 10**7:
            value.clone()
            bytes(value.resolve_conj().contiguous().view(-1).view(torch.uint8).numpy())
    elif isinstance(value, tuple | list):
        for item in value:
            touch(item)


def _calls(op: str, calls: int, seed: int, report: Callable[[str], None]) -> int:
    """Call all overloads of an op, and return how many calls returned."""
    random = Random(f"{op} {seed}")
    targets = list(overloads(op))
    arguments = Arguments(random, Memory())
    returned = 0
    for number in range((calls * len(targets)) + 3 * calls * (op in CALLS)):
        target = targets[number % len(targets)]
        try:
            if op in CALLS and random.random() < 0.7:
                name, *stated = random.choice(CALLS[op])
                target = getattr(getattr(torch.ops, op.partition("::")[0]), op.partition("::")[2])
                target = getattr(target, name)
                positional = arguments.mutate(stated)
                named = dict[str, Any]()
            else:
                positional, named = arguments.draw(target._schema)
            report(f"{target} {_shown(positional)} {_shown(list(named.items()))}")
            touch(target(*positional, **named))
            returned += 1
        except Exception:
            pass
    return returned


def _shown(values: Iterable[Any]) -> str:
    words = list[str]()
    for value in values:
        if isinstance(value, torch.Tensor):
            words.append(
                f"{str(value.dtype)[6:]}{list(value.shape)}={value.flatten().tolist()[:8]}"
            )
        elif isinstance(value, tuple | list):
            words.append(f"({_shown(value)})")
        else:
            words.append(str(value))
    return ", ".join(words)


def sweep_op(op: str, calls: int, seed: int = 0, *, guarded: bool = True) -> Outcome:
    """Call one op in a child process."""
    reading, writing = os.pipe()
    log = mmap.mmap(-1, 4096)
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run_child(op, calls, seed, log, writing, guarded=guarded)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    call = bytes(log).rstrip(b"\0").decode(errors="replace")
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) not in HARMLESS:
        return Outcome(op, 0, signal.Signals(os.WTERMSIG(status)).name, call)
    return Outcome(op, int(text or 0), "", "")


def _run_child(op: str, calls: int, seed: int, log: mmap.mmap, pipe: int, *, guarded: bool) -> None:
    """Call the op, report how many calls returned, and end the process."""
    faulthandler.disable()
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)

    def report(text: str) -> None:
        log[:] = text.encode()[:4000].ljust(4096, b"\0")

    mode: Any = nullcontext()
    if guarded:
        mode = guarded_kernels()
    warnings.simplefilter("ignore")
    with torch.no_grad(), mode:
        returned = _calls(op, calls, seed, report)
    os.write(pipe, str(returned).encode())
    os._exit(0)


def main() -> int:
    """Sweep the ops that the command line names, or all; return 1 if one left its memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("ops", nargs="*")
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unguarded", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failures = 0
    for op in options.ops or sorted(allowed()):
        outcome = sweep_op(op, options.calls, options.seed, guarded=not options.unguarded)
        if outcome.ending:
            failures += 1
            sys.stdout.write(f"{outcome.ending} {op}: {outcome.call[:600]}\n")
            sys.stdout.flush()
    sys.stdout.write(f"failures: {failures}\n")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
