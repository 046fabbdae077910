"""Models beside each other: one input that all of them take, and outputs that can be merged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from composecli.blueprint import Branch, Merge, Parallel, single
from composecli.bridge import Bridge, BridgeMode, Cast, Linear, castable, describe
from composecli.contract import Contract, Port
from composecli.dims import Shape
from composecli.findings import Finding, Fix, Side, Verdict, verdict_of
from composecli.infer import Found, NotFound
from composecli.judgement import not_found_finding, refusal_finding
from composecli.observations import Accepted, Refused
from composecli.requests import CheckRequest
from composecli.results import PortRow, SeamReport
from composecli.session import Part, Session
from composecli.trees import Call, Path, TensorSpec, Tree, call_leaves, kind_of, leaves, path_text
from composecli.verdict import Ask, Offer, carried, dims_text
from composecli.wiring import at, select


@dataclass(frozen=True, slots=True)
class JudgedBeside:
    contracts: tuple[Found | NotFound, ...]
    seams: tuple[SeamReport, ...]
    blueprint: Parallel | None
    call: Call | None
    result: Tree | None
    bridged: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Output:
    """What one branch gives to the merge: the part of its result, and its port in the first model's symbols."""

    part: Part
    path: Path
    tree: Tree
    port: Port | None

    @property
    def side(self) -> Side:
        if not isinstance(self.tree, TensorSpec):
            return Side(self.part.name, kind_of(self.tree))
        dims = self.port.dims if self.port is not None and self.port.dims is not None else None
        text = dims_text(dims) or tuple(map(str, self.tree.sizes))
        return Side(self.part.name, self.port.name if self.port else "output 0", self.tree.dtype, text)


def judge_beside(request: CheckRequest, session: Session, parts: tuple[Part, ...]) -> JudgedBeside:
    """The first model beside each of the others: the same input, and outputs that merge."""
    contracts = _infer_all(session, parts)
    call, refusals = _shared_call(session, parts, contracts)
    if call is None:
        missing = next((n for n, found in enumerate(contracts) if isinstance(found, NotFound)), 0)
        found = contracts[missing]
        assert isinstance(found, NotFound)
        finding = not_found_finding(
            parts[missing].name, parts[missing].facts, found, stated=bool(session.options.inputs)
        )
        return JudgedBeside(
            contracts, tuple(_seam(parts[0], part, (), (finding,)) for part in parts[1:]), None, None, None
        )
    outputs = _outputs(session, parts, contracts, call, refusals)
    bridges, fix = _bridges(request, outputs)
    seams = list[SeamReport]()
    for number in range(1, len(parts)):
        findings = _pair_findings(request, parts, outputs, refusals, contracts, number)
        if fix is not None:
            findings = tuple(replace(f, fix=fix) if f.code in ("CC402",) else f for f in findings)
        rows = _rows(contracts, outputs, number)
        seams.append(_seam(parts[0], parts[number], rows, findings))
    return _with_merge_probe(request, session, contracts, tuple(seams), outputs, bridges, call)


def _infer_all(session: Session, parts: tuple[Part, ...]) -> tuple[Found | NotFound, ...]:
    """The contract of each; a model that says nothing of itself is given what the first found one takes."""
    contracts = [session.infer(part, stated=session.stated(part.facts)) for part in parts]
    known = next((found.contract.example for found in contracts if isinstance(found, Found)), None)
    return tuple(
        session.infer(part, given=known)
        if isinstance(found, NotFound) and known and not session.options.inputs
        else found
        for part, found in zip(parts, contracts, strict=True)
    )


def _shared_call(
    session: Session, parts: tuple[Part, ...], contracts: tuple[Found | NotFound, ...]
) -> tuple[Call | None, dict[int, Refused]]:
    """The first example that every model takes; else the first one, with the refusals that it met."""
    best: tuple[Call | None, dict[int, Refused]] = (None, {})
    for found in contracts:
        if not isinstance(found, Found):
            continue
        call = found.contract.example
        observations = {n: session.run(single(part.real), call) for n, part in enumerate(parts)}
        refusals = {n: seen for n, seen in observations.items() if isinstance(seen, Refused)}
        if not refusals:
            return call, {}
        if best[0] is None:
            best = (call, refusals)
    return best


def _outputs(
    session: Session,
    parts: tuple[Part, ...],
    contracts: tuple[Found | NotFound, ...],
    call: Call,
    refusals: dict[int, Refused],
) -> dict[int, _Output]:
    first = contracts[0].contract if isinstance(contracts[0], Found) else None
    outputs = dict[int, _Output]()
    for number, part in enumerate(parts):
        seen = session.run(single(part.real), call)
        if number in refusals or not isinstance(seen, Accepted):
            continue
        path = _path(session, number, seen.result)
        found = contracts[number]
        ports = _in_first_symbols(found.contract, first, call) if isinstance(found, Found) else ()
        tree = at(seen.result, path)
        port = next((port for port in ports if port.path == path), None)
        outputs[number] = _Output(part, path, tree, port)
    return outputs


