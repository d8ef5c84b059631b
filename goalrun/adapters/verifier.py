"""Verifies exactly a snapshot: clean worktrees, protected paths as in the base, a floor of tests, a canary."""

import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Literal, TypeVar

from goalrun.adapters import baseline, tools
from goalrun.adapters.baseline import Baseline, CheckBaseline
from goalrun.adapters.checks import CheckRunner, Ran
from goalrun.adapters.files import private_folder, remove_tree
from goalrun.adapters.pool import Worktree, pool_of
from goalrun.adapters.sandbox import Place
from goalrun.adapters.store import GitStore
from goalrun.adapters.trees import Plan
from goalrun.core.evidence import one_line
from goalrun.core.model import CheckResult, ProcessIdentity, Snapshot, Tamper, VerificationReport
from goalrun.core.ports import OnProcess
from goalrun.core.spec import GoalSpec
from goalrun.errors import EnvironmentFailure

HIDDEN = "hidden"
"""The folder, in a goal's own, with the files of its hidden checks."""
LIVE = "live"
"""What the level is called when checks run in the workspace itself: the worker's reach is theirs."""
EXIT_STATUS_ALONE = "judged by exit status alone"
NO_CANARY = "a test that has to fail did not, on the base"
THRESHOLDS = {
    "pytest": "Required test coverage of ",
    "jest": " coverage threshold for ",
    "vitest": " does not meet ",
}
"""Programs that can fail for what all tests together cover, and how they say so (pytest-cov, jest, vitest).

A file that does not load is a failed test in their reports.
"""
T = TypeVar("T")
R = TypeVar("R")
TOKEN_LETTERS = "abcdefghijkmnopqrstuvwxyz"  # noqa: S105 - no password


