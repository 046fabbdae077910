"""Models beside each other: one input that all of them take, and outputs that can be merged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from composecli.commands.composition import Composition, no_such_output, not_found_finding
from composecli.commands.opened_model import OpenedModel
from composecli.commands.requests import CheckRequest
from composecli.commands.results import PortRow, SeamReport
from composecli.commands.session import Session
from composecli.compose.bridge_plan import castable
from composecli.compose.compare import ConsumerPort, ProducerPort, dims_text
from composecli.compose.confirm import refusal_finding
from composecli.compose.propagate import propagate
from composecli.core.blueprint import Branch, Merge, Parallel, single_model
from composecli.core.bridge import Bridge, BridgeMode, Cast, Linear, describe
from composecli.core.contract import Contract, Port
from composecli.core.dims import Shape
from composecli.core.findings import Finding, Fix, Side, Verdict, verdict_of
from composecli.core.observations import Accepted, Observation, Rejected
from composecli.core.pytree import (
    Call,
    KeyPath,
    TensorSpec,
    Tree,
    call_leaves,
    describe_tree,
    find_path,
    get_path,
    keystr,
    leaves,
)
from composecli.core.rules import Rule
from composecli.inference.result import Found, NotFound


@dataclass(frozen=True, slots=True)
class _Output:
    """What one branch gives to the merge: the part of its result, and its port in the first model's symbols."""

    part: OpenedModel
    path: KeyPath
    tree: Tree
    port: Port | None

    @property
    def side(self) -> Side:
        if not isinstance(self.tree, TensorSpec):
            return Side(self.part.name, describe_tree(self.tree))
        dims = self.port.dims if self.port is not None and self.port.dims is not None else None
        text = dims_text(dims) or tuple(map(str, self.tree.sizes))
        return Side(
            self.part.name, self.port.name if self.port else "output 0", self.tree.dtype, text
        )


@dataclass(frozen=True, slots=True)
class _Beside:
    """What is known once every model was given the same call: what each gives to the merge, or how it refused."""

    request: CheckRequest
    session: Session
    parts: tuple[OpenedModel, ...]
    contracts: tuple[Found | NotFound, ...]
    call: Call
    outputs: dict[int, _Output]
    refusals: dict[int, Rejected]


def check_parallel(
    request: CheckRequest, session: Session, parts: tuple[OpenedModel, ...]
) -> Composition:
    """The first model beside each of the others: the same input, and outputs that merge."""
    contracts = _infer_all(session, parts)
    calls = [found.contract.example for found in contracts if isinstance(found, Found)]
    if not calls:
        return _without_input(session, parts, contracts)
    call, results, refusals = _share_call(session, parts, calls)
    wrong = _unselected(session, results, parts)
    if wrong is not None:
        return Composition(contracts, _seams_with(wrong, parts), None, call, None)
    outputs = {
        number: _output(session, parts, contracts, call, number, result)
        for number, result in results.items()
    }
    return _judge(_Beside(request, session, parts, contracts, call, outputs, refusals))


def _without_input(
    session: Session, parts: tuple[OpenedModel, ...], contracts: tuple[Found | NotFound, ...]
) -> Composition:
    found = contracts[0]
    assert isinstance(found, NotFound)
    stated = bool(session.options.inputs)
    finding = not_found_finding(parts[0].name, parts[0].facts, found, stated=stated)
    return Composition(contracts, _seams_with(finding, parts), None, None, None)


def _seams_with(finding: Finding, parts: tuple[OpenedModel, ...]) -> tuple[SeamReport, ...]:
    """The same finding for every pair: it keeps any of them from being compared."""
    return tuple(_seam(parts[0], part, (), (finding,)) for part in parts[1:])


def _infer_all(session: Session, parts: tuple[OpenedModel, ...]) -> tuple[Found | NotFound, ...]:
    """The contract of each; a model that says nothing of itself is given what the first found one takes."""
    contracts = [session.infer(part, stated=session.stated_input(part)) for part in parts]
    known = next((found.contract.example for found in contracts if isinstance(found, Found)), None)
    return tuple(
        session.infer(part, given=known)
        if isinstance(found, NotFound) and known and not session.options.inputs
        else found
        for part, found in zip(parts, contracts, strict=True)
    )


