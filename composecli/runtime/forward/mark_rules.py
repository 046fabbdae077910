"""How marks pass through ops that NaN does not: on integers and booleans, by order, by selection.

A rule returns the marks of one result of an op, or None if it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._ops import OpOverload

from composecli.runtime.forward.marks import holds_nan
from composecli.runtime.op_mode import op_name
from composecli.runtime.tensors import tensors_in

# Arguments that say where values are taken from, and are no values themselves.
_PLACES = ("index", "indices", "mask", "condition", "offsets", "batch_sizes")


class NoRule(Exception):
    """It is not known how marks pass through an op."""


@dataclass(frozen=True)
class MarkedOp:
    """An op with its arguments by name, and the marks of those tensors that have some, by id."""

    func: OpOverload
    arguments: dict[str, Any]
    marks: dict[int, Tensor]

    @property
    def name(self) -> str:
        """The name of the op; one that writes in place has the name of the one that does not."""
        return plain_name(self.func)

    def marks_of(self, name: str) -> Tensor | None:
        """Return the marks of an argument; None if it has none or is no tensor."""
        return self.marks.get(id(self.arguments.get(name)))

    def run(self, changed: Mapping[str, Any]) -> Any:
        """Run the op with other values of these arguments."""
        arguments = {**self.arguments, **changed}
        positional = list[Any]()
        named = dict[str, Any]()
        for argument in self.func._schema.arguments:
            if argument.kwarg_only:
                named[argument.name] = arguments[argument.name]
            else:
                positional.append(arguments[argument.name])
        return self.func(*positional, **named)


Rule: TypeAlias = Callable[[MarkedOp, Tensor], Tensor | None]


def plain_name(func: OpOverload) -> str:
    """Return the name of an op: `add` for `aten::add_`."""
    name = op_name(func)
    if name.startswith("_"):
        return name
    return name.removesuffix("_")


def bind(func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an op by the names in its schema."""
    bound = dict[str, Any]()
    for number, argument in enumerate(func._schema.arguments):
        if number < len(args):
            bound[argument.name] = args[number]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value
    return bound


def rule_of(func: OpOverload) -> Rule:
    """Return the rule of an op; that of ops on numbers if it has none of its own."""
    name = plain_name(func)
    if name in _RULES:
        return _RULES[name]
    if name.startswith(("new_", "rand", "empty", "bernoulli")) or name.endswith("_like"):
        return _no_marks
    if "attention" in name or "dropout" in name or "batch_norm" in name:
        return _no_marks
    if torch.Tag.pointwise in func.tags:
        return _elementwise
    return _as_floats


def passes_nan(func: OpOverload) -> bool:
    """Return whether NaN in floats reaches exactly the floats that depend on them."""
    return plain_name(func) not in _NAN_STOPS


def _no_marks(_op: MarkedOp, _result: Tensor) -> Tensor | None:
    """Return no marks: the result has the sizes of the arguments, and none of their values."""
    return None


def _united(parts: list[Tensor], result: Tensor) -> Tensor | None:
    """Return the union of marks, each of them broadcast to the sizes of the result."""
    united: Tensor | None = None
    for part in parts:
        try:
            marks = part.expand(result.shape)
        except RuntimeError:
            raise NoRule from None
        if united is None:
            united = marks.clone()
        else:
            united.logical_or_(marks)
    return united