def _path(session: Session, number: int, result: Tree) -> Path:
    for selection in session.options.selections:
        if selection.model in (None, number + 1):
            try:
                return select(result, selection.port)
            except KeyError:
                continue
    return ()


def _in_first_symbols(contract: Contract, first: Contract | None, call: Call) -> tuple[Port, ...]:
    if first is None or contract is first or len(first.inputs) != len(contract.inputs):
        return contract.outputs
    specs = [spec for _, spec in call_leaves(call)]
    pairs = tuple(
        (Offer("", given, spec), Ask("", taken))
        for given, spec, taken in zip(first.inputs, specs, contract.inputs, strict=True)
    )
    return carried(contract.outputs, pairs)


def _pair_findings(
    request: CheckRequest,
    parts: tuple[Part, ...],
    outputs: dict[int, _Output],
    refusals: dict[int, Refused],
    contracts: tuple[Found | NotFound, ...],
    number: int,
) -> tuple[Finding, ...]:
    if 0 in refusals or number in refusals:
        wrong = number if number in refusals else 0
        finding = refusal_finding(refusals[wrong], parts[wrong].name)
        if finding.code == "CC301":
            title = f"{parts[wrong].name} refuses the input that {parts[0 if wrong else number].name} takes"
            finding = replace(finding, code="CC401", title=title, sides=_input_sides(parts, contracts, number))
        return (finding,)
    return tuple(_merge_findings(request, outputs[0], outputs[number]))


def _input_sides(parts: tuple[Part, ...], contracts: tuple[Found | NotFound, ...], number: int) -> tuple[Side, ...]:
    sides = list[Side]()
    for part, found in ((parts[0], contracts[0]), (parts[number], contracts[number])):
        ports = found.contract.inputs if isinstance(found, Found) else ()
        sides += [Side(part.name, port.name, port.dtype, dims_text(port.dims)) for port in ports]
    return tuple(sides)


def _merge_findings(request: CheckRequest, one: _Output, other: _Output) -> Iterator[Finding]:
    sides = (one.side, other.side)
    if request.merge is Merge.TUPLE:
        return
    for output in (one, other):
        if not isinstance(output.tree, TensorSpec):
            ports = ", ".join(path_text(path) for path, _ in leaves(output.tree)) or "none"
            title = f"{output.part.name} returns {kind_of(output.tree)} where a tensor is merged"
            yield Finding("CC405", title, sides, notes=(f"outputs to select from: {ports}",))
            return
    assert isinstance(one.tree, TensorSpec)
    assert isinstance(other.tree, TensorSpec)
    if one.tree.dtype != other.tree.dtype:
        yield Finding("CC404", "the merged outputs have other dtypes and are promoted to one", sides)
    if len(one.tree.sizes) != len(other.tree.sizes):
        yield Finding("CC402", f"rank differs: {request.merge} needs outputs of equal rank", sides)
        return
    rank = len(one.tree.sizes) + (request.merge is Merge.STACK)
    merged_axis = request.dim % rank if rank and -rank <= request.dim < rank else None
    if request.merge in (Merge.CAT, Merge.STACK) and merged_axis is None:
        title = f"--dim {request.dim} is no axis of {len(one.tree.sizes)}-axis outputs"
        yield Finding("CC403", title, sides)
        return
    skip = merged_axis if request.merge is Merge.CAT else None
    yield from _axis_findings(request, one, other, skip)


def _axis_findings(request: CheckRequest, one: _Output, other: _Output, skip: int | None) -> Iterator[Finding]:
    assert isinstance(one.tree, TensorSpec)
    assert isinstance(other.tree, TensorSpec)
    sides = (one.side, other.side)
    conditions = list[str]()
    for axis, (size, beside) in enumerate(zip(one.tree.sizes, other.tree.sizes, strict=True)):
        if axis == skip:
            continue
        if size != beside:
            title = f"axis {axis} differs: {size} and {beside}, and {request.merge} needs them equal"
            yield Finding("CC402", title, sides, axis, _advice(request, axis))
        elif one.port is not None and other.port is not None:
            conditions += _condition(one.port.dims, other.port.dims, axis)
    if conditions:
        code = "CC206" if request.strict else "CC205"
        yield Finding(code, f"compatible when {' and '.join(conditions)}", sides)


def _advice(request: CheckRequest, axis: int) -> tuple[str, ...]:
    if request.merge is Merge.CAT:
        return (f"cat along another axis leaves axis {axis} free: --dim {axis}",)
    return (f"--merge cat --dim {axis} needs no equal size there",)