def _share_call(
    session: Session, parts: tuple[OpenedModel, ...], calls: list[Call]
) -> tuple[Call, dict[int, Tree], dict[int, Rejected]]:
    """The first of these calls that every model takes, else the first, with what each returned or how it refused."""
    best: tuple[Call, dict[int, Tree], dict[int, Rejected]] | None = None
    for call in dict.fromkeys(calls):
        results, refusals = dict[int, Tree](), dict[int, Rejected]()
        for number, part in enumerate(parts):
            match session.run(single_model(part.handle), call):
                case Accepted() as seen:
                    results[number] = seen.result
                case Rejected() as refused:
                    refusals[number] = refused
        if not refusals:
            return call, results, refusals
        best = best or (call, results, refusals)
    assert best is not None
    return best


def _output(
    session: Session,
    parts: tuple[OpenedModel, ...],
    contracts: tuple[Found | NotFound, ...],
    call: Call,
    number: int,
    result: Tree,
) -> _Output:
    first, found = contracts[0], contracts[number]
    base = first.contract if isinstance(first, Found) else None
    path = _path(session, number, result)
    ports = _in_first_symbols(found.contract, base, call) if isinstance(found, Found) else ()
    port = next((port for port in ports if port.path == path), None)
    return _Output(parts[number], path, get_path(result, path), port)


def _path(session: Session, number: int, result: Tree) -> KeyPath:
    for selection in session.options.selections:
        path = find_path(result, selection.port) if selection.model in (None, number + 1) else None
        if path is not None:
            return path
    return ()


def _unselected(
    session: Session, results: dict[int, Tree], parts: tuple[OpenedModel, ...]
) -> Finding | None:
    """The finding that a selection names an output which no model has, or not the one that it is for."""
    for selection in session.options.selections:
        meant = [n for n in results if selection.model in (None, n + 1)]
        if all(find_path(results[number], selection.port) is None for number in meant):
            number = meant[0] if meant else 0
            return no_such_output(parts[number].name, selection.port, results[number])
    return None


def _in_first_symbols(contract: Contract, first: Contract | None, call: Call) -> tuple[Port, ...]:
    if first is None or contract is first or len(first.required) != len(contract.required):
        return contract.outputs
    specs = [spec for _, spec in call_leaves(call)]
    pairs = tuple(
        (ProducerPort("", given, spec), ConsumerPort("", taken))
        for given, spec, taken in zip(first.required, specs, contract.required, strict=True)
    )
    return propagate(contract.outputs, pairs)


def _judge(beside: _Beside) -> Composition:
    """The findings of each pair, the merge really run, and a bridge where one is needed and works."""
    numbers = range(1, len(beside.parts))
    findings = {number: _pair_findings(beside, number) for number in numbers}
    bridges = _bridges(beside.request, beside.outputs)
    tried = _run_merge(beside, bridges) if bridges else None
    works = isinstance(tried, Accepted)
    if works:
        fix = _fix(beside.request, bridges)
        findings = {
            n: tuple(replace(f, fix=fix) if f.rule is Rule.MERGE_SIZES_DIFFER else f for f in fs)
            for n, fs in findings.items()
        }
    verdicts = {number: verdict_of(found) for number, found in findings.items()}
    use = bridges if works and beside.request.bridge is BridgeMode.LINEAR else {}
    bridged = (
        tuple(n - 1 for n, verdict in verdicts.items() if verdict is Verdict.BRIDGEABLE)
        if use
        else ()
    )
    ready = all(
        verdict is Verdict.COMPATIBLE or n - 1 in bridged for n, verdict in verdicts.items()
    )
    ran = (tried if use else _run_merge(beside, {})) if ready else None
    if isinstance(ran, Rejected):
        refused = refusal_finding(ran, f"the merge ({beside.request.merge})")
        findings = {number: (*found, refused) for number, found in findings.items()}
    seams = tuple(
        _seam(beside.parts[0], beside.parts[n], _rows(beside, n), findings[n]) for n in numbers
    )
    if not isinstance(ran, Accepted):
        return Composition(beside.contracts, seams, None, beside.call, None)
    return Composition(
        beside.contracts, seams, _blueprint(beside, use), beside.call, ran.result, bridged
    )


