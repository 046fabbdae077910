"""Infer the contracts of the zoo's models and compare them with running the models.

python -m tests.zoo.run [--source S] [--name REGEX] [--form F] [--dtype D] [--jobs 2] [--show]

Models run in the child process of the command line, in its sandbox.
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
from typing import Any, NamedTuple

import torch

from composecli.commands.requests import Options
from composecli.commands.resolve import identify
from composecli.commands.session import Session
from composecli.commands.trust import Trust
from composecli.inference import Found, NotFound
from composecli.workers.child import SubprocessWorker
from composecli.workers.protocol import SandboxRequest, Worker
from tests.zoo import nn_models, torchvision_models, transformers_models
from tests.zoo.judge import Judgement, judge
from tests.zoo.report import Row, describe, table
from tests.zoo.specimens import FORMS, Entry, Specimen, save

SOURCES = {
    "torch.nn": nn_models.entries,
    "torchvision": torchvision_models.entries,
    "transformers": transformers_models.entries,
}
DTYPES = ("float16", "bfloat16", "float32", "float64")
MAX_SECONDS_PER_FORM = 240
MAX_MODELS_PER_WORKER = 8
WORKER_TIMEOUT_SECONDS = 60
FOLDER = tempfile.TemporaryDirectory()


class Job(NamedTuple):
    """One model to examine: its forms, and the float dtype that it is cast to; None for its own."""

    source: str
    name: str
    forms: tuple[str, ...]
    dtype: str | None = None


class _TookTooLong(BaseException):
    """Not an Exception, so that no library catches it."""


def _raise_took_too_long(*_: Any) -> None:
    raise _TookTooLong


def examine(entry: Entry, job: Job, worker: Worker) -> list[Row]:
    """Build one model and return a row for each form that it can be saved in."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    signal.signal(signal.SIGALRM, _raise_took_too_long)
    try:
        specimen = entry.build()
        if job.dtype is not None:
            specimen = specimen.cast(getattr(torch, job.dtype))
        with torch.no_grad():
            specimen.call(specimen.module)
    except Exception as error:
        sys.stderr.write(f"{entry.source} {entry.name}: cannot be built: {error}\n")
        return []
    rows = list[Row]()
    for form in job.forms:
        signal.alarm(MAX_SECONDS_PER_FORM)
        try:
            row = _examine_form(entry, specimen, form, worker)
        except _TookTooLong:
            row = _broken(entry.source, entry.name, form, "took too long", MAX_SECONDS_PER_FORM)
        finally:
            signal.alarm(0)
        if row is not None:
            rows.append(row)
    return rows


def _broken(
    source: str, name: str, form: str, detail: str, seconds: float = 0.0, parameters: int = 0
) -> Row:
    return Row(source, name, form, "broken", "", (detail,), 0, seconds, parameters)


def _warm_worker() -> Worker:
    """Return a worker that has already loaded a file of each kind.

    Measured times are then those of the models, not of imports.
    """
    worker = SubprocessWorker(WORKER_TIMEOUT_SECONDS)
    # The rights of a process are given up once, so they are those for the files of all models.
    worker.ask(SandboxRequest((FOLDER.name,), (), None, WORKER_TIMEOUT_SECONDS, files=True))
    module = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3))
    specimen = Specimen(module, (torch.ones(2, 3).long(),))
    for form in ("scripted", "exported", "pickled"):
        path = _new_path(form)
        save(specimen, form, path)
        _infer(path, worker)
    return worker


def _infer(path: Path, worker: Worker) -> Found | NotFound:
    options = Options(trust=(Trust(str(path)),))
    session = Session(worker, options, lambda _: None)
    return session.infer(session.open(identify(str(path), options)))


def _new_path(form: str) -> Path:
    """Return a path in a new folder for the next file of this form."""
    folder = tempfile.mkdtemp(dir=FOLDER.name)
    if form == "exported":
        return Path(folder, "model.pt2")
    return Path(folder, "model.pt")


