"""Runs the checks on exactly a snapshot: a clean worktree, protected paths as in the base, nothing else around it."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Literal

from goalrun.adapters import process, reports
from goalrun.adapters.environment import check_environment
from goalrun.adapters.files import private_folder, read_bounded, remove_tree
from goalrun.adapters.identity import GOAL_VARIABLE
from goalrun.adapters.sandbox import Place, ProcessSandbox, Sandbox
from goalrun.adapters.store import GitStore
from goalrun.core.evidence import clean
from goalrun.core.model import CheckResult, GoalSpec, Snapshot, VerificationReport
from goalrun.core.ports import OnProcess
from goalrun.errors import EnvironmentFailure

EXCERPT_CHARS = 6_000
LIVE = "live"
"""What the level is called when checks run in the workspace itself: the worker's reach is theirs."""
OUTCOMES = Literal["pass", "fail", "timeout"]


class WorktreeVerifier:
    """Verifies snapshots of one goal.

    Args:
        sandbox: the level at which checks run.
        environment: the user's own, of which checks get only what the goal names.
        secrets: values that must not be written down.
        poll: see ``process.run``.
    """

    def __init__(
        self,
        spec: GoalSpec,
        store: GitStore,
        folder: Path,
        sandbox: Sandbox,
        environment: Mapping[str, str],
        secrets: tuple[str, ...],
        poll: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._store = store
        self._folder = folder
        self._sandbox = sandbox if spec.verification.worktree else ProcessSandbox()
        self._environment = environment
        self._secrets = secrets
        self._poll = poll

    def verify(self, snapshot: Snapshot, label: str, on_process: OnProcess) -> VerificationReport:
        """Check exactly this snapshot; see ``core.ports.Verifier``."""
        started = monotonic()
        plan = self._store.plan(snapshot)
        trees = [plan.tree] if plan.tree == plan.full_tree else [plan.tree, plan.full_tree]
        checks: tuple[CheckResult, ...] = ()
        # The base's tests have to pass by themselves, and together with what the worker added to them.
        for number, tree in enumerate(trees, start=1):
            checks = self._check_tree(tree, f"{label}/pass-{number}" if len(trees) > 1 else label, on_process)
            if any(check.outcome != "pass" for check in checks):
                break
        return VerificationReport(
            outcome="tampered" if plan.tampering else _outcome(checks),
            checks=checks,
            tampering=plan.tampering,
            seconds=monotonic() - started,
            sandbox=self._sandbox.level if self._spec.verification.worktree else LIVE,
        )

    def _check_tree(self, tree: str, label: str, on_process: OnProcess) -> tuple[CheckResult, ...]:
        if not self._spec.checks:
            return ()
        output = private_folder(self._folder / "turns" / label)
        scratch = Path(tempfile.mkdtemp(prefix="verify-", dir=private_folder(self._folder / "verify")))
        try:
            place = self._lay_out(tree, scratch)
            return tuple(
                self._check(command, place, output / f"check-{number}.out", on_process)
                for number, command in enumerate(self._spec.checks, start=1)
            )
        except OSError as failure:
            raise EnvironmentFailure(f"the checks cannot be run: {failure}") from failure
        finally:
            remove_tree(scratch)

    def _lay_out(self, tree: str, scratch: Path) -> Place:
        folders = [scratch / name for name in ("home", "tmp", "reports")]
        for folder in folders:
            folder.mkdir(mode=0o700)
        workspace = Path(self._spec.workspace)
        if not self._spec.verification.worktree:
            return Place(workspace, *folders)
        top = scratch / "tree" / (workspace.name or "workspace")
        top.mkdir(mode=0o755, parents=True)
        self._store.materialise(tree, top)
        self._store.export(tree, top)
        return Place(top, *folders)

    def _check(self, command: str, place: Place, output: Path, on_process: OnProcess) -> CheckResult:
        start = place.top / self._spec.subfolder
        if not start.is_dir() or not start.resolve().is_relative_to(place.top.resolve()):
            reason = f"the folder that checks start in is gone: {self._spec.subfolder}"
            return CheckResult(command=command, outcome="fail", reason=reason)
        inside = self._sandbox.seen(place)
        report = reports.prepare(command, place.reports, inside.reports)
        finished = self._run(report.command, place, output, on_process)
        found = report.read()
        outcome, reason = _judge_check(finished, report, found, self._spec.limits.check_timeout)
        text = read_bounded(output, EXCERPT_CHARS, EXCERPT_CHARS * 4).replace(str(place.top), self._spec.workspace)
        return CheckResult(
            command=command,
            outcome=outcome,
            exit_code=finished.exit_code,
            seconds=finished.seconds,
            tests=found.counts if found else None,
            reason=reason,
            failing=found.failing if found else (),
            excerpt=clean(text, EXCERPT_CHARS, self._secrets),
            output=str(output.relative_to(self._folder)),
        )

    def _run(self, command: str, place: Place, output: Path, on_process: OnProcess) -> process.Finished:
        inside = self._sandbox.seen(place)
        environment = check_environment(self._spec, self._environment, inside)
        argv, launched = self._sandbox.wrap(
            ("bash", "-euo", "pipefail", "-c", command), place, inside.top / self._spec.subfolder, environment
        )
        status = place.home.with_name("status")
        status.unlink(missing_ok=True)
        return process.run(
            process.Command(
                argv=argv,
                # A launcher starts in a folder of ours, with an environment of its own.
                cwd=place.home if launched else place.top / self._spec.subfolder,
                env={GOAL_VARIABLE: self._spec.id} if launched else environment,
                stdout=output,
                timeout=self._spec.limits.check_timeout,
                secrets=self._secrets,
                umask=0o022,
                status=status if launched else None,
            ),
            lambda identity: on_process("check", identity),
            self._poll,
        )


def _judge_check(
    finished: process.Finished, report: reports.Report, found: reports.Found | None, limit: float
) -> tuple[OUTCOMES, str]:
    """The outcome of a check: exit status and report have to agree that it passed."""
    counted = f"; {found.counts.failed} tests failed" if found and found.counts.failed else ""
    if finished.timed_out:
        return "timeout", f"not finished after {limit:.0f} s"
    if finished.exit_code < 0:
        return "fail", f"ended by signal {-finished.exit_code}{counted}"
    if finished.exit_code != 0:
        return "fail", f"exit status {finished.exit_code}{counted}"
    if found is None and report.path is not None:
        # `os._exit(0)` in the code under test ends the test program like this.
        return "fail", "exit status 0, but it left no report that can be read"
    if found is not None and found.counts.failed:
        return "fail", f"exit status 0, but its report says that {found.counts.failed} tests failed"
    if found is not None and found.counts.passed == 0:
        return "fail", "exit status 0, but its report says that no test passed"
    return "pass", ""


def _outcome(checks: Sequence[CheckResult]) -> Literal["pass", "weak_pass", "fail"]:
    if any(check.outcome != "pass" for check in checks):
        return "fail"
    return "weak_pass" if not checks or any(check.grade == "weak" for check in checks) else "pass"