def _blueprint(beside: _Beside, bridges: dict[int, Bridge]) -> Parallel:
    branches = tuple(
        Branch(output.part.handle, output.path, bridges.get(number, ()))
        for number, output in beside.outputs.items()
    )
    return Parallel(branches, beside.request.merge, beside.request.dim)


def _run_merge(beside: _Beside, bridges: dict[int, Bridge]) -> Observation:
    return beside.session.run(_blueprint(beside, bridges), beside.call)


def _pair_findings(beside: _Beside, number: int) -> tuple[Finding, ...]:
    refusals, parts = beside.refusals, beside.parts
    if 0 not in refusals and number not in refusals:
        return tuple(_merge_findings(beside.request, beside.outputs[0], beside.outputs[number]))
    wrong = number if number in refusals else 0
    finding = refusal_finding(refusals[wrong], parts[wrong].name)
    if finding.rule is Rule.REFUSED_BY_CONSUMER:
        title = (
            f"{parts[wrong].name} refuses the input that {parts[0 if wrong else number].name} takes"
        )
        sides = _input_sides(parts, beside.contracts, number)
        finding = replace(finding, rule=Rule.INPUTS_NOT_SHARED, title=title, sides=sides)
    return (finding,)


def _input_sides(
    parts: tuple[OpenedModel, ...], contracts: tuple[Found | NotFound, ...], number: int
) -> tuple[Side, ...]:
    sides = list[Side]()
    for part, found in ((parts[0], contracts[0]), (parts[number], contracts[number])):
        ports = found.contract.required if isinstance(found, Found) else ()
        sides += [Side(part.name, port.name, port.dtype, dims_text(port.dims)) for port in ports]
    return tuple(sides)


def _merge_findings(request: CheckRequest, one: _Output, other: _Output) -> Iterator[Finding]:
    sides = (one.side, other.side)
    if request.merge is Merge.TUPLE:
        return
    for output in (one, other):
        if not isinstance(output.tree, TensorSpec):
            ports = ", ".join(keystr(path) for path, _ in leaves(output.tree)) or "none"
            title = (
                f"{output.part.name} returns {describe_tree(output.tree)} where a tensor is merged"
            )
            yield Finding(
                Rule.MERGE_NEEDS_TENSORS, title, sides, notes=(f"outputs to select from: {ports}",)
            )
            return
    assert isinstance(one.tree, TensorSpec)
    assert isinstance(other.tree, TensorSpec)
    if one.tree.dtype != other.tree.dtype:
        yield Finding(
            Rule.MERGE_DTYPE_DIFFERS,
            "the merged outputs have other dtypes and are promoted to one",
            sides,
        )
    if len(one.tree.sizes) != len(other.tree.sizes):
        yield Finding(
            Rule.MERGE_SIZES_DIFFER,
            f"rank differs: {request.merge} needs outputs of equal rank",
            sides,
        )
        return
    merged_axis = _merged_axis(request, len(one.tree.sizes) + (request.merge is Merge.STACK))
    if request.merge in (Merge.CAT, Merge.STACK) and merged_axis is None:
        title = f"--dim {request.dim} is no axis of {len(one.tree.sizes)}-axis outputs"
        yield Finding(Rule.MERGE_DIM_OUT_OF_RANGE, title, sides)
        return
    skip = merged_axis if request.merge is Merge.CAT else None
    yield from _axis_findings(request, one, other, skip)


def _merged_axis(request: CheckRequest, rank: int) -> int | None:
    """The axis that `--dim` names, counted from 0; None where there is none of that number."""
    return request.dim % rank if -rank <= request.dim < rank else None


def _axis_findings(
    request: CheckRequest, one: _Output, other: _Output, skip: int | None
) -> Iterator[Finding]:
    assert isinstance(one.tree, TensorSpec)
    assert isinstance(other.tree, TensorSpec)
    sides = (one.side, other.side)
    conditions = list[str]()
    for axis, (size, beside) in enumerate(zip(one.tree.sizes, other.tree.sizes, strict=True)):
        if axis == skip:
            continue
        if size != beside:
            title = (
                f"axis {axis} differs: {size} and {beside}, and {request.merge} needs them equal"
            )
            yield Finding(Rule.MERGE_SIZES_DIFFER, title, sides, axis, _advice(request, axis))
        elif one.port is not None and other.port is not None:
            conditions += _condition(one.port.dims, other.port.dims, axis)
    if conditions:
        code = Rule.NOT_AT_EVERY_SIZE if request.strict else Rule.FITS_ONLY_AT_SOME_SIZES
        yield Finding(code, f"compatible when {' and '.join(conditions)}", sides)


