"""Suites: what each kind of item finds, as the single commands find it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import composecli as package
from composecli.commands.results import ItemStatus
from composecli.core.suite import EXPECTED, ItemKind
from composecli.files.suite_file import schema_text
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.protocol import OpenRequest, ProbeRequest, R, Request
from tests.commands.running import Composecli, Installed
from tests.models import Ids, TwoOutputs, encoder

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.fc = nn.Linear(5, width)

    def forward(self, x):
        return self.fc(x)
"""
MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(10, 5),
    "wider": lambda: nn.Linear(10, 7),
    "heads/a": lambda: nn.Linear(5, 2),
    "heads/b": lambda: nn.Linear(6, 2),
    "relu": nn.ReLU,
    "encoder": encoder,
    "flat": lambda: nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)),
    "two": TwoOutputs,
    "ids": Ids,
    "odd": lambda: nn.Unflatten(1, (3, 7)),
}
SUITE = """
[models]
linear = "linear.pt"
wider = "wider.pt"
heads = "heads/*.pt"
relu = "relu.pt"
encoder = "encoder.pt"
small = { path = "encoder.pt", inputs = ["float32[N,3,32,32]"] }
flat = "flat.pt"
two = "two.pt"
ids = "ids.pt"
gone = "gone.pt"
net = "net.py:Net@good.pt"
stale = "net.py:Net@stale.pt"
trained = "net.py:Net@trained.pt"
broken = "broken.pt"

[[pair]]
producer = "linear"
consumer = "heads"

[[pair]]
name = "encoder into flat"
producer = "encoder"
consumer = "flat"

[[pair]]
name = "encoder at one size"
producer = "small"
consumer = "flat"
strict = true

[[pair]]
name = "at every size"
producer = "encoder"
consumer = "flat"
strict = true
expect = "incompatible"

[[pair]]
producer = "two"
consumer = "relu"
select = ["[1]"]

[[pair]]
producer = "ids"
consumer = "relu"

[[pair]]
producer = "relu"
consumer = "ids"

[[chain]]
models = ["linear", "relu", "net"]

[[parallel]]
models = ["linear", "wider"]

[[parallel]]
name = "added"
models = ["linear", "wider"]
merge = "add"
expect = "incompatible"

[[fit]]
model = "net"

[[fit]]
model = "stale"
expect = "misfit"

[[fit]]
model = "trained"
key = "best"

[[contract]]
model = "linear"
text = "float32[ANY, 10] -> float32[ANY,5]"

[[contract]]
model = "linear"
text = "float32[N, 10] -> float32[N, 6]"
expect = "different"

[[contract]]
model = "encoder"
file = "expected/encoder.contract.json"

[[pair]]
producer = "gone"
consumer = "relu"

[[pair]]
producer = "broken"
consumer = "relu"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("suite")
    (folder / "heads").mkdir()
    (folder / "expected").mkdir()
    for name, make in MODULES.items():
        torch.jit.script(make()).save(str(folder / f"{name}.pt"))
    (folder / "net.py").write_text(NET)
    good = nn.Linear(5, 4).state_dict(prefix="fc.")
    torch.save(good, folder / "good.pt")
    torch.save(nn.Linear(5, 3).state_dict(prefix="fc."), folder / "stale.pt")
    torch.save({"best": good, "last": good}, folder / "trained.pt")
    (folder / "broken.pt").write_bytes((folder / "linear.pt").read_bytes()[:900])
    (folder / "ci.toml").write_text(SUITE)
    return folder


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def items(report: Any) -> dict[str, Any]:
    return {f"{item['kind']} {item['name']}": item for item in report["items"]}


OUTCOMES = {
    "pair linear -> heads/a.pt": ("compatible", "passed"),
    "pair linear -> heads/b.pt": ("bridgeable", "failed"),
    "pair encoder into flat": ("compatible", "passed"),
    "pair encoder at one size": ("compatible", "passed"),
    "pair at every size": ("incompatible", "passed"),
    "pair two -> relu": ("compatible", "passed"),
    "chain linear -> relu -> net": ("compatible", "passed"),
    "parallel linear | wider": ("compatible", "passed"),
    "parallel added": ("bridgeable", "passed"),
    "fit net": ("fits", "passed"),
    "fit stale": ("misfit", "passed"),
    "fit trained": ("fits", "passed"),
    "contract encoder": ("same", "passed"),
    "pair gone -> relu": (None, "unknown"),
    "pair broken -> relu": (None, "unknown"),
}


def test_each_kind_of_item_finds_what_it_should(installed: Installed, inside: Path) -> None:
    written = installed(
        "inspect", "encoder.pt", "--write-contract", "expected/encoder.contract.json", "--force"
    )
    assert written.code == 0, written.err
    ran = installed.json("suite", "ci.toml", "--trust", "ci.toml")
    assert ran.code == ran.json["exit_code"] == 1, ran.err
    found = items(ran.json)
    for name, (outcome, status) in OUTCOMES.items():
        assert (found[name]["outcome"], found[name]["status"]) == (outcome, status), found[name]
    contracts = [item for item in ran.json["items"] if item["kind"] == "contract"]
    assert [item["status"] for item in contracts] == ["passed"] * 3
    lines = SUITE.splitlines()
    for item in ran.json["items"]:
        assert lines[item["line"] - 1] == f"[[{item['kind']}]]"
    assert [item["line"] for item in ran.json["items"]] == sorted(
        item["line"] for item in ran.json["items"]
    )
    assert ran.json["counts"]["failed"] == sum(
        item["status"] == "failed" for item in ran.json["items"]
    )


SINGLE = {
    "pair linear -> heads/a.pt": "linear.pt heads/a.pt",
    "pair linear -> heads/b.pt": "linear.pt heads/b.pt",
    "pair encoder into flat": "encoder.pt flat.pt",
    "pair encoder at one size": "encoder.pt flat.pt --strict --input float32[N,3,32,32]",
    "pair at every size": "encoder.pt flat.pt --strict",
    "pair two -> relu": "two.pt relu.pt --select [1]",
    "pair ids -> relu": "ids.pt relu.pt",
    "pair relu -> ids": "relu.pt ids.pt",
    "chain linear -> relu -> net": "linear.pt relu.pt net.py:Net@good.pt",
    "parallel linear | wider": "--mode parallel linear.pt wider.pt",
    "parallel added": "--mode parallel --merge add linear.pt wider.pt",
}


def test_items_are_judged_as_single_checks_are(composecli: Composecli, inside: Path) -> None:
    found = items(composecli.json("suite", "ci.toml", "--trust", "ci.toml").json)
    for name, words in SINGLE.items():
        alone = composecli.json("check", *words.split()).json
        together = found[name]["check"]
        assert together["verdict"] == alone["verdict"], name
        for seam, other in zip(together["seams"], alone["seams"], strict=True):
            same = ("producer", "consumer", "verdict", "holds", "when", "ports")
            assert [seam[key] for key in same] == [other[key] for key in same], name
            assert _told(seam) == _told(other), name


def _told(seam: Any) -> list[tuple[Any, ...]]:
    return [
        (finding["code"], finding["title"], finding["sides"], finding["fix"])
        for finding in seam["findings"]
    ]


@pytest.mark.parametrize("name", ["stale.pt", "trained.pt", "good.pt"])
def test_a_fit_is_that_of_a_check_of_the_factory(
    composecli: Composecli, inside: Path, name: str
) -> None:
    Path("fit.toml").write_text(f'[models]\nm = "net.py:Net@{name}"\n[[fit]]\nmodel = "m"\n')
    alone = composecli.json("check", f"net.py:Net@{name}")
    together = composecli.json("suite", "fit.toml", "--trust", "fit.toml")
    assert together.code == alone.code
    (item,) = together.json["items"]
    if item["weights"] is None:
        assert item["problem"]["code"] == alone.json["error"]["code"]
    else:
        assert item["weights"] == {key: alone.json[key] for key in item["weights"]}


class _Counting(InProcessWorker):
    def __init__(self) -> None:
        super().__init__()
        self.opened = list[str]()
        self.probes = 0

    def ask(self, request: Request[R]) -> R:
        if isinstance(request, OpenRequest):
            self.opened.append(request.reference.name)
        if isinstance(request, ProbeRequest):
            self.probes += 1
        return super().ask(request)


def test_each_model_is_opened_and_inferred_once(inside: Path) -> None:
    pairs = '[[pair]]\nproducer = "linear"\nconsumer = "a"\n'
    models = '[models]\nlinear = "linear.pt"\na = "heads/a.pt"\n'
    probes = list[int]()
    for count in (1, 2, 3):
        Path("many.toml").write_text(models + pairs * count)
        worker = _Counting()
        report = package.suite("many.toml", worker=worker)
        assert report.ok
        assert worker.opened == ["linear.pt", "heads/a.pt"]
        probes.append(worker.probes)
    one_more = probes[1] - probes[0]
    assert probes[2] - probes[1] == one_more
    assert one_more < probes[0] / 2


def test_the_order_of_items_changes_no_outcome(composecli: Composecli, inside: Path) -> None:
    head, *tables = SUITE.split("\n[[")
    backwards = "\n[[".join([head, *reversed(tables)])
    Path("backwards.toml").write_text(backwards)
    keys = ("kind", "name", "expected", "outcome")
    there, back = (
        sorted(
            str([item[key] for key in keys])
            for item in composecli.json("suite", name).json["items"]
        )
        for name in ("ci.toml", "backwards.toml")
    )
    assert there == back


def test_the_python_function_returns_the_report(inside: Path) -> None:
    report = package.suite("ci.toml", options=package.options(trust=["ci.toml"]))
    assert (report.exit_code, report.ok, bool(report)) == (1, False, False)
    assert report.count(ItemStatus.PASSED) >= 12
    with pytest.raises(package.CouldNotAttempt, match="CC901"):
        package.suite("missing.toml")


MODELS = '[models]\nlinear = "linear.pt"\na = "heads/a.pt"\nb = "heads/b.pt"\n'
PASSES = '[[pair]]\nproducer = "linear"\nconsumer = "a"\n'
FAILS = '[[pair]]\nproducer = "linear"\nconsumer = "b"\n'
GONE = 'gone = "gone.pt"\n'
ERRS = '[[pair]]\nproducer = "gone"\nconsumer = "a"\n'
EXPECTS = FAILS + 'expect = "incompatible"\n'
CODES = {
    MODELS + PASSES: 0,
    MODELS + EXPECTS: 0,
    MODELS + PASSES + FAILS: 1,
    MODELS + PASSES + 'expect = "incompatible"\n': 1,
    MODELS + FAILS + 'expect = "bridgeable"\n': 0,
    MODELS + GONE + ERRS + PASSES: 3,
    MODELS + GONE + ERRS + 'expect = "incompatible"\n': 3,
    MODELS + GONE + ERRS + FAILS: 1,
    MODELS + 'none = "none/*.pt"\n[[pair]]\nproducer = "none"\nconsumer = "a"\n': 3,
    MODELS + '[[diff]]\nold = "linear"\nnew = "a"\n': 3,
}


@pytest.mark.parametrize("text", CODES)
def test_the_exit_code_is_that_of_the_worst_item(
    composecli: Composecli, inside: Path, text: str
) -> None:
    Path("codes.toml").write_text(text)
    for words in ((), ("--quiet",), ("--format", "json")):
        assert composecli("suite", "codes.toml", *words).code == CODES[text]


def test_a_warning_fails_an_item_that_asks_for_it(composecli: Composecli, inside: Path) -> None:
    class Mixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(0)

    torch.jit.script(Mixed()).save("mixed.pt")
    models = '[models]\nlinear = "linear.pt"\nmixed = "mixed.pt"\n'
    pair = '[[pair]]\nproducer = "linear"\nconsumer = "mixed"\n'
    for more, flag in (("", ()), ('fail_on = "warning"\n', ("--fail-on", "warning"))):
        Path("warn.toml").write_text(models + pair + more)
        alone = composecli("check", "linear.pt", "mixed.pt", *flag)
        assert composecli("suite", "warn.toml").code == alone.code


def test_paths_start_in_the_folder_of_the_suite(
    installed: Installed, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inside.parent)
    ran = installed.json("suite", f"{inside.name}/ci.toml", "--trust", f"{inside.name}/ci.toml")
    found = items(ran.json)
    assert found["pair linear -> heads/a.pt"]["status"] == "passed"
    assert found["fit net"]["status"] == "passed"
    assert found["pair linear -> heads/a.pt"]["models"] == [
        f"{inside.name}/linear.pt", f"{inside.name}/heads/a.pt",
    ]  # fmt: skip


def test_code_that_a_suite_names_runs_only_if_the_suite_is_trusted(
    installed: Installed, inside: Path
) -> None:
    Path("evil.py").write_text("open('ran', 'w').close()\n" + NET)
    text = '[models]\nm = "evil.py:Net@good.pt"\n[[fit]]\nmodel = "m"\n'
    suite = Path("evil.toml")
    suite.write_text(text)
    ran = installed.json("suite", suite)
    assert (ran.code, ran.json["items"][0]["problem"]["code"]) == (3, "CC962")
    for trusted in ("good.pt", f"evil.toml@sha256:{'0' * 64}"):
        ran = installed.json("suite", suite, "--trust", trusted)
        assert ran.code == 3
        assert not Path("ran").exists()
    assert ran.json["items"][0]["problem"]["code"] == "CC929"
    (digest,) = [note.split()[-1] for note in ran.json["items"][0]["problem"]["notes"]]
    assert installed("suite", suite, "--trust", f"evil.toml@sha256:{digest}").code == 0
    assert Path("ran").exists()


def test_a_model_that_needs_trust_is_a_row(installed: Installed, inside: Path) -> None:
    torch.save(torch.nn.Sequential(Own()), "own.pt")
    Path("own.toml").write_text(
        MODELS + 'own = "own.pt"\n[[pair]]\nproducer = "own"\nconsumer = "a"\n' + PASSES
    )
    ran = installed.json("suite", "own.toml")
    assert [item["status"] for item in ran.json["items"]] == ["unknown", "passed"]
    assert ran.json["items"][0]["problem"]["code"] == "CC909"
    assert ran.code == 3


class Own(nn.Linear):
    """A class outside torch.nn."""

    def __init__(self) -> None:
        super().__init__(10, 5)


def test_a_model_that_crashes_its_process_ends_no_other_item(
    installed: Installed, inside: Path
) -> None:
    class Crashes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor(1) // torch.zeros(1, dtype=torch.int64) + x

    torch.jit.script(Crashes()).save("crashes.pt")
    crash = 'c = "crashes.pt"\n[[pair]]\nproducer = "c"\nconsumer = "a"\n'
    Path("crash.toml").write_text(MODELS + crash + PASSES + EXPECTS)
    ran = installed.json("suite", "crash.toml")
    assert [item["status"] for item in ran.json["items"]][1:] == ["passed", "passed"]


def test_the_schema_for_editors_is_valid_and_takes_the_suites_of_these_tests() -> None:
    import tomllib

    from jsonschema import Draft202012Validator

    schema = json.loads(schema_text())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for text in (SUITE, *CODES):
        validator.validate(tomllib.loads(text))
    assert not validator.is_valid(tomllib.loads(SUITE.replace("producer", "produces")))
    for kind in ItemKind:
        stated = schema["$defs"][kind]["properties"]["expect"]["enum"]
        assert stated == [str(outcome) for outcome in EXPECTED[kind]]


def test_the_schema_is_printed(installed: Installed) -> None:
    ran = installed("schema", "suite")
    assert json.loads(ran.out)["$id"] == "urn:composecli:suite:1"
