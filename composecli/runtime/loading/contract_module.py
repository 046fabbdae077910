"""Contract files: a module that keeps to a contract, and computes nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from composecli.core.contract import Contract
from composecli.core.declared_calls import declared_result
from composecli.core.facts import ArgumentFact
from composecli.core.pytree import (
    KeyPath,
    Literal,
    Opaque,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
    leaves,
)
from composecli.files.contract_file import read_contract
from composecli.runtime.model import Model, could_not_load
from composecli.runtime.tensors import dtype_of, tree_of
from composecli.workers.protocol import OpenRequest


class ContractModule(nn.Module):  # type: ignore[misc]
    """Returns zeros of the sizes in a contract, and refuses calls that it does not allow."""

    def __init__(self, contract: Contract, device: str) -> None:
        super().__init__()
        self.contract = contract
        self.device = device
        self.eval()

    def forward(self, *positional: Any, **named: Any) -> Any:
        """Return a result of the sizes in the contract.

        Raises:
            ContractError: if it does not allow these arguments.
        """
        given = dict[KeyPath, TensorSpec]()
        for number, value in enumerate(positional):
            given.update(leaves(tree_of(value), (number,)))
        for name, value in named.items():
            given.update(leaves(tree_of(value), (self._number(name),)))
        plain = {path: TensorSpec(spec.dtype, spec.sizes) for path, spec in given.items()}
        return _zeros(declared_result(self.contract, plain), self.device)

    def _number(self, name: str) -> int | str:
        """Return the number of an argument that is passed by name."""
        for number, argument in enumerate(self.contract.example.arguments):
            if argument.name == name:
                return number
        for port in self.contract.inputs:
            if port.name == name:
                return port.path[0]
        raise TypeError(f"the contract has no argument {name}")


class ContractLoader:
    """Loads the contract of a file as a module."""

    def load(self, request: OpenRequest) -> Model:
        """Return the module of a contract file.

        Raises:
            CouldNotAttempt: if the file is not a contract any more.
        """
        try:
            contract = read_contract(request.path)
        except OSError as error:
            raise could_not_load(request, error) from error
        module = ContractModule(contract, request.device)
        return Model(module, request, tuple(_arguments(contract)), {})

    load_whole = load


LOADER = ContractLoader()


def _arguments(contract: Contract) -> list[ArgumentFact]:
    """Return the arguments that the contract names."""
    arguments = list[ArgumentFact]()
    names = {port.path[0]: port.name for port in reversed(contract.inputs)}
    for number, argument in enumerate(contract.example.arguments):
        name = argument.name or names.get(number, f"input {number}")
        keyword_only = argument.name is not None
        arguments.append(ArgumentFact(name, "", required=True, keyword_only=keyword_only))
    for port in contract.inputs:
        if port.optional:
            arguments.append(ArgumentFact(port.name, "", required=False))
    return arguments


def _zeros(tree: Tree, device: str) -> Any:
    """Return the values of a result."""
    match tree:
        case TensorSpec(dtype, sizes):
            return torch.zeros(sizes, dtype=dtype_of(dtype), device=device)
        case TreeSequence(kind, items):
            values = [_zeros(item, device) for item in items]
            return values if kind == "list" else tuple(values)
        case TreeMapping(entries):
            return {key: _zeros(item, device) for key, item in entries}
        case Literal(value):
            return value
        case Opaque():
            return None
