"""Symbols that several inputs of one consumer share: the sizes of its producers must agree."""

from __future__ import annotations

from collections.abc import Iterator

from composecli.compose.compare import PortPairs, conditional_finding, given_to
from composecli.compose.conditions import Condition, equality_conditions
from composecli.compose.related_sizes import broken_relations, relation_conditions
from composecli.core.dims import Dim, Free, as_expr, as_free
from composecli.core.findings import Finding, Side
from composecli.core.relations import Relation, Where
from composecli.core.rules import Rule
from composecli.core.size_expr import evaluate, symbols


def shared_symbol_findings(pairs: PortPairs, *, strict: bool = False) -> tuple[Finding, ...]:
    """Return the findings about symbols that appear on more than one axis of a consumer.

    A consumer of `x: float32[N, D]` and `y: float32[N, E]` accepts `float32[B, 5]` and
    `float32[C, 7]` only if `B == C`. Free axes of one port are compared by `compare`.
    """
    at_example = (*_tied_size_findings(pairs), *_broken_relation_findings(pairs))
    if at_example:
        return at_example
    conditions = shared_conditions(pairs)
    undecided = undecided_relations(pairs)
    sides = list[Side]()
    for producer, consumer in pairs:
        if len(consumer.port.dims or ()) == len(producer.dims):
            sides.extend((producer.side, consumer.side))
    findings = list[Finding]()
    if conditions:
        findings.append(conditional_finding(conditions, tuple(sides), strict=strict))
    if strict and undecided:
        title = "cannot decide for every size"
        findings.append(Finding(Rule.SIZES_NOT_KNOWN, title, tuple(sides), notes=undecided))
    return tuple(findings)


def shared_conditions(pairs: PortPairs) -> list[Condition]:
    """Return the conditions under which symbols have one size on the axes of several ports."""
    producer_dims = list[Dim]()
    consumer_dims = list[Dim]()
    ranges = dict[str, Free]()
    reported = set[str]()
    sizes = dict[str, int]()
    for producer, consumer in pairs:
        sizes |= producer.sizes
        dims = consumer.port.dims or ()
        if len(dims) != len(producer.dims):
            continue
        ranges |= {free.name: free for free in producer.ranges}
        producer_dims.extend(producer.dims)
        consumer_dims.extend(dims)
        within_port = equality_conditions(producer.dims, dims, ranges)
        reported.update(condition.text for condition in within_port)
    across_ports = equality_conditions(producer_dims, consumer_dims, ranges)
    conditions = [condition for condition in across_ports if condition.text not in reported]
    where, given = _relations_of_several(pairs), given_to(pairs)
    conditions += relation_conditions(where, given, ranges, sizes)
    return conditions


def undecided_relations(pairs: PortPairs) -> tuple[str, ...]:
    """Return each relation between several inputs that is not decided, with the reason."""
    return tuple(given_to(pairs).undecided(_relations_of_several(pairs)))


def _broken_relation_findings(pairs: PortPairs) -> Iterator[Finding]:
    """Yield a finding for each relation between inputs that the sizes of the example break."""
    sides = tuple(port.side for pair in pairs for port in pair)
    for title in broken_relations(_relations_of_several(pairs), given_to(pairs)):
        yield Finding(Rule.SIZE_OUT_OF_RANGE, title, sides)


def _relations_of_several(pairs: PortPairs) -> Where:
    """Return the relations of the consumer between dims of several inputs."""
    related = dict[Relation, None]()
    own = set[Relation]()
    for _, consumer in pairs:
        related |= dict.fromkeys(consumer.where)
        own.update(consumer.own_relations)
    return tuple(relation for relation in related if relation not in own)


def _tied_size_findings(pairs: PortPairs) -> Iterator[Finding]:
    """Yield a finding for each axis whose size in the example does not follow from the others.

    A consumer of `f1: float32[N, 8, 2*H]` and `f2: float32[N, 16, H]` refuses `float32[1, 8, 60]`
    and `float32[1, 16, 32]`.
    """
    sizes_by_name = given_to(pairs).sizes
    for producer, consumer in pairs:
        dims = consumer.port.dims or ()
        if len(dims) != len(producer.example.sizes):
            continue
        for axis, dim in enumerate(dims):
            expr = as_expr(dim)
            if expr is None or as_free(dim) is not None:
                continue
            names = symbols(expr)
            if not names or not names <= sizes_by_name.keys():
                continue
            size = producer.example.sizes[axis]
            needed = evaluate(expr, sizes_by_name)
            if size == needed:
                continue
            known = ", ".join(f"{name} is {sizes_by_name[name]}" for name in sorted(names))
            title = f"axis {axis} is {size}, but {dim} is {needed}, because {known}"
            sides = (producer.side, consumer.side)
            yield Finding(Rule.SIZE_OUT_OF_RANGE, title, sides, axis)
