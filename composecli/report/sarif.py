"""Reports as SARIF 2.1.0: one rule for each code, and a result for each message that counts.

Source: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import quote

from composecli.commands.results import Report
from composecli.core.rules import Rule, Severity
from composecli.core.version import VERSION
from composecli.report.fingerprints import fingerprints
from composecli.report.items import Item, Message, Results, relative_path, results_of

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
# What could not be told fails a check, as an error does.
_LEVELS = {
    Severity.ERROR: "error",
    Severity.UNKNOWN: "error",
    Severity.WARNING: "warning",
    Severity.NOTE: "note",
}


def render(report: Report, file: IO[str], *, quiet: bool = False) -> None:  # noqa: ARG001
    """Write one JSON object and a newline. It is always complete: `quiet` has no effect."""
    json.dump(_log(results_of(report)), file, indent=2)
    file.write("\n")


def _log(results: Results) -> dict[str, Any]:
    """Return the log with its only run."""
    rules = dict[Rule, int]()
    for item in results.items:
        for message in item.messages:
            rules.setdefault(message.rule, len(rules))
    driver = {"name": "composecli", "version": VERSION, "rules": list(map(_rule, rules))}
    invocation = {"executionSuccessful": results.exit_code in (0, 1)}
    run = {
        "tool": {"driver": driver},
        "invocations": [{**invocation, "exitCode": results.exit_code}],
        "columnKind": "unicodeCodePoints",
        "results": list(_results(results, rules)),
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    """Return the description of a rule, with the help page that `explain` prints."""
    return {
        "id": rule.value,
        "name": rule.slug,
        "shortDescription": {"text": rule.slug.replace("-", " ")},
        "fullDescription": {"text": rule.help},
        "help": {"text": f"{rule.help}\n\ncomposecli explain {rule.value}"},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _results(results: Results, rules: dict[Rule, int]) -> Iterator[dict[str, Any]]:
    """Yield a result for each message."""
    for item, message, fingerprint in fingerprints(results):
        yield {
            "ruleId": message.rule.value,
            "ruleIndex": rules[message.rule],
            "level": _LEVELS[message.severity],
            "message": {"text": f"{item.name}: {message.text}"},
            "locations": [_location(item, message)],
            "partialFingerprints": {"composecli/v1": fingerprint},
        }


def _location(item: Item, message: Message) -> dict[str, Any]:
    """Return the line of the file, if there is one, and the models as logical locations."""
    location = dict[str, Any]()
    if item.file:
        uri = quote(relative_path(item.file))
        region = {"startLine": item.line}
        location["physicalLocation"] = {"artifactLocation": {"uri": uri}, "region": region}
    names = message.models or (item.name,)
    location["logicalLocations"] = [{"name": name, "kind": "module"} for name in names]
    return location
