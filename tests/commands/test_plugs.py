"""What other systems run of ours: each script is run as the system runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

ROOT = Path(__file__).parents[2]
SUITE = """
[models]
a = "a.pt"
b = "b.pt"
[[pair]]
producer = "a"
consumer = "b"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.jit.save(torch.jit.script(nn.Linear(10, 5)), "a.pt")
    Path("my suite.toml").write_text(SUITE)
    return tmp_path


def save_consumer(width: int) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(width, 2)), "b.pt")


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def run_script(script: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script as the runners of both systems do: bash that stops at the first failure."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def run_action(here: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the step of the action with its inputs; `changed_since` is `changed-since`."""
    action = read(".github/actions/composecli/action.yml")
    given = {name: str(about.get("default", "")) for name, about in action["inputs"].items()}
    given |= {name.replace("_", "-"): value for name, value in inputs.items()}
    (step,) = action["runs"]["steps"]
    variables = {"GITHUB_STEP_SUMMARY": str(here / "summary.md")}
    for name, value in step["env"].items():
        source = value.removeprefix("${{ inputs.").removesuffix(" }}")
        variables[name] = given[source]
    return run_script(step["run"], variables)


@pytest.mark.parametrize(("width", "code"), [(5, 0), (3, 1)])
def test_the_action_of_github_annotates_the_suite(here: Path, width: int, code: int) -> None:
    save_consumer(width)
    ran = run_action(here, suite="my suite.toml", sarif="out.sarif", args="--no-cache")
    assert ran.returncode == code, ran.stderr
    is_annotated = "::error file=my suite.toml,line=5,title=CC203" in ran.stdout
    assert is_annotated == bool(code)
    assert "composecli suite" in Path("summary.md").read_text()
    assert json.loads(Path("out.sarif").read_text())["version"] == "2.1.0"


def test_no_input_of_the_action_is_run(here: Path) -> None:
    save_consumer(5)
    ran = run_action(here, suite="$(touch ran)", args="; touch ran", changed_since="$(touch ran)")
    assert ran.returncode == 2
    assert not Path("ran").exists()


def test_the_template_of_gitlab_writes_the_reports_that_it_names(here: Path) -> None:
    save_consumer(3)
    job = read(".gitlab/composecli.gitlab-ci.yml")[".composecli"]
    ran = run_script("\n".join(job["script"]), {"COMPOSECLI_SUITE": "my suite.toml"})
    assert ran.returncode == 1, ran.stderr
    for name in job["artifacts"]["reports"].values():
        assert Path(name).stat().st_size > 0


@pytest.mark.parametrize(
    ("hook", "args"), [("composecli-check", "a.pt b.pt"), ("composecli-suite", "'my suite.toml'")]
)
def test_a_hook_fails_if_models_do_not_fit(here: Path, hook: str, args: str) -> None:
    hooks = {entry["id"]: entry for entry in read(".pre-commit-hooks.yaml")}
    save_consumer(5)
    assert run_script(f"{hooks[hook]['entry']} {args}", {}).returncode == 0
    save_consumer(3)
    assert run_script(f"{hooks[hook]['entry']} {args}", {}).returncode == 1
