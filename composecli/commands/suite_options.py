"""Options of a suite: those of the command line, with what the file and an item say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from composecli.commands.requests import CheckRequest, Options, parse_selection
from composecli.commands.suite_items import Member, PlannedItem, in_folder
from composecli.commands.trust import parse_trust, unused_trust
from composecli.core.blueprint import Mode
from composecli.core.command_line import pairs_of
from composecli.core.input_spec import Declared, DeclaredLiteral, parse_input
from composecli.core.suite import ItemKind, Suite, SuiteOptions
from composecli.workers.protocol import Training


def suite_options(given: Options, stated: SuiteOptions) -> Options:
    """Return the options of every item: what the file states, over those of the command line."""
    budget, words = given.budget, list(given.words)
    device, training = stated.device or given.device, stated.training or given.training
    if device != given.device:
        words += ["--device", device]
    if training != given.training:
        words += ["--training", training]
    if stated.max_probes is not None:
        words += ["--max-probes", str(stated.max_probes)]
        budget = replace(budget, probes=stated.max_probes)
    if stated.max_seconds is not None:
        words += ["--max-seconds", str(stated.max_seconds)]
        budget = replace(budget, seconds=stated.max_seconds)
    return replace(
        given,
        device=device,
        training=Training(training),
        budget=budget,
        words=tuple(words),
    )


def item_request(planned: PlannedItem, options: Options, suite: Suite) -> CheckRequest:
    """Return the request of the single command that an item stands for.

    Its messages suggest that command.
    """
    item = planned.item
    mode = Mode.SEQUENTIAL
    if item.kind is ItemKind.PARALLEL:
        mode = Mode.PARALLEL
    return CheckRequest(
        planned.models,
        mode,
        item.strict,
        item.merge,
        item.dim,
        options=_item_options(planned, options, os.path.dirname(suite.path)),
        fail_on=item.fail_on,
    )


def _item_options(planned: PlannedItem, options: Options, folder: str) -> Options:
    """Return the options with the inputs, the selections and the key of an item."""
    item = planned.item
    inputs, words = list[Declared](), list(_words_about(planned, options))
    for number, member in enumerate(planned.members, start=1):
        for text in _input_texts(member, number, folder):
            inputs.append(parse_input(text))
            words += ["--input", text]
    for text in item.select:
        words += ["--select", text]
    if item.key is not None:
        words += ["--key", item.key]
    return replace(
        options,
        inputs=tuple(inputs),
        selections=tuple(map(parse_selection, item.select)),
        key=item.key,
        words=tuple(words),
    )


def _words_about(planned: PlannedItem, options: Options) -> Iterator[str]:
    """Yield the words of the options, without the trust in files of other items."""
    paths = [member.reference.path for member in planned.members]
    files = [path for path in paths if path is not None]
    for name, value in pairs_of(options.words):
        if name != "--trust" or unused_trust([parse_trust(value)], files) is None:
            yield from (name, value)


def _input_texts(member: Member, number: int, folder: str) -> list[str]:
    """Return the stated inputs of a model as `--input` has them.

    Behind the first model, tensors come from the one before it; plain values are still stated.
    """
    texts = list[str]()
    for text in member.inputs:
        if number == 1 and text.startswith("@"):
            texts.append(f"@{in_folder(text[1:], folder)}")
        elif number == 1:
            texts.append(text)
        elif isinstance(parse_input(text), DeclaredLiteral):
            texts.append(f"{number}:{text}")
    return texts