def _elementwise(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark the elements that are computed from a marked one at the same place."""
    parts = list[Tensor]()
    for tensor in tensors_in(list(op.arguments.values())):
        marks = op.marks.get(id(tensor))
        if marks is not None:
            parts.append(marks)
    return _united(parts, result)


def _of_values(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark the elements of the first argument; the others must have no marks."""
    marks = op.marks_of("self")
    if marks is None or len(op.marks) > 1:
        raise NoRule
    return _united([marks], result)


def _copied(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark what is copied from marked elements."""
    marks = op.marks_of("src")
    if marks is None:
        return None
    return _united([marks], result)


def _filled(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark all elements if their one value is marked."""
    marks = op.marks_of("value")
    if marks is None:
        return None
    return _united([marks], result)


def _chosen(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark what is chosen from marked elements, or by a marked condition."""
    condition = op.arguments["condition"]
    return _choose(op, "condition", condition, ("self", "other"), result)


def _masked(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark what is left of marked elements, or replaced by a marked value or mask."""
    return _choose(op, "mask", op.arguments["mask"], ("value", "self"), result)


def _choose(
    op: MarkedOp, name: str, condition: Tensor, sources: tuple[str, str], result: Tensor
) -> Tensor | None:
    """Return the marks of the source that the condition chooses at each place."""
    none = torch.zeros((), dtype=torch.bool, device=condition.device)
    chosen = [op.marks_of(source) for source in sources]
    then, otherwise = [none if marks is None else marks for marks in chosen]
    parts = [torch.where(condition.bool(), then, otherwise)]
    marks = op.marks_of(name)
    if marks is not None:
        parts.append(marks)
    return _united(parts, result)


def _along(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark all elements along the axis that is sorted or scanned if any of them is marked."""
    marks = op.marks_of("self")
    dim = op.arguments.get("dim")
    if marks is None or not isinstance(dim, int):
        raise NoRule
    if not marks.dim():
        return marks
    return _united([marks.any(dim, keepdim=True)], result)


def _reduced(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark the results of reductions over any marked element."""
    marks = op.marks_of("self")
    if "other" in op.arguments:
        return _elementwise(op, result)
    if marks is None:
        raise NoRule
    dims = op.arguments.get("dim")
    if dims is None or dims == []:
        return marks.any().expand(result.shape)
    if isinstance(dims, int):
        dims = [dims]
    for dim in dims:
        marks = marks.any(dim, keepdim=True)
    return marks.reshape(result.shape)


def _pooled(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark the positions of maxima like the maxima: NaN counts as the largest value."""
    values = op.run({})[0]
    if values.shape != result.shape:
        raise NoRule
    marks: Tensor = values.isnan()
    return marks


def _looked_up(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark the rows of a table that are looked up by marked ids."""
    return _united([_required(op, "indices").unsqueeze(-1)], result)


def _bagged(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark the sums of rows of which one is looked up by a marked id."""
    marks = _required(op, "indices")
    table = torch.zeros_like(op.arguments["weight"][:2])
    if len(table) < 2 or op.marks_of("offsets") is not None:
        raise NoRule
    table[1] = float("nan")
    changed = {"weight": table, "indices": marks.long(), "mode": 0, "padding_idx": -1}
    summed: Tensor = op.run(changed)[0]
    if summed.shape != result.shape:
        return None
    return summed.isnan()


def _selected(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark the slices that marked positions select, and what is selected of marked elements."""
    parts = list[Tensor]()
    marks = op.marks_of("index")
    if marks is not None:
        sizes = [1] * max(1, result.dim())
        sizes[op.arguments["dim"]] = marks.numel()
        parts.append(marks.reshape(sizes))
    return _united([*parts, *_moved(op)], result)


def _gathered(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark what is taken from marked positions, or is a marked element."""
    parts = list[Tensor]()
    marks = op.marks_of("index")
    if marks is not None:
        parts.append(marks)
    return _united([*parts, *_moved(op)], result)


def _indexed(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark the elements that marked positions select, and those selected of marked ones.

    The op runs on a table whose second place on each indexed axis is NaN: marked positions select
    that one, the others the first.
    """
    own: Tensor = op.arguments["self"]
    sizes = list[int]()
    places = list[Tensor | None]()
    columns = list[int]()
    for index in op.arguments["indices"]:
        if index is not None and index.dtype is torch.bool:
            if id(index) in op.marks:
                raise NoRule
            sizes += own.shape[len(sizes) : len(sizes) + index.dim()]
            places.append(index)
        elif index is None:
            sizes.append(own.shape[len(sizes)])
            places.append(None)
        else:
            columns.append(len(sizes))
            sizes.append(2)
            marks = op.marks.get(id(index))
            places.append(torch.zeros_like(index) if marks is None else marks.long())
    sizes += own.shape[len(sizes) :]
    table = torch.zeros(sizes, device=own.device)
    for column in columns:
        table.select(column, 1).fill_(float("nan"))
    selected: Tensor = op.func(table, places)
    return _united([selected.isnan(), *_moved(op)], result)


def _sampled(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark the pixels that are taken from marked places of an image."""
    parts = [marks for marks in [op.marks_of("grid")] if marks is not None]
    return _united([marks.any(-1).unsqueeze(1) for marks in parts], result)


def _scattered(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark all places that marked positions may write to, and those that get marked elements."""
    marks = op.marks_of("index")
    parts = list[Tensor]()
    if marks is not None:
        if marks.dim() != result.dim():
            raise NoRule
        parts.append(marks.any(op.arguments["dim"], keepdim=True))
    return _united([*parts, *_moved(op)], result)


def _moved(op: MarkedOp) -> list[Tensor]:
    """Return where marks of integers end up if the op only moves or adds them."""
    values = {id(tensor) for name, tensor in op.arguments.items() if name not in _PLACES}
    moved = [marks for key, marks in op.marks.items() if key in values]
    if not moved:
        return []
    marks = _run_on_floats(op)
    return [marks] if marks is not None else []


def _as_floats(op: MarkedOp, result: Tensor) -> Tensor | None:
    """Mark what NaN reaches if integers are replaced by floats."""
    for name in _PLACES:
        if any(id(tensor) in op.marks for tensor in tensors_in([op.arguments.get(name)])):
            raise NoRule
    marks = _run_on_floats(op)
    if marks is None or marks.shape != result.shape:
        raise NoRule
    return marks


def _run_on_floats(op: MarkedOp) -> Tensor | None:
    """Run the op on floats with NaN at the marks, and return where the first result is NaN."""
    changed = dict[str, Any]()
    for name, value in op.arguments.items():
        if name not in _PLACES:
            changed[name] = _as_float(value, op.marks)
        if name == "dtype":
            changed[name] = None
    try:
        results = tensors_in(op.run(changed))
    except (RuntimeError, TypeError):
        raise NoRule from None
    if not results or not holds_nan(results[0]):
        raise NoRule
    return results[0].isnan()


def _as_float(value: Any, marks: dict[int, Tensor]) -> Any:
    """Return zeros in place of each tensor, with NaN at its marks."""
    if isinstance(value, list | tuple):
        return [_as_float(item, marks) for item in value]
    if not isinstance(value, Tensor):
        return value
    zeros = torch.zeros(value.shape, device=value.device)
    own = marks.get(id(value))
    if own is not None:
        zeros.masked_fill_(own, float("nan"))
    return zeros


def _required(op: MarkedOp, name: str) -> Tensor:
    """Return the marks of an argument; without them, there is no rule."""
    marks = op.marks_of(name)
    if marks is None:
        raise NoRule
    return marks


_RULES: dict[str, Rule] = {
    "copy": _copied, "fill": _filled, "zero": _no_marks, "where": _chosen, "masked_fill": _masked,
    "_to_copy": _elementwise, "floor_divide": _elementwise, "bucketize": _of_values,
    "searchsorted": _of_values, "isin": _of_values,
    "embedding": _looked_up, "_embedding_bag": _bagged, "_embedding_bag_forward_only": _bagged,
    "index_select": _selected, "gather": _gathered, "take": _gathered, "index": _indexed,
    "_unsafe_index": _indexed, "scatter": _scattered, "scatter_add": _scattered,
    "grid_sampler_2d": _sampled, "grid_sampler_3d": _sampled,
    "max_pool2d_with_indices": _pooled, "max_pool3d_with_indices": _pooled,
    "adaptive_max_pool2d": _pooled, "adaptive_max_pool3d": _pooled,
    **dict.fromkeys(("sort", "argsort", "topk", "cummax", "cummin", "logcumsumexp"), _along),
    **dict.fromkeys(
        (
            "argmax", "argmin", "max", "min", "aminmax", "kthvalue", "median", "nanmedian", "mode",
            "any", "all", "count_nonzero", "nansum", "nanmean", "amax", "amin",
        ),
        _reduced,
    ),
}  # fmt: skip
# Ops whose results may be numbers where their arguments are NaN.
_NAN_STOPS = frozenset(
    (
        "sort", "topk", "cummax", "cummin", "kthvalue", "median", "nanmedian", "mode", "nansum",
        "nanmean", "sign", "sgn", "nan_to_num", "fmax", "fmin", "pow", "heaviside", "copysign",
        "hypot", "xlogy", "special_xlog1py", "special_entr",
        "grid_sampler_2d", "grid_sampler_3d",
    )
)  # fmt: skip
