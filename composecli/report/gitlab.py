"""Reports as GitLab's code quality: a list of issues.

Source: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
"""

from __future__ import annotations

import json
from typing import IO, Any

from composecli.commands.results import Report
from composecli.core.rules import Severity
from composecli.report.fingerprints import fingerprints
from composecli.report.items import Item, Message, relative_path, results_of

_SEVERITIES = {
    Severity.ERROR: "critical",
    Severity.UNKNOWN: "major",
    Severity.WARNING: "minor",
    Severity.NOTE: "info",
}
# An issue must have a file. What concerns none concerns what runs the command.
_NO_FILE = ".gitlab-ci.yml"


def render(report: Report, file: IO[str], *, quiet: bool = False) -> None:  # noqa: ARG001
    """Write one JSON list and a newline. It is always complete: `quiet` has no effect."""
    issues = [_issue(*found) for found in fingerprints(results_of(report))]
    json.dump(issues, file, indent=2)
    file.write("\n")


def _issue(item: Item, message: Message, fingerprint: str) -> dict[str, Any]:
    path = relative_path(item.file) if item.file else _NO_FILE
    return {
        "description": f"{item.name}: {message.title}",
        "check_name": f"{message.rule.value} {message.rule.slug}",
        "fingerprint": fingerprint,
        "severity": _SEVERITIES[message.severity],
        "location": {"path": path, "lines": {"begin": item.line}},
    }