def _condition(one: Shape | None, other: Shape | None, axis: int) -> list[str]:
    if one is None or other is None or len(one) != len(other) or str(one[axis]) == str(other[axis]):
        return []
    return [f"{one[axis]} == {other[axis]}"] if "?" not in (str(one[axis]), str(other[axis])) else []


def _bridges(request: CheckRequest, outputs: dict[int, _Output]) -> tuple[dict[int, Bridge], Fix | None]:
    """A layer for each branch that is narrower than the widest, where one axis alone is in the way."""
    specs = {n: output.tree for n, output in outputs.items() if isinstance(output.tree, TensorSpec)}
    if len(specs) < 2 or len(specs) != len(outputs) or len({len(spec.sizes) for spec in specs.values()}) != 1:
        return {}, None
    rank = len(next(iter(specs.values())).sizes)
    free = {request.dim % rank} if request.merge is Merge.CAT and -rank <= request.dim < rank else set[int]()
    wrong = [axis for axis in range(rank) if axis not in free and len({s.sizes[axis] for s in specs.values()}) > 1]
    if len(wrong) != 1 or wrong[0] == 0 or request.merge is Merge.TUPLE:
        return {}, None
    axis, widest = wrong[0], max(specs.values(), key=lambda spec: spec.sizes[wrong[0]])
    bridges = dict[int, Bridge]()
    for number, spec in specs.items():
        if spec.sizes[axis] == widest.sizes[axis]:
            continue
        if not castable(spec.dtype, widest.dtype) and spec.dtype != widest.dtype:
            return {}, None
        cast: Bridge = (Cast(widest.dtype),) if spec.dtype != widest.dtype else ()
        bridges[number] = (*cast, Linear(axis, spec.sizes[axis], widest.sizes[axis], widest.dtype))
    if not widest.dtype.startswith(("float", "bfloat")):
        return {}, None
    steps = tuple(step for bridge in bridges.values() for step in bridge)
    command = request.command("--bridge", "linear", "-o", "both.pt")
    return bridges, Fix(command, tuple(f"adds {describe(step)}" for step in steps), steps)


def _rows(contracts: tuple[Found | NotFound, ...], outputs: dict[int, _Output], number: int) -> tuple[PortRow, ...]:
    rows = list[PortRow]()
    one, other = contracts[0], contracts[number]
    if isinstance(one, Found) and isinstance(other, Found):
        for given, taken in zip(one.contract.inputs, other.contract.inputs, strict=False):
            rows.append(PortRow(given.name, str(given), taken.name, str(taken), Verdict.COMPATIBLE))
    if 0 in outputs and number in outputs:
        mine, theirs = outputs[0].side, outputs[number].side
        rows.append(PortRow(mine.port, mine.text, theirs.port, theirs.text, Verdict.COMPATIBLE))
    return tuple(rows)


def _seam(one: Part, other: Part, rows: tuple[PortRow, ...], findings: tuple[Finding, ...]) -> SeamReport:
    verdict = verdict_of(findings)
    inputs_only = any(finding.code == "CC401" for finding in findings)
    marked = tuple(
        replace(row, verdict=verdict) if (number == len(rows) - 1 or inputs_only) else row
        for number, row in enumerate(rows)
    )
    return SeamReport(one.name, other.name, marked, findings, verdict)


def _with_merge_probe(
    request: CheckRequest,
    session: Session,
    contracts: tuple[Found | NotFound, ...],
    seams: tuple[SeamReport, ...],
    outputs: dict[int, _Output],
    bridges: dict[int, Bridge],
    call: Call,
) -> JudgedBeside:
    """The merge really run, with the bridge where the request allows one; a refusal becomes a finding of every seam."""
    needed = bridges if request.bridge is BridgeMode.LINEAR else {}
    branches = tuple(
        Branch(output.part.real, output.path, needed.get(number, ())) for number, output in sorted(outputs.items())
    )
    bridged = tuple(n for n, seam in enumerate(seams) if seam.verdict is Verdict.BRIDGEABLE) if needed else ()
    ready = len(outputs) == len(contracts) and all(
        seam.verdict is Verdict.COMPATIBLE or number in bridged for number, seam in enumerate(seams)
    )
    if not ready:
        return JudgedBeside(contracts, seams, None, call, None)
    blueprint = Parallel(branches, request.merge, request.dim)
    seen = session.run(blueprint, call)
    if isinstance(seen, Accepted):
        return JudgedBeside(contracts, seams, blueprint, call, seen.result, bridged)
    finding = refusal_finding(seen, f"the merge ({request.merge})")
    failed = tuple(
        replace(seam, findings=(*seam.findings, finding), verdict=verdict_of((*seam.findings, finding)))
        for seam in seams
    )
    return JudgedBeside(contracts, failed, None, call, None)