class WorktreeVerifier:
    """Verifies snapshots of one goal.

    Args:
        folder: the goal's folder.
        level: what the runner's sandbox is called.
        floor: the digest of the baseline that an earlier run took; "" if none did.
        name: what the baseline is called, where the goal has several: of steps with checks of their own.
    """

    def __init__(
        self,
        spec: GoalSpec,
        store: GitStore,
        folder: Path,
        runner: CheckRunner,
        level: str,
        floor: str = "",
        name: str = "",
    ) -> None:
        self._spec = spec
        self._store = store
        self._folder = folder
        self._runner = runner
        self._recording = threading.Lock()
        self._level = level if spec.verification.worktree else LIVE
        self._base = f"base-{name}" if name else "base"
        self._kept = folder / "floors" / name if name else folder
        self._floor = baseline.load(self._kept, floor) if floor else Baseline(checks=())

    def verify_base(self, snapshot: Snapshot, on_process: OnProcess) -> VerificationReport:
        """Check the base, and keep what its tests are called as the floor; see ``core.ports.Verifier``."""
        started = monotonic()
        plan = Plan(snapshot.tree, snapshot.tree, ())
        if not self._spec.verification.baseline or not self._spec.verification.worktree:
            return self._report(plan, self._run_all(snapshot.tree, self._base, on_process)[0], (), started)
        tools.note(self._folder, self._spec.verification.path, Path(self._spec.workspace))
        ran, _ = self._ran_all(snapshot.tree, self._base, on_process)
        hidden: list[CheckResult] = []
        if all(each.result.outcome == "pass" for each in ran):
            hidden = self._hidden(snapshot.tree, self._base, on_process)
        numbered = list(enumerate(ran, start=1))
        floor = self._side_by_side(lambda each: self._baseline(each[1], snapshot.tree, each[0], on_process), numbered)
        self._floor = Baseline(checks=tuple(floor))
        digest = baseline.save(private_folder(self._kept), self._floor)
        checks = [_graded(each, base) for each, base in zip(ran, floor, strict=True)]
        return self._report(plan, [*checks, *hidden], (), started, digest)

    def verify(self, snapshot: Snapshot, label: str, on_process: OnProcess) -> VerificationReport:
        """Check a turn's snapshot; see ``core.ports.Verifier``."""
        started = monotonic()
        plan = self._store.plan(snapshot)
        shims = tools.changed(self._folder, self._spec.verification.path, Path(self._spec.workspace))
        if shims:
            plan = Plan(plan.tree, plan.full_tree, (*plan.tampering, *shims))
        trees = [plan.tree] if plan.tree == plan.full_tree else [plan.tree, plan.full_tree]
        checks: list[CheckResult] = []
        ran: list[Ran] = []
        tampering: list[Tamper] = []
        # The base's tests have to pass by themselves, and together with what the worker added to them.
        for number, tree in enumerate(trees, start=1):
            part = f"{label}/pass-{number}" if len(trees) > 1 else label
            checks, ran, escaped = self._run_all(tree, part, on_process)
            tampering += escaped
            failed = [each for check, each in zip(checks, ran, strict=True) if check.outcome != "pass"]
            if failed and (number == len(trees) or not all(map(self._lacks_tests, failed))):
                break
        else:
            checks, forged = self._proven(checks, ran, trees[-1], label, on_process)
            tampering += forged
            if not tampering and not plan.tampering:
                checks += self._hidden(trees[-1], label, on_process)
        return self._report(plan, checks, tampering, started)

    def _lacks_tests(self, ran: Ran) -> bool:
        """Whether a check without the worker's new tests fails for nothing but a threshold of coverage.

        Every test of the base is seen to pass; what a threshold asks for is asked of all tests together.
        """
        result, floor = ran.result, self._floor.of(ran.result.command)
        if ran.runner is None or ran.found is None or floor.weak or floor.unproven or result.exit_code != 1:
            return False
        if THRESHOLDS.get(ran.runner.name, "\0") not in result.excerpt or result.outcome != "fail":
            return False
        return not ran.found.counts.failed and ran.found.counts.passed > 0 and not baseline.compared(floor, ran.found)

    def _report(
        self,
        plan: Plan,
        checks: Sequence[CheckResult],
        tampering: Sequence[Tamper],
        started: float,
        floor: str = "",
    ) -> VerificationReport:
        found = (*plan.tampering, *dict.fromkeys(tampering))
        return VerificationReport(
            outcome="tampered" if found else _outcome(checks),
            checks=tuple(checks),
            tampering=found,
            seconds=monotonic() - started,
            sandbox=self._level,
            floor=floor,
        )

    def _run_all(
        self, tree: str, label: str, on_process: OnProcess
    ) -> tuple[list[CheckResult], list[Ran], list[Tamper]]:
        """All checks on a tree: their results, measured against the base, and what they did to protected paths."""
        ran, escaped = self._ran_all(tree, label, on_process)
        return [_graded(each, self._floor.of(each.result.command)) for each in ran], ran, escaped

    def _ran_all(self, tree: str, label: str, on_process: OnProcess) -> tuple[list[Ran], list[Tamper]]:
        if not self._spec.checks:
            return [], []
        numbered = list(enumerate(self._spec.checks, start=1))
        # Side by side they are in each other's way in one worktree; one after the other they may build on each other.
        groups = [[each] for each in numbered] if self._spec.verification.jobs > 1 else [numbered]
        found = self._side_by_side(lambda group: self._ran_group(group, tree, label, on_process), groups)
        return [each for ran, _ in found for each in ran], [each for _, escaped in found for each in escaped]

    def _ran_group(
        self, checks: Sequence[tuple[int, str]], tree: str, label: str, on_process: OnProcess
    ) -> tuple[list[Ran], list[Tamper]]:
        with self._laid_out(tree) as (place, tree_there):
            marks = self._store.marks(place.top) if tree_there is not None else {}
            ran = [self._run(command, place, f"{label}/check-{number}.out", on_process) for number, command in checks]
            if tree_there is None:
                return ran, []
            changed = tree_there.changes(self._store)
            return ran, self._store.changed_while_checked(place.top, marks, changed)

    def _side_by_side(self, action: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Do something with each item, as many at once as there may be; what came of it, in order."""
        if self._spec.verification.jobs == 1:
            return [action(each) for each in items]
        with ThreadPoolExecutor(self._spec.verification.jobs) as threads:
            return list(threads.map(action, items))

    def _run(self, command: str, place: Place, output: str, on_process: OnProcess) -> Ran:
        def recorded(role: Literal["worker", "check", "judge"], process: ProcessIdentity) -> None:
            with self._recording:
                on_process(role, process)

        path = self._folder / "turns" / output
        private_folder(path.parent)
        return self._runner.run(command, place, path, recorded)

    def _baseline(self, ran: Ran, tree: str, number: int, on_process: OnProcess) -> CheckBaseline:
        """The floor that a check sets on the base, and whether it can be seen to fail."""
        command = ran.result.command
        if ran.runner is None:
            return CheckBaseline(command=command, weak=EXIT_STATUS_ALONE)
        if ran.found is None:
            return CheckBaseline(command=command, weak="it left no report on the base")
        again, canary = self._with_canary(ran, tree, f"{self._base}/canary-{number}.out", on_process)
        if again is None or again.found is None:
            weak = "no canary could be planted on the base"
            return CheckBaseline(command=command, outcomes=ran.found.outcomes, weak=weak)
        flaky = baseline.differing(ran.found, again.found, canary)
        proven = _canary_failed(again, canary)
        unproven = not proven and again.result.outcome != "pass"
        weak = "" if proven or unproven else NO_CANARY
        return CheckBaseline(command=command, outcomes=ran.found.outcomes, flaky=flaky, weak=weak, unproven=unproven)

    def _hidden(self, tree: str, label: str, on_process: OnProcess) -> list[CheckResult]:
        """The checks that the worker is not shown, once all others have passed, in a worktree of their own."""
        if not self._spec.hidden_checks:
            return []
        with self._laid_out(tree) as (plain, _):
            copy = plain.home.with_name(HIDDEN)
            place = plain._replace(hidden=copy)
            if (self._folder / HIDDEN).is_dir():
                shutil.copytree(self._folder / HIDDEN, copy, symlinks=True)
            else:
                copy.mkdir()
            ran = [
                self._run(command, place, f"{label}/hidden-{number}.out", on_process)
                for number, command in enumerate(self._spec.hidden_checks, start=1)
            ]
        return [each.result.but(hidden=True) for each in ran]

    def _proven(
        self, checks: Sequence[CheckResult], ran: Sequence[Ran], tree: str, label: str, on_process: OnProcess
    ) -> tuple[list[CheckResult], list[Tamper]]:
        """The checks, and those whose pass is a lie: with a failing test planted they do not fail."""
        results: list[CheckResult] = list(checks)
        forged: list[Tamper] = []
        strong = [number for number, check in enumerate(checks) if check.grade != "weak"]
        planted = self._side_by_side(
            lambda number: self._with_canary(ran[number], tree, f"{label}/canary-{number + 1}.out", on_process), strong
        )
        for number, (again, canary) in zip(strong, planted, strict=True):
            check = checks[number]
            if again is not None and _canary_failed(again, canary):
                continue
            ran_unfailing = again is not None and again.found is not None and canary in again.found.outcomes
            if self._floor.of(check.command).unproven and not ran_unfailing:
                results[number] = check.but(grade="weak", reason=NO_CANARY)
            else:
                forged.append(Tamper(path=one_line(check.command), kind="forged"))
        return results, forged

    def _with_canary(self, ran: Ran, tree: str, output: str, on_process: OnProcess) -> tuple[Ran | None, str]:
        """Run a check once more with a failing test in a copy of its tree; None where none can be planted."""
        token = "".join(secrets.choice(TOKEN_LETTERS) for _ in range(8))
        with self._laid_out(tree) as (place, _):
            start = self._runner.start_folder(place)
            if start is None or ran.runner is None or ran.found is None:
                return None, ""
            canary = ran.runner.plant(start, ran.found, token)
            if canary is None:
                return None, ""
            return self._run(ran.result.command, place, output, on_process), canary

    def _laid_out(self, tree: str) -> AbstractContextManager[tuple[Place, Worktree | None]]:
        return laid_out(self._spec, self._store, self._folder, self._runner, tree)


@contextmanager
def laid_out(
    spec: GoalSpec, store: GitStore, folder: Path, runner: CheckRunner, tree: str
) -> Iterator[tuple[Place, Worktree | None]]:
    """A clean worktree of a tree with empty folders around it, for as long as it is used; None is the live one."""
    pool = pool_of(folder, Path(spec.workspace).name)
    scratch = Path(tempfile.mkdtemp(prefix="verify-", dir=private_folder(pool.folder)))
    try:
        folders = [scratch / name for name in ("home", "tmp", "reports")]
        for each in folders:
            each.mkdir(mode=0o700)
        with ExitStack() as stack:
            worktree = stack.enter_context(pool.worktree(store, tree)) if spec.verification.worktree else None
            store.require_workspace()
            place = Place(Path(spec.workspace) if worktree is None else worktree.top, *folders)
            runner.furnish(place)
            yield place, worktree
    except OSError as failure:
        raise EnvironmentFailure(f"the checks cannot be run: {failure}") from failure
    finally:
        remove_tree(scratch)


def _canary_failed(ran: Ran, canary: str) -> bool:
    if ran.result.outcome == "pass" or ran.found is None:
        return False
    return ran.found.outcomes.get(canary) == "failed"


def _graded(ran: Ran, floor: CheckBaseline) -> CheckResult:
    """A result with the grade of its check; a pass that the base's tests do not bear out is none."""
    changes: dict[str, object] = {"grade": "weak" if floor.weak else "strong"}
    if ran.result.outcome == "pass":
        doubt = baseline.compared(floor, ran.found) if ran.found is not None else ""
        changes |= {"outcome": "fail", "reason": doubt} if doubt else {"reason": floor.weak}
    return ran.result.but(**changes)


def _outcome(checks: Sequence[CheckResult]) -> Literal["pass", "weak_pass", "fail"]:
    if any(check.outcome != "pass" for check in checks):
        return "fail"
    shown = [check for check in checks if not check.hidden]
    return "weak_pass" if not shown or any(check.grade == "weak" for check in shown) else "pass"
