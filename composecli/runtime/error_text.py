"""The line of an error that states its cause.

torch puts other lines around it: a trace before the message of an op that failed in TorchScript,
code below the message of the compiler, and lists of backends below that of the dispatcher.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_MESSAGE_LENGTH = 300
# A chain of causes may be a circle.
MAX_CAUSES = 16

_TRACE = re.compile(r"Traceback (of TorchScript|\(most recent call last\))")
_ERROR_STACK = "The error stack is reproduced here:"
_FRAME = re.compile(r'\s*File ".*, line \d+')
# A frame in the trace of a traced module: `/torch/nn/modules/linear.py(134): forward`.
_TRACED_FRAME = re.compile(r"(<.*>|.*\.py)\(\d+\): \S+$")
_MARK = "<--- HERE"
# Lines around the message: they introduce it, list attempts, or are a signature.
_AROUND = re.compile(
    r"The following operation failed in the TorchScript interpreter"
    r"|Overloaded torch operator invoked from Python failed"
    r"|The above exception was the direct cause|During handling of the above exception"
    r"|Arguments for call are not valid|The following variants are available"
    r"|[\w:.]+\(.*\) -> .*:$"
    r"|Weights only load failed|\([12]\) (In PyTorch 2\.6|Alternatively)"
    r"|[():]+$"
)
_EINOPS = re.compile(r"Error while processing .*-reduction pattern")
# torch prints the value itself first, over as many lines as it needs.
_TRACER_VALUE = re.compile(r"Tracer cannot infer type of .*?\n:", re.DOTALL)
_TRACER_OUTPUT = re.compile(r"(output \d+) \(.*?\) (?=of traced region)", re.DOTALL)
# Text behind the message in the same line.
_ADVICE = re.compile(
    r"\.? This could be because the operator doesn't exist for this backend.*"
    r"|\.? You may have run into this message while using.*"
    r"|\.? (To enable this registration|If you're using torch\.compile).*"
    r"|\.? Please (use `torch\.serialization|see the following|file a bug report).*"
    r"| \(This function exists as an attribute on the Python module.*"
    r"|(?<= to a TorchScript type)\..*"
)
_PREFIX = re.compile(r"^((builtins\.)?RuntimeError: |builtins\.|WeightsUnpickler error: )")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def telling_line(error: BaseException) -> str:
    """Return the message of an error in one line, at most 300 characters long.

    It is the first line that says something, with that of the error that was the first cause.
    """
    own = _first_message(str(error))
    cause = _first_cause(error)
    if cause is not None:
        below = _first_message(str(cause))
        if not own:
            own = below
        elif below and below not in own:
            own = f"{own} (caused by {type(cause).__name__}: {below})"
    if not own:
        return type(error).__name__
    if len(own) > MAX_MESSAGE_LENGTH:
        return own[: MAX_MESSAGE_LENGTH - 1] + "…"
    return own


def _first_cause(error: BaseException) -> BaseException | None:
    """Return the error at the end of the chain `raise ... from ...`; None if there is no chain."""
    cause = None
    for _ in range(MAX_CAUSES):
        following = error.__cause__
        if following is None:
            break
        cause = error = following
    return cause


def _first_message(text: str) -> str:
    """Return the first telling line, with the lines that it introduces; empty if there is none."""
    text = _TRACER_VALUE.sub("", text)
    text = _TRACER_OUTPUT.sub(r"\1 ", text)
    lines = list(_message_lines(text))
    if not lines:
        return ""
    line = lines[0]
    if len(lines) > 1:
        if _EINOPS.match(line):
            line = f"{line} {lines[-1]}"
        elif line.endswith(":") and _MARK not in text:
            line = f"{line} {lines[1]}"
    for pattern in (_PREFIX, _ADVICE, _ADDRESS):
        line = pattern.sub("", line, count=1)
    if _MARK in text and not line.endswith("Error:"):
        # The compiler ends its message with a colon, and shows the code below.
        line = line.removesuffix(":")
    return _balanced(line.removesuffix("."))


def _balanced(line: str) -> str:
    """Return a line that may have been cut with as many parentheses that close as that open."""
    missing = line.count("(") - line.count(")")
    if missing == -1:
        return line.removesuffix(")")
    if missing == 1:
        return f"{line})"
    return line


def _message_lines(text: str) -> Iterator[str]:
    """Yield the lines that may be the message, without traces and code."""
    lines, in_code = _below_last_trace(text.splitlines())
    marks = [number for number, line in enumerate(lines) if _MARK in line]
    last_mark = max(marks, default=-1)
    for number, line in enumerate(lines):
        stripped = line.strip()
        if _FRAME.match(line):
            in_code = True
        elif in_code and (not line[:1].strip() or number <= last_mark):
            continue
        else:
            in_code = False
            if stripped and not _AROUND.match(stripped) and not _TRACED_FRAME.match(stripped):
                yield stripped


def _below_last_trace(lines: list[str]) -> tuple[list[str], bool]:
    """Return the lines below the last title of a trace, and whether frames follow there.

    These are all lines if there is no trace.
    """
    for number in reversed(range(len(lines))):
        if _TRACE.search(lines[number]):
            return lines[number + 1 :], True
        if _ERROR_STACK in lines[number]:
            return lines[number + 1 :], False
    return lines, False
