"""The sizes at which a seam holds: by its dims, checked by runs, or by varying the input."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from composecli.commands.opened_model import OpenedModels
from composecli.commands.seam_report import Findings
from composecli.commands.size_runs import SizeRuns, Sizes
from composecli.compose.check_points import (
    failing_points,
    fitting_points,
    smallest_failing,
)
from composecli.compose.compare import (
    PortPairs,
    conditional_finding,
    pair_conditions,
    undecided_axes,
)
from composecli.compose.conditions import (
    MAX_TRIED_SIZE,
    Condition,
    beyond,
    combined,
    solve_equality,
)
from composecli.compose.confirm import format_error
from composecli.compose.shared_symbols import shared_conditions, undecided_relations
from composecli.core.contract import Contract
from composecli.core.dims import Free, admits, as_free, intersect, sizes_to_try
from composecli.core.findings import Finding, Side
from composecli.core.fit import Fit, Holds, format_sizes
from composecli.core.observations import (
    Accepted,
    Detail,
    Observation,
    Rejected,
    Untried,
)
from composecli.core.pytree import Call, call_leaves
from composecli.core.resizing import sizes_by_name
from composecli.core.rules import Rule
from composecli.core.size_expr import Symbol, symbols
from composecli.inference.generalize import multiplications_per_element, possible_limits
from composecli.inference.narrowing import Narrowed, example_of, narrow

MAX_FORWARDS = 80
MAX_COUNTEREXAMPLES = 6
_ABOUT_OTHER_SIZES = (
    Rule.FITS_ONLY_AT_SOME_SIZES,
    Rule.NOT_AT_EVERY_SIZE,
    Rule.SIZES_NOT_KNOWN,
)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the sizes at which a seam holds, and the axes that are not decided."""

    conditions: tuple[Condition, ...]
    undecided: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SolvedFit:
    """The sizes at which a seam holds, the conditions on them, and whether runs had to tell."""

    fit: Fit
    known: Known
    by_running: bool = False


def known_of(pairs: PortPairs) -> Known:
    """Return the conditions on which paired ports fit, by their dims."""
    conditions = list[Condition]()
    undecided = list[str]()
    for producer, consumer in pairs:
        conditions += pair_conditions(producer, consumer)
        undecided += undecided_axes(producer, consumer)
    conditions += shared_conditions(pairs)
    undecided += undecided_relations(pairs)
    return Known(tuple(conditions), tuple(undecided))


def solve_fit(known: Known, runs: SizeRuns, parts: OpenedModels) -> SolvedFit:
    """Return at which sizes a chain works that was run at the sizes of its call.

    `known` comes from the comparison of dims. It is checked at a few sizes; if it is not enough,
    or wrong, the input of the chain is varied.
    """
    sizes = sizes_by_name(runs.first, runs.call)
    by_running = bool(known.undecided) or not _is_confirmed(known, runs, sizes)
    if by_running:
        known = _known_by_running(runs, parts)
        if not known.undecided and not _is_confirmed(known, runs, sizes):
            known = replace(known, undecided=("the sizes do not work together",))
    fails_at = _counterexample(known, runs, sizes)
    if known.undecided:
        return SolvedFit(Fit(Holds.UNKNOWN, (), sizes, fails_at), known, by_running)
    if not known.conditions:
        return SolvedFit(Fit(Holds.ALWAYS, (), sizes, None), known, by_running)
    when = tuple(combined(known.conditions))
    return SolvedFit(Fit(Holds.SOMETIMES, when, sizes, fails_at), known, by_running)


def _is_confirmed(known: Known, runs: SizeRuns, sizes: Sizes) -> bool:
    """Return whether the chain works at sizes that meet the conditions, and at no others."""
    conditions = known.conditions
    if not all(symbols(condition.expr) <= sizes.keys() for condition in conditions):
        return False
    for point in fitting_points(conditions, runs.admitted, sizes):
        if runs.fits(point) is False:
            return False
    for point in failing_points(conditions, runs.admitted, sizes):
        if runs.fits(point) is True:
            return False
    return True


def _known_by_running(runs: SizeRuns, parts: OpenedModels) -> Known:
    """Return the conditions that are found by varying the free dims of the input."""
    limits = set[int]()
    cost = 0.0
    specs = [spec for _, spec in call_leaves(runs.call)]
    for part in parts:
        limits |= possible_limits(part.facts)
        cost += multiplications_per_element(part.facts, specs, 0)
    example = example_of(runs.call, runs.result, tuple(sorted(limits)), max(cost, 1.0))
    narrowed = narrow(runs.first, example, _Probe(runs))
    conditions = tuple(_conditions(narrowed, runs.ranges))
    return Known(conditions, (*narrowed.undecided, *_undecided_relations(runs)))


def _undecided_relations(runs: SizeRuns) -> tuple[str, ...]:
    """Return the relations of the input if other sizes that meet them do not all work."""
    where = runs.first.where
    if not where:
        return ()
    points = runs.admitted.others(sizes_by_name(runs.first, runs.call))
    outcomes = [runs.fits(point) for point in points]
    if outcomes and all(outcomes):
        return ()
    return tuple(f"{relation}: other sizes that meet it do not all work" for relation in where)


