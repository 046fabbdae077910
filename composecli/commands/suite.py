"""composecli suite: the checks of one file, on one worker that opens and infers each model once.

An item that cannot be attempted is a row of the report, and the others go on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from composecli.commands.changed_files import changes_since
from composecli.commands.progress import Progress, silent
from composecli.commands.requests import Options
from composecli.commands.results import ItemReport, ItemStatus, SuiteReport
from composecli.commands.suite_items import PlannedItem, in_folder, plan_items
from composecli.commands.suite_options import suite_options
from composecli.commands.suite_plan import read_plan
from composecli.commands.suite_run import SuiteRun
from composecli.core.errors import Terminated
from composecli.core.rules import Rule
from composecli.core.suite import Suite
from composecli.workers.protocol import Worker


@dataclass(frozen=True, slots=True)
class SuiteRequest:
    """A request to run the items of a suite.

    `changed_since` is a git revision: items whose files are as they were there are skipped.
    """

    suite: Suite
    items: tuple[PlannedItem, ...]
    options: Options
    changed_since: str | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The MODEL arguments of all items, each of them once."""
        return tuple(dict.fromkeys(model for item in self.items for model in item.models))

    @property
    def files(self) -> tuple[str, ...]:
        """The files with expected contracts."""
        folder = os.path.dirname(self.suite.path)
        names = (item.contract_file for item in self.suite.items)
        return tuple(in_folder(name, folder) for name in names if name is not None)


def plan_suite(path: str, options: Options, changed_since: str | None = None) -> SuiteRequest:
    """Return the request to run the items of a suite file.

    Raises:
        CouldNotAttempt: if the file cannot be read, or has a mistake.
    """
    suite = read_plan(path)
    items = plan_items(suite, options.trust)
    return SuiteRequest(suite, items, suite_options(options, suite.options), changed_since)


def run_suite(request: SuiteRequest, worker: Worker, progress: Progress = silent) -> SuiteReport:
    """Return the report of a suite; if a signal ends it, with the items that had ended.

    Raises:
        CouldNotAttempt: if the models cannot be isolated as required, or there is no such revision.
    """
    skipped = frozenset[int]()
    if request.changed_since is not None:
        changes = changes_since(request.changed_since, request.suite.path)
        unchanged = (
            number for number, item in enumerate(request.items) if not changes.concern(item)
        )
        skipped = frozenset(unchanged)
    run = SuiteRun(request.suite, request.items, request.options, worker, progress)
    stopped = None
    try:
        run.attempt(number for number in range(len(request.items)) if number not in skipped)
    except KeyboardInterrupt:
        stopped = Rule.INTERRUPTED
    except Terminated:
        stopped = Rule.TERMINATED
    rows = list[ItemReport]()
    for number, planned in enumerate(request.items):
        status = ItemStatus.SKIPPED if number in skipped else ItemStatus.NOT_RUN
        rows.append(run.reports.get(number) or _without_outcome(planned, status))
    return SuiteReport(
        request.suite.path, tuple(rows), request.changed_since, stopped, run.isolation
    )


def _without_outcome(planned: PlannedItem, status: ItemStatus) -> ItemReport:
    """Return the report of an item that was not run."""
    item = planned.item
    return ItemReport(
        planned.name, item.kind, item.line, planned.models, item.expected, None, status
    )
