"""Calls of a declared contract: the result of one, or the reason why it is not allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from composecli.core.contract import Contract, Port, accepts
from composecli.core.contract_at_rank import at_rank_of
from composecli.core.dims import as_expr, as_free
from composecli.core.dtypes import ANY_FLOAT, is_floating
from composecli.core.pytree import (
    Argument,
    Call,
    KeyPath,
    TensorSpec,
    Tree,
    call_leaves,
    leaves,
    replace_leaf,
)
from composecli.core.relations import holds
from composecli.core.size_expr import Expr, evaluate, format_expr, symbols


class ContractError(ValueError):
    """A call that the contract does not allow, or whose result it leaves open."""


def declared_result(contract: Contract, given: Mapping[KeyPath, TensorSpec]) -> Tree:
    """Return the result of a call with these tensors, by the paths of their ports.

    Raises:
        ContractError: if the contract does not allow it, or leaves a size of the result open.
    """
    if len(given) == 1:
        contract = at_rank_of(contract, Call(tuple(map(Argument, given.values()))))
    sizes = _sizes(contract, given)
    result = contract.result
    specs = dict(leaves(result))
    for port in contract.outputs:
        spec = _output(contract, port, specs[port.path], given, sizes)
        result = replace_leaf(result, port.path, spec)
    return result


def _sizes(contract: Contract, given: Mapping[KeyPath, TensorSpec]) -> dict[str, int]:
    """Return the size of each free dim in a call that the contract allows."""
    ports = {port.path: port for port in contract.inputs}
    for port in contract.required:
        if port.path not in given:
            raise ContractError(f"{port.name} is missing: the contract has {port}")
    sizes = dict[str, int]()
    for path, spec in given.items():
        if path not in ports:
            raise ContractError(f"the contract has no input for {spec}")
        _add_sizes(sizes, ports[path], spec)
    for path, spec in given.items():
        _refuse_derived(ports[path], spec, sizes)
    for relation in contract.where:
        if relation.symbols <= sizes.keys() and not holds(relation, sizes):
            at = _sizes_text(relation.symbols, sizes)
            raise ContractError(f"{relation} does not hold at {at}")
    return sizes


def _add_sizes(sizes: dict[str, int], port: Port, spec: TensorSpec) -> None:
    """Add the sizes of the free dims of a port."""
    if accepts(port, spec) is False:
        raise ContractError(f"{port.name} is {spec}, and the contract has {port}")
    for axis, dim in enumerate(port.dims or ()):
        free = as_free(dim)
        if free is None:
            continue
        size = spec.sizes[axis]
        if sizes.setdefault(free.name, size) != size:
            earlier = f"{free.name} is {sizes[free.name]} in another place"
            raise ContractError(f"{port.name} is {spec}, and {earlier}")


def _refuse_derived(port: Port, spec: TensorSpec, sizes: Mapping[str, int]) -> None:
    """Refuse a size that should follow from the others and does not."""
    for axis, dim in enumerate(port.dims or ()):
        expr = as_expr(dim)
        if expr is None or not symbols(expr) <= sizes.keys():
            continue
        if evaluate(expr, sizes) != spec.sizes[axis]:
            wanted = f"axis {axis} is {format_expr(expr)} = {evaluate(expr, sizes)}"
            raise ContractError(f"{port.name} is {spec}, and in the contract its {wanted}")


def _output(
    contract: Contract,
    port: Port,
    example: TensorSpec,
    given: Mapping[KeyPath, TensorSpec],
    sizes: Mapping[str, int],
) -> TensorSpec:
    """Return an output of a call with these sizes."""
    spec = replace(example, dtype=_dtype(port, given))
    first = next(iter(given.values()), example)
    if port.dims is None:
        return replace(spec, sizes=first.sizes)
    if _is_example(contract, given):
        return replace(spec, sizes=example.sizes)
    chosen = list[int]()
    for axis, dim in enumerate(port.dims):
        expr = as_expr(dim)
        if expr is None or not symbols(expr) <= sizes.keys():
            message = f"the contract does not say the size of axis {axis} of {port.name}"
            raise ContractError(f"{message} for another input than its example")
        chosen.append(_size(expr, sizes, port))
    return replace(spec, sizes=tuple(chosen))


def _is_example(contract: Contract, given: Mapping[KeyPath, TensorSpec]) -> bool:
    """Return whether a call has the dtypes and sizes of the example, whatever its values are."""
    specs = dict(call_leaves(contract.example))
    if specs.keys() != given.keys():
        return False
    for path, spec in specs.items():
        if (spec.dtype, spec.sizes) != (given[path].dtype, given[path].sizes):
            return False
    return True


def _size(expr: Expr, sizes: Mapping[str, int], port: Port) -> int:
    """Return a size of an output, which cannot be negative."""
    size = evaluate(expr, sizes)
    if size < 0:
        at = _sizes_text(symbols(expr), sizes)
        raise ContractError(f"{port.name} has no size {format_expr(expr)} = {size} at {at}")
    return size


def _dtype(port: Port, given: Mapping[KeyPath, TensorSpec]) -> str:
    """Return the dtype of an output: that of the first float input if it is any float."""
    if port.dtype != ANY_FLOAT:
        return port.dtype
    floats = (spec.dtype for spec in given.values() if is_floating(spec.dtype))
    return next(floats, "float32")


def _sizes_text(names: frozenset[str], sizes: Mapping[str, int]) -> str:
    """Return sizes as text: `C=16, H=8`."""
    return ", ".join(f"{name}={sizes[name]}" for name in sorted(names))