def _examine_form(entry: Entry, specimen: Specimen, form: str, worker: Worker) -> Row | None:
    """Save, infer and judge one form; None if the model cannot be saved in it."""
    path = _new_path(form)
    try:
        truth = save(specimen, form, path)
    except (Exception, _TookTooLong):
        return None
    parameters = sum(parameter.numel() for parameter in specimen.module.parameters())
    start = time.perf_counter()
    try:
        result = _infer(path, worker)
        seconds = time.perf_counter() - start
        if isinstance(result, Found):
            judgement = judge(result.contract, truth, specimen.module)
            outcome = _outcome(judgement)
            contract = str(result.contract)
            details = (*judgement.wrong, *judgement.open)
        else:
            outcome = "unknown"
            contract = ""
            details = tuple(_attempts(result))
    except Exception:
        trace = traceback.format_exc()
        return _broken(entry.source, entry.name, form, trace, parameters=parameters)
    finally:
        gc.collect()
    return Row(
        entry.source,
        entry.name,
        form,
        outcome,
        contract,
        details,
        result.probes,
        seconds,
        parameters,
    )


def _outcome(judgement: Judgement) -> str:
    if judgement.wrong:
        return "wrong"
    if judgement.open:
        return "partly"
    return "found"


def _attempts(result: NotFound) -> Iterator[str]:
    for call, rejected in result.tried:
        yield f"{call}: {rejected.where}: {rejected.message}"


def _serve(connection: Connection) -> None:
    """Examine the models that the parent process sends, until it sends None."""
    worker = _warm_worker()
    examined = 0
    while (job := connection.recv()) is not None:
        entry = next(entry for entry in SOURCES[job.source]() if entry.name == job.name)
        if examined % MAX_MODELS_PER_WORKER == MAX_MODELS_PER_WORKER - 1:
            worker.close()
            shutil.rmtree(FOLDER.name)
            Path(FOLDER.name).mkdir()
            worker = _warm_worker()
        examined += 1
        connection.send(examine(entry, job, worker))


class _Child:
    """A process that examines models, and is replaced if a model kills it.

    The forms of that model are then examined one by one, and the form that kills again is broken.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other,), daemon=True)
        self.process.start()
        other.close()

    def examine(self, job: Job) -> list[Row]:
        try:
            self.connection.send(job)
            return list(self.connection.recv())
        except (EOFError, ConnectionError):
            self.process.join()
            exit_code = self.process.exitcode
            self._start()
        if len(job.forms) == 1:
            return [_broken(job.source, job.name, job.forms[0], f"died: {exit_code}")]
        rows = list[Row]()
        for form in job.forms:
            rows += self.examine(job._replace(forms=(form,)))
        return rows


def _examine_all(jobs: list[Job], count: int) -> Iterator[Row]:
    """Examine the jobs in `count` processes; yield the rows as they are finished."""
    pending = queue.SimpleQueue[Job]()
    finished = queue.SimpleQueue[list[Row]]()
    for job in jobs:
        pending.put(job)

    def work() -> None:
        child = _Child()
        while True:
            try:
                job = pending.get_nowait()
            except queue.Empty:
                child.connection.send(None)
                return
            finished.put(child.examine(job))

    for _ in range(count):
        threading.Thread(target=work, daemon=True).start()
    for _ in jobs:
        yield from finished.get()


def _jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    forms = FORMS
    if arguments.form:
        forms = tuple(arguments.form.split(","))
    for source, entries in SOURCES.items():
        if arguments.source not in (None, source):
            continue
        for entry in entries():
            if re.search(arguments.name, entry.name):
                yield Job(source, entry.name, forms, arguments.dtype)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", choices=tuple(SOURCES))
    parser.add_argument("--name", default="", help="only models whose names match this expression")
    parser.add_argument("--form", help="only these forms, separated by commas")
    parser.add_argument("--dtype", choices=DTYPES, help="cast every model to this dtype first")
    parser.add_argument("--jobs", type=int, default=2, help="processes to run at the same time")
    parser.add_argument(
        "--show", action="store_true", help="print the contracts that are right, too"
    )
    parser.add_argument("--rows", help="append each row to this file as a line of JSON")
    return parser


def main() -> int:
    """Examine the models that the command line asks for; return 1 if any is wrong or broken."""
    arguments = _parser().parse_args()
    rows = list[Row]()
    for row in _examine_all(list(_jobs(arguments)), arguments.jobs):
        rows.append(row)
        if arguments.rows:
            with Path(arguments.rows).open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")
        if arguments.show or row.outcome != "found":
            sys.stdout.write("\n".join(describe(row)) + "\n")
            sys.stdout.flush()
    sys.stdout.write("\n".join(table(rows, tuple(SOURCES))) + "\n")
    failed = any(row.outcome in ("wrong", "broken") for row in rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
