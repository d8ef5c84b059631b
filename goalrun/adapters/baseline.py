"""What the checks said of the base, before any worker ran: the floor under every later pass.

A check is ``strong`` when its tests are known by name, all of those that the base had still run, and a canary, a test
that has to fail, was seen to fail: then a pass is not just an exit status.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from goalrun.adapters.files import write_whole
from goalrun.adapters.reports.found import Found, Outcome
from goalrun.core.value import Value
from goalrun.errors import EnvironmentFailure

FILE = "baseline.json"
MAX_NAMED = 5


class CheckBaseline(Value):
    """One check on the base.

    Attributes:
        outcomes: every test by id.
        flaky: tests that came out differently in the two runs.
        weak: why a pass of this check can only be weak; "" where its canary failed as it has to.
        unproven: no canary was reached on the base, because the check failed before it (``pytest -x``): the canary
            of the turn that passes decides whether that pass is strong.
    """

    command: str
    outcomes: Mapping[str, Outcome] = {}
    flaky: frozenset[str] = frozenset()
    weak: str = ""
    unproven: bool = False


class Baseline(Value):
    """All checks on the base, in the goal's order."""

    checks: tuple[CheckBaseline, ...]

    def of(self, command: str) -> CheckBaseline:
        """The baseline of a check."""
        found = (check for check in self.checks if check.command == command)
        return next(found, CheckBaseline(command=command, weak="there is no baseline"))


def save(folder: Path, baseline: Baseline) -> str:
    """Keep a baseline in the goal's folder; its digest."""
    data = baseline.model_dump_json()
    write_whole(folder / FILE, data)
    return _digest(data.encode())


def load(folder: Path, digest: str) -> Baseline:
    """The baseline of a goal.

    Args:
        folder: the goal's folder.
        digest: of what was kept, as the journal has it.

    Raises:
        EnvironmentFailure: it is gone, or not what was kept: a process of the user's can write there.
    """
    try:
        data = (folder / FILE).read_bytes()
        if _digest(data) == digest:
            return Baseline.model_validate_json(data)
    except OSError as failure:
        raise EnvironmentFailure(f"cannot read the baseline: {failure}", hint="start the goal anew") from failure
    raise EnvironmentFailure(f"the baseline {folder / FILE} was changed", hint="start the goal anew")


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()


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
