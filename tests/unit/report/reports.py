"""A report of each kind, with every field set."""

from __future__ import annotations

from dataclasses import replace

from composecli.commands.results import (
    CheckReport,
    ContractReport,
    InspectReport,
    ItemReport,
    ItemStatus,
    JoinReport,
    ModelReport,
    PortRow,
    ProblemReport,
    Report,
    SeamReport,
    SuiteReport,
    WeightsReport,
    Written,
)
from composecli.core.blueprint import Merge, Mode
from composecli.core.bridge import Cast, Flatten, Linear, Squeeze, Step
from composecli.core.contract import Contract, Evidence, EvidenceKind, Port
from composecli.core.dims import Fixed, Free, Unknown
from composecli.core.errors import Problem
from composecli.core.facts import ArgumentFact, ModelFacts, Setting
from composecli.core.findings import Finding, Fix, Side, Verdict
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.core.rules import Rule
from composecli.core.suite import ItemKind, Outcome
from composecli.workers.protocol import Check, LayerRow, Measure, MeasureKind, Sandbox

STEPS: tuple[Step, ...] = (Cast("int64"), Flatten(1), Squeeze(2), Linear(1, 5, 3))
CALL = Call((Argument(TensorSpec("float32", (2, 5))),))
CONTRACT = Contract(
    (
        Port("input", (0,), "float32", (Free("N"), Fixed(5))),
        Port("mask", (1,), "float", None, optional=True),
    ),
    (Port("output 0", (), "float32", (Free("N"), Unknown("its size depends on values"))),),
    CALL,
    TensorSpec("float32", (2, 3)),
    (Evidence(EvidenceKind.PROBED, "cpu"),),
)
FINDING = Finding(
    Rule.SIZE_DIFFERS,
    "feature width differs",
    (Side("a.pt", "output 0", "float32", ("N", "5")), Side("b.pt", "input")),
    1,
    ("a note",),
    Fix("composecli join a.pt b.pt", ("adds a layer",), STEPS),
)
MODEL = ModelReport("a.pt", "TorchScript archive", CONTRACT, 6, ("a note",))
SANDBOX = Sandbox((Measure(MeasureKind.LANDLOCK),), ("a memory limit",))
SEAM = SeamReport(
    "a.pt",
    "b.pt",
    (PortRow("output 0", "x", "input", "y", Verdict.BRIDGEABLE),),
    (FINDING,),
    Verdict.BRIDGEABLE,
)
CHECK = CheckReport(Mode.SEQUENTIAL, "cpu", False, (MODEL,), (SEAM,), "x", "y", False, SANDBOX)
WRITTEN = Written(
    "both.pt", 10, "0" * 64, (STEPS,), Merge.CAT, (Check("outputs", True, "equal"),), (FINDING,)
)
FACTS = ModelFacts(
    class_name="Linear",
    arguments=(ArgumentFact("input", "Tensor", True),),
    training="train",
    layers=(),
    parameters=18,
    trainable=18,
    size=72,
    dtypes=("float32",),
    devices=("cpu",),
    shared=(("one.weight", "other.weight"),),
    notes=("a note",),
    settings=(Setting("image_size", (224, 224)),),
    main_input="input",
)
INSPECT = InspectReport(
    MODEL,
    FACTS,
    (LayerRow(0, "", "Linear", "", 18),),
    FINDING,
    ("holds cpu",),
    '{"version": 1}',
    10,
    False,
    SANDBOX,
)
PROBLEM = ProblemReport(
    Problem(
        Rule.NO_SUCH_FILE, "cannot read the file", "a.pt", ("a note",), ("check the path",), "trace"
    )
)
PAIR = ItemReport(
    "a -> b",
    ItemKind.PAIR,
    7,
    ("a.pt", "b.pt"),
    Outcome.COMPATIBLE,
    Outcome.BRIDGEABLE,
    ItemStatus.FAILED,
    CHECK,
)
SUITE = SuiteReport(
    "ci.toml",
    (
        PAIR,
        replace(PAIR, kind=ItemKind.FIT, detail=WeightsReport("a.pt", PROBLEM.problem, FACTS)),
        replace(PAIR, kind=ItemKind.CONTRACT, detail=ContractReport(MODEL, "text", FINDING)),
        replace(
            PAIR, outcome=None, status=ItemStatus.UNKNOWN, detail=None, problem=PROBLEM.problem
        ),
    ),
    "main",
    Rule.INTERRUPTED,
    SANDBOX,
)
REPORTS: dict[str, Report] = {
    "check": CHECK,
    "join": JoinReport(CHECK, WRITTEN, (0,)),
    "join refused": JoinReport(CHECK, None),
    "inspect": INSPECT,
    "suite": SUITE,
    "problem": PROBLEM,
}
