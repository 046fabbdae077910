"""Writing a contract file: whole and read again, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from composecli.core.contract import Contract
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.pytree import call_leaves
from composecli.core.rules import Rule
from composecli.files.contract_file import contract_text, read_contract
from composecli.files.writing.staged_output import (
    CONTRACT,
    OutputFile,
    StagedFile,
    could_not_write,
    resolve_output,
    staged,
)


def contract_output(path: str, model: str | None, *, force: bool) -> OutputFile:
    """Return the contract file, if it may be written.

    Raises:
        CouldNotAttempt: if it is the model, exists and must not be replaced, or is not a file.
    """
    inputs = () if model is None else (model,)
    return resolve_output(path, inputs, force=force, kind=CONTRACT)


def write_contract(contract: Contract, output: OutputFile) -> None:
    """Write a contract, and give the file its name once it reads as the same contract.

    Raises:
        CouldNotAttempt: if it cannot be written, or would read as another contract.
    """
    with staged(output) as stage:
        with _written(stage), stage.flushing():
            stage.path.write_text(contract_text(contract), encoding="utf-8")
        if not _reads_as(contract, stage):
            title = "this contract has no text that reads as the same contract"
            notes = ("a name of a port, or the nesting of its inputs, is too unusual",)
            raise CouldNotAttempt(Problem(Rule.COULD_NOT_WRITE, title, output.path, notes))
        stage.commit()


def _reads_as(contract: Contract, stage: StagedFile) -> bool:
    """Return whether the staged file reads as the contract that was written to it."""
    try:
        return _meaning(read_contract(str(stage.path))) == _meaning(contract)
    except CouldNotAttempt:
        return False


@contextmanager
def _written(stage: StagedFile) -> Iterator[None]:
    """Report errors of the system as problems of the output."""
    try:
        yield
    except OSError as error:
        raise could_not_write(stage.output.path, error) from error


def _meaning(contract: Contract) -> object:
    """Return the parts of a contract that a file keeps: all but its evidence."""
    general = contract.general
    inputs = [(port.name, port.path, str(port)) for port in general.inputs]
    outputs = [(port.path, str(port)) for port in general.outputs]
    return inputs, outputs, general.where, list(call_leaves(contract.example))