def _advice(request: CheckRequest, axis: int) -> tuple[str, ...]:
    if request.merge is Merge.CAT:
        return (f"cat along another axis leaves axis {axis} free: --dim {axis}",)
    return (f"--merge cat --dim {axis} needs no equal size there",)


def _condition(one: Shape | None, other: Shape | None, axis: int) -> list[str]:
    if one is None or other is None or len(one) != len(other) or str(one[axis]) == str(other[axis]):
        return []
    return (
        [f"{one[axis]} == {other[axis]}"] if "?" not in (str(one[axis]), str(other[axis])) else []
    )


def _bridges(request: CheckRequest, outputs: dict[int, _Output]) -> dict[int, Bridge]:
    """A layer for each branch that is narrower than the widest, where one axis alone is in the way; else nothing."""
    specs = {
        number: output.tree
        for number, output in outputs.items()
        if isinstance(output.tree, TensorSpec)
    }
    if len(specs) != len(outputs) or len({len(spec.sizes) for spec in specs.values()}) != 1:
        return {}
    rank = len(next(iter(specs.values())).sizes)
    free = _merged_axis(request, rank) if request.merge is Merge.CAT else None
    wrong = [
        axis
        for axis in range(rank)
        if axis != free and len({s.sizes[axis] for s in specs.values()}) > 1
    ]
    if len(wrong) != 1 or wrong[0] == 0 or request.merge is Merge.TUPLE:
        return {}
    axis = wrong[0]
    widest = max(specs.values(), key=lambda spec: spec.sizes[axis])
    narrower = {
        number: spec for number, spec in specs.items() if spec.sizes[axis] < widest.sizes[axis]
    }
    floats = widest.dtype.startswith(("float", "bfloat"))
    if not floats or not all(castable(spec.dtype, widest.dtype) for spec in narrower.values()):
        return {}
    return {number: _widening(spec, widest, axis) for number, spec in narrower.items()}


def _widening(spec: TensorSpec, widest: TensorSpec, axis: int) -> Bridge:
    layer = Linear(axis, spec.sizes[axis], widest.sizes[axis], widest.dtype)
    return (layer,) if spec.dtype == widest.dtype else (Cast(widest.dtype), layer)


def _fix(request: CheckRequest, bridges: dict[int, Bridge]) -> Fix:
    steps = tuple(step for bridge in bridges.values() for step in bridge)
    command = request.command("--bridge", "linear", "-o", "both.pt")
    return Fix(command, tuple(f"adds {describe(step)}" for step in steps), steps)


def _rows(beside: _Beside, number: int) -> tuple[PortRow, ...]:
    rows = list[PortRow]()
    one, other = beside.contracts[0], beside.contracts[number]
    if isinstance(one, Found) and isinstance(other, Found):
        for given, taken in zip(one.contract.required, other.contract.required, strict=False):
            rows.append(PortRow(given.name, str(given), taken.name, str(taken), Verdict.COMPATIBLE))
    if 0 in beside.outputs and number in beside.outputs:
        mine, theirs = beside.outputs[0].side, beside.outputs[number].side
        rows.append(PortRow(mine.port, mine.text, theirs.port, theirs.text, Verdict.COMPATIBLE))
    return tuple(rows)


def _seam(
    one: OpenedModel, other: OpenedModel, rows: tuple[PortRow, ...], findings: tuple[Finding, ...]
) -> SeamReport:
    verdict = verdict_of(findings)
    inputs_only = any(finding.rule is Rule.INPUTS_NOT_SHARED for finding in findings)
    marked = tuple(
        replace(row, verdict=verdict) if (number == len(rows) - 1 or inputs_only) else row
        for number, row in enumerate(rows)
    )
    return SeamReport(one.name, other.name, marked, findings, verdict)
