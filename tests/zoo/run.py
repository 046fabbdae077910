"""Runs inference over the zoo and prints what it found: a row for each source and form.

python -m tests.zoo.run [--source S] [--name REGEX] [--form F] [--jobs 2] [--show]
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import multiprocessing
import queue
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from composecli.commands.requests import Options
from composecli.commands.resolve import identify
from composecli.commands.session import Session
from composecli.commands.trust import Trust
from composecli.inference.result import Found
from composecli.workers.child import SubprocessWorker
from composecli.workers.protocol import Worker
from tests.zoo import nn_models, torchvision_models, transformers_models
from tests.zoo.judge import judge
from tests.zoo.report import Row, said, table
from tests.zoo.specimens import FORMS, Entry, Specimen, save

SOURCES = {
    "torch.nn": nn_models.entries,
    "torchvision": torchvision_models.entries,
    "transformers": transformers_models.entries,
}
MOST_SECONDS = 240
MODELS_TO_A_CHILD = 8
FOLDER = tempfile.TemporaryDirectory()


Job = tuple[str, str, tuple[str, ...]]


class _Late(BaseException):
    """Of no kind that a library would catch."""


def _late(*_: Any) -> None:
    raise _Late


def examine(entry: Entry, forms: tuple[str, ...], worker: Worker) -> list[Row]:
    """Every form of one model."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    signal.signal(signal.SIGALRM, _late)
    try:
        specimen = entry.build()
        with torch.no_grad():
            specimen.call(specimen.module)
    except Exception as error:
        sys.stderr.write(f"{entry.source} {entry.name}: cannot be built: {error}\n")
        return []
    rows = list[Row]()
    for form in forms:
        signal.alarm(MOST_SECONDS)
        try:
            row = _examine(entry, specimen, form, worker)
            rows += [row] if row is not None else []
        except _Late:
            rows.append(
                Row(
                    entry.source,
                    entry.name,
                    form,
                    "broken",
                    "",
                    ("took too long",),
                    0,
                    MOST_SECONDS,
                    0,
                )
            )
        finally:
            signal.alarm(0)
    return rows


def _warm_worker() -> Worker:
    """A child that has loaded a file of each kind, so that the times are those of the models and not of imports."""
    worker = SubprocessWorker(60)
    specimen = Specimen(
        torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3)),
        (torch.ones(2, 3).long(),),
    )
    for form in ("scripted", "exported", "pickled"):
        path = _path(form)
        save(specimen, form, path)
        session = Session(worker, Options(trust=(Trust(str(path)),)), lambda _: None)
        session.infer(session.open(identify(str(path), (Trust(str(path)),))))
    return worker


def _path(form: str) -> Path:
    """Where the next file of this form goes."""
    return Path(
        tempfile.mkdtemp(dir=FOLDER.name), "model.pt2" if form == "exported" else "model.pt"
    )


def _examine(entry: Entry, specimen: Specimen, form: str, worker: Worker) -> Row | None:
    path = _path(form)
    try:
        truth = save(specimen, form, path)
    except (Exception, _Late):
        return None
    parameters = sum(parameter.numel() for parameter in specimen.module.parameters())
    start = time.perf_counter()
    try:
        session = Session(worker, Options(trust=(Trust(str(path)),)), lambda _: None)
        part = session.open(identify(str(path), (Trust(str(path)),)))
        found = session.infer(part)
        seconds = time.perf_counter() - start
        if not isinstance(found, Found):
            details = tuple(
                f"{call}: {refused.where}: {refused.message}" for call, refused in found.tried
            )
            return Row(
                entry.source,
                entry.name,
                form,
                "unknown",
                "",
                details,
                found.probes,
                seconds,
                parameters,
            )
        verdict = judge(found.contract, truth, specimen.module)
    except Exception:
        details = (traceback.format_exc(),)
        return Row(entry.source, entry.name, form, "broken", "", details, 0, 0.0, parameters)
    finally:
        gc.collect()
    outcome = "wrong" if verdict.wrong else "partly" if verdict.open else "found"
    details = (*verdict.wrong, *verdict.open)
    text = str(found.contract)
    return Row(
        entry.source, entry.name, form, outcome, text, details, found.probes, seconds, parameters
    )


def _serve(connection: Connection) -> None:
    """The child: examines one model after the other, until it is told to end."""
    worker, done = _warm_worker(), 0
    while (job := connection.recv()) is not None:
        source, name, forms = job
        entry = next(entry for entry in SOURCES[source]() if entry.name == name)
        if done % MODELS_TO_A_CHILD == MODELS_TO_A_CHILD - 1:
            worker.close()
            shutil.rmtree(FOLDER.name)
            Path(FOLDER.name).mkdir()
            worker = _warm_worker()
        done += 1
        connection.send(examine(entry, forms, worker))


class _Child:
    """A process that may die of a model: then its forms go one by one, and the one that kills is told as broken."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other,), daemon=True)
        self.process.start()
        other.close()

    def examine(self, job: Job) -> list[Row]:
        self.connection.send(job)
        try:
            found = self.connection.recv()
        except EOFError:
            self.process.join()
            died = f"died: {self.process.exitcode}"
            self._start()
            source, name, forms = job
            if len(forms) > 1:
                return [row for form in forms for row in self.examine((source, name, (form,)))]
            return [Row(source, name, forms[0], "broken", "", (died,), 0, 0.0, 0)]
        return list(found)


def _examined(jobs: list[Job], count: int) -> Iterator[Row]:
    todo, done = queue.SimpleQueue[Job](), queue.SimpleQueue[list[Row]]()
    for job in jobs:
        todo.put(job)

    def work() -> None:
        child = _Child()
        while True:
            try:
                job = todo.get_nowait()
            except queue.Empty:
                child.connection.send(None)
                return
            done.put(child.examine(job))

    for _ in range(count):
        threading.Thread(target=work, daemon=True).start()
    for _ in jobs:
        yield from done.get()


def _jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    forms = tuple(arguments.form.split(",")) if arguments.form else FORMS
    for source, entries in SOURCES.items():
        if arguments.source in (None, source):
            for entry in entries():
                if re.search(arguments.name, entry.name):
                    yield source, entry.name, forms


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", choices=tuple(SOURCES))
    parser.add_argument(
        "--name", default="", help="models whose names this regular expression finds"
    )
    parser.add_argument("--form", help="forms, with commas between")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--show",
        action="store_true",
        help="print every contract, not only those that are not found",
    )
    parser.add_argument("--rows", help="add every row to this file as it is found, as JSON lines")
    arguments = parser.parse_args()
    rows = list[Row]()
    for row in _examined(list(_jobs(arguments)), arguments.jobs):
        rows.append(row)
        if arguments.rows:
            with Path(arguments.rows).open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")
        if arguments.show or row.outcome != "found":
            sys.stdout.write("\n".join(said(row)) + "\n")
            sys.stdout.flush()
    sys.stdout.write("\n".join(table(rows, tuple(SOURCES))) + "\n")
    return 1 if any(row.outcome in ("wrong", "broken") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
