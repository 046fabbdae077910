"""Shell completion: the words that can follow on a command line. It runs no model."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from composecli.core.contract import Contract
from composecli.core.pytree import port_name
from composecli.core.rules import Rule
from composecli.report.formats import FORMATS

MAX_SECONDS = 0.6
DEVICES = ("cpu", "cuda", "cuda:0", "meta")

Items = list[CompletionItem]


class _TookTooLong(BaseException):
    """The user should not wait. It passes through code that handles errors."""


def complete_file(_context: click.Context, _parameter: click.Parameter, text: str) -> Items:
    """Complete the path of a file, as the shell does it."""
    return [CompletionItem(text, type="file")]


def complete_rule(_context: click.Context, _parameter: click.Parameter, text: str) -> Items:
    """Complete the code of a rule, or its name."""
    items = Items()
    for rule in Rule:
        if rule.value.startswith(text.upper()):
            items.append(CompletionItem(rule.value, help=rule.slug))
        elif text and rule.slug.startswith(text.lower()):
            items.append(CompletionItem(rule.slug, help=rule.value))
    return items


def complete_device(_context: click.Context, _parameter: click.Parameter, text: str) -> Items:
    """Complete the name of a device."""
    return [CompletionItem(device) for device in DEVICES if device.startswith(text)]


def complete_format(_context: click.Context, _parameter: click.Parameter, text: str) -> Items:
    """Complete a format, or the file behind it: `junit=reports/`."""
    form, sign, path = text.partition("=")
    if not sign:
        return [CompletionItem(name) for name in FORMATS if name.startswith(text)]
    folder, _, start = path.rpartition("/")
    try:
        names = sorted(os.listdir(folder or "."))
    except OSError:
        return Items()
    found = (os.path.join(folder, name) for name in names if name.startswith(start))
    return [CompletionItem(f"{form}={name}") for name in found]


def complete_output(context: click.Context, _parameter: click.Parameter, text: str) -> Items:
    """Complete an output of a model: `logits`, or `2:logits` for the second model."""
    models = _models(context)
    place, colon, _ = text.partition(":")
    items = Items()
    for number, model in enumerate(models, start=1):
        if colon and place != str(number):
            continue
        for name, shape in _ports(_outputs, model):
            value = name
            if colon:
                value = f"{number}:{name}"
            if value.startswith(text):
                items.append(CompletionItem(value, help=shape))
    return _distinct(items)


def complete_input(context: click.Context, _parameter: click.Parameter, text: str) -> Items:
    """Complete the name of an input of the first model, or the file of a sample."""
    if text.startswith("@"):
        return [CompletionItem(f"@{path}") for path in _paths(text.removeprefix("@"))]
    items = Items()
    for model in _models(context)[:1]:
        for name, shape in _ports(_inputs, model):
            value = f"{name}="
            if value.startswith(text):
                items.append(CompletionItem(value, help=shape))
    return items


def _models(context: click.Context) -> tuple[str, ...]:
    """Return the MODEL arguments that are on the command line so far.

    Before an option that has no value yet, click leaves the arguments unparsed.
    """
    models = context.params.get("models") or context.params.get("model") or context.args
    if isinstance(models, str):
        return (models,)
    return tuple(models)


def _outputs(contract: Contract) -> Iterator[tuple[str, str]]:
    """Yield the selection and the type of each output. A bare tensor needs no selection."""
    for port in contract.outputs:
        if port.path:
            yield port_name(port.path, contract.result), str(port)


def _inputs(contract: Contract) -> Iterator[tuple[str, str]]:
    """Yield the name and the type of each input."""
    for port in contract.inputs:
        yield port.name, str(port)


Ports = Callable[[Contract], Iterator[tuple[str, str]]]


def _ports(find: Ports, model: str) -> list[tuple[str, str]]:
    """Return the ports of a model, with their types; none if they are not known in time."""
    from composecli.commands.known_contract import known_contract

    with _time_limit(), contextlib.suppress(Exception, _TookTooLong):
        contract = known_contract(model)
        if contract is not None:
            return list(find(contract))
    return []


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """End the body when the user has waited long enough, where the system has such a timer."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _give_up(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _TookTooLong


def _distinct(items: Items) -> Items:
    """Drop the repetitions: two models may have an output of the same name."""
    by_value = {item.value: item for item in reversed(items)}
    return list(reversed(by_value.values()))


def _paths(start: str) -> list[str]:
    """Return the files and folders whose paths start like this; folders end in a separator."""
    return sorted(
        path + os.sep * os.path.isdir(path) for path in glob.glob(glob.escape(start) + "*")
    )