class _Probe:
    """Runs the chain at a call, as inference asks for it: within ranges and a budget."""

    def __init__(self, runs: SizeRuns) -> None:
        self.runs = runs
        self.last = runs.count + MAX_FORWARDS
        self.deadline = time.monotonic() + runs.session.options.budget.seconds

    def __call__(self, call: Call) -> Observation | Untried:
        """Return the observation at this call; sizes that the first model refuses are not run."""
        runs = self.runs
        sizes = sizes_by_name(runs.first, call)
        for name, size in sizes.items():
            if not admits(runs.ranges[name], size):
                return Rejected(0, "", f"{name} is not {size}", "", op="the contract")
        if not runs.admitted.allows(sizes):
            return Untried("related dims are not varied alone")
        if not runs.admits(sizes):
            return Untried("larger sizes were not tried")
        if runs.count >= self.last or time.monotonic() > self.deadline:
            return Untried("the budget is spent")
        fits = runs.fits(sizes)
        if fits is None:
            return Untried("some sizes could not be tried")
        return runs.at(sizes, Detail.OUTCOME)


def _conditions(narrowed: Narrowed, ranges: Mapping[str, Free]) -> Iterator[Condition]:
    """Yield the conditions by which the narrowed sizes of a symbol are fewer than its range."""
    for name, dim in narrowed.dims.items():
        own = ranges[name]
        both = intersect(own, dim)
        narrower = beyond(dim, own)
        if both is None or narrower is None:
            continue
        tried = sizes_to_try(own, MAX_TRIED_SIZE)
        failing = (size for size in tried if not admits(both, size))
        yield Condition(Symbol(name), both, str(narrower), narrower, next(failing, None))
    for one, other in narrowed.equal:
        condition = solve_equality(Symbol(one), Symbol(other), ranges)
        if condition is not None:
            yield condition


def _counterexample(known: Known, runs: SizeRuns, sizes: Sizes) -> Sizes | None:
    """Return the smallest sizes known at which the chain fails, which was run."""
    candidates = smallest_failing(known.conditions, runs.admitted, sizes)
    for number, point in enumerate(candidates):
        if number >= MAX_COUNTEREXAMPLES:
            break
        if runs.fits(point) is False:
            return point
    return runs.smallest_failure


def without_other_sizes(findings: Iterable[Finding]) -> Findings:
    """Return the findings about the sizes of the example, without those about others."""
    return tuple(finding for finding in findings if finding.rule not in _ABOUT_OTHER_SIZES)


def restated(
    findings: Findings, solved: SolvedFit, sides: tuple[Side, ...], *, strict: bool
) -> Findings:
    """Return the findings, those about other sizes as runs told them."""
    return (*without_other_sizes(findings), *_fit_findings(solved, sides, strict=strict))


def _fit_findings(solved: SolvedFit, sides: tuple[Side, ...], *, strict: bool) -> Findings:
    """Return the findings about sizes other than the example's, as runs told them."""
    fit, known = solved.fit, solved.known
    if fit.holds is Holds.SOMETIMES:
        return (conditional_finding(known.conditions, sides, strict=strict),)
    if fit.holds is not Holds.UNKNOWN:
        return ()
    if fit.fails_at is not None:
        rule = Rule.FITS_ONLY_AT_SOME_SIZES
        if strict:
            rule = Rule.NOT_AT_EVERY_SIZE
        title = f"compatible at some sizes: it fails at {format_sizes(fit.fails_at)}"
        return (Finding(rule, title, sides, notes=known.undecided),)
    if strict:
        title = "cannot decide for every size"
        return (Finding(Rule.SIZES_NOT_KNOWN, title, sides, notes=known.undecided),)
    return ()


def with_counterexample(
    findings: Sequence[Finding], fit: Fit, runs: SizeRuns, consumer: str
) -> tuple[Finding, ...]:
    """Return the findings; those that a size is missing have the refusal of the counterexample."""
    if fit.fails_at is None or not any(map(_is_about_every_size, findings)):
        return tuple(findings)
    refusal = runs.at(fit.fails_at)
    if isinstance(refusal, Accepted):
        return tuple(findings)
    note = f"at {format_sizes(fit.fails_at)} {consumer} fails at {refusal.where}: "
    note += format_error(refusal)
    noted = list[Finding]()
    for finding in findings:
        if _is_about_every_size(finding):
            noted.append(finding.noted(note))
        else:
            noted.append(finding)
    return tuple(noted)


def _is_about_every_size(finding: Finding) -> bool:
    return finding.rule is Rule.NOT_AT_EVERY_SIZE


def narrowed_contract(first: Contract, known: Known) -> Contract:
    """Return the contract of a chain's input with the sizes that meet the conditions."""
    dims = dict[str, Free]()
    for condition in known.conditions:
        if condition.dim is not None:
            name = condition.dim.name
            dims[name] = intersect(dims.get(name, condition.dim), condition.dim) or condition.dim
    inputs = list(first.inputs)
    for number, port in enumerate(inputs):
        narrowed = list(port.dims or ())
        for axis, dim in enumerate(narrowed):
            free = as_free(dim)
            if free is not None and free.name in dims:
                narrowed[axis] = intersect(free, dims[free.name]) or free
        if port.dims is not None:
            inputs[number] = replace(port, dims=tuple(narrowed))
    return replace(first, inputs=tuple(inputs))
