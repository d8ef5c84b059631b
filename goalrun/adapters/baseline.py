"""What the checks said of the base, before any worker ran: the floor under every later pass.

A check is ``strong`` when its tests are known by name, all of those that the base had still run, and a canary, a test
that has to fail, was seen to fail: then a pass is not just an exit status.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from goalrun.adapters.files import write_whole
from goalrun.adapters.reports.found import Found, Outcome
from goalrun.core.model import Value
from goalrun.errors import EnvironmentFailure

FILE = "baseline.json"
MAX_NAMED = 5


class CheckBaseline(Value):
    """One check on the base.

    Attributes:
        outcomes: every test by id.
        flaky: tests that came out differently in the two runs.
        weak: why a pass of this check can only be weak; "" where its canary failed as it has to.
    """

    command: str
    outcomes: Mapping[str, Outcome] = {}
    flaky: frozenset[str] = frozenset()
    weak: str = ""


class Baseline(Value):
    """All checks on the base, in the goal's order."""

    checks: tuple[CheckBaseline, ...]

    def of(self, command: str) -> CheckBaseline:
        """The baseline of a check."""
        found = (check for check in self.checks if check.command == command)
        return next(found, CheckBaseline(command=command, weak="there is no baseline"))


def save(folder: Path, baseline: Baseline) -> None:
    """Keep a baseline in the goal's folder."""
    write_whole(folder / FILE, baseline.model_dump_json())


def load(folder: Path) -> Baseline:
    """The baseline of a goal; one without checks if none was taken.

    Raises:
        EnvironmentFailure: it is damaged.
    """
    with suppress(FileNotFoundError):
        try:
            return Baseline.model_validate_json((folder / FILE).read_bytes())
        except ValidationError as failure:
            raise EnvironmentFailure(
                f"the baseline {folder / FILE} is damaged", hint="start the goal anew"
            ) from failure
    return Baseline(checks=())


def compared(base: CheckBaseline, found: Found) -> str:
    """Why a report cannot be believed to speak of the base's tests; "" when all of them ran."""
    kept = {test for test in base.outcomes if test not in base.flaky}
    skipped = sorted(
        test for test in kept if base.outcomes[test] != "skipped" and found.outcomes.get(test) == "skipped"
    )
    if skipped:
        return f"tests are skipped that ran on the base: {_named(skipped)}"
    new = [test for test in found.outcomes if test not in base.outcomes]
    gone = sorted(test for test in kept if test not in found.outcomes and not _loaded_now(test, base, new))
    return f"tests of the base did not run: {_named(gone)}" if gone else ""


def _loaded_now(test: str, base: CheckBaseline, new: list[str]) -> bool:
    """Whether an id of the base was a file that could not be loaded, and whose tests have ids of their own now."""
    if base.outcomes[test] != "failed":
        return False
    container = test.rpartition("::")[2].rpartition(".")[2] if "/" not in test else test
    return any(container in name for name in new)


def differing(first: Found, second: Found, canary: str) -> frozenset[str]:
    """Tests that came out differently in two runs of one tree."""
    tests = (first.outcomes.keys() | second.outcomes.keys()) - {canary}
    return frozenset(test for test in tests if first.outcomes.get(test) != second.outcomes.get(test))


def _named(tests: list[str]) -> str:
    more = f" and {len(tests) - MAX_NAMED} more" if len(tests) > MAX_NAMED else ""
    return ", ".join(tests[:MAX_NAMED]) + more
