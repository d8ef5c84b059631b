"""Runs the checks on exactly a snapshot: a clean worktree, protected paths as in the base, nothing else around it."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Literal, NamedTuple

from goalrun.adapters import process, reports
from goalrun.adapters.files import private_folder, read_bounded, remove_tree
from goalrun.adapters.identity import GOAL_VARIABLE
from goalrun.adapters.store import GitStore
from goalrun.core.evidence import clean
from goalrun.core.model import CheckResult, GoalSpec, Snapshot, VerificationReport
from goalrun.core.ports import OnProcess
from goalrun.errors import EnvironmentFailure

EXCERPT_CHARS = 6_000
SANDBOX = "process"
"""The level of isolation that checks get: own session, own environment and folders, nothing left alive."""
OUTCOMES = Literal["pass", "fail", "timeout"]


class Place(NamedTuple):
    """Where checks run.

    Attributes:
        top: what stands in for the workspace.
        scratch: a folder for HOME, TMPDIR and reports, outside of it.
    """

    top: Path
    scratch: Path


class WorktreeVerifier:
    """Verifies snapshots of one goal.

    Args:
        environment: the user's own, of which checks get only what the goal names.
        secrets: values that must not be written down.
        poll: see ``process.run``.
    """

    def __init__(
        self,
        spec: GoalSpec,
        store: GitStore,
        folder: Path,
        environment: Mapping[str, str],
        secrets: tuple[str, ...],
        poll: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._store = store
        self._folder = folder
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
            sandbox=SANDBOX if self._spec.verification.worktree else "live",
        )

    def _check_tree(self, tree: str, label: str, on_process: OnProcess) -> tuple[CheckResult, ...]:
        if not self._spec.checks:
            return ()
        output = private_folder(self._folder / "turns" / label)
        scratch = Path(tempfile.mkdtemp(prefix="verify-", dir=private_folder(self._folder / "verify")))
        try:
            top = self._lay_out(tree, scratch)
            place = Place(top, scratch)
            return tuple(
                self._check(command, place, output / f"check-{number}.out", on_process)
                for number, command in enumerate(self._spec.checks, start=1)
            )
        except OSError as failure:
            raise EnvironmentFailure(f"the checks cannot be run: {failure}") from failure
        finally:
            remove_tree(scratch)

    def _lay_out(self, tree: str, scratch: Path) -> Path:
        for name in ("home", "tmp", "reports"):
            (scratch / name).mkdir(mode=0o700)
        if not self._spec.verification.worktree:
            return Path(self._spec.workspace)
        top = scratch / (Path(self._spec.workspace).name or "workspace")
        if top.name in {"home", "tmp", "reports"}:
            top = scratch / "tree" / top.name
        top.mkdir(mode=0o755, parents=True)
        self._store.materialise(tree, top)
        self._store.export(tree, top)
        return top

    def _check(self, command: str, place: Place, output: Path, on_process: OnProcess) -> CheckResult:
        shown = str(output.relative_to(self._folder))
        start = place.top / self._spec.subfolder
        if not start.is_dir() or not start.resolve().is_relative_to(place.top.resolve()):
            reason = f"the folder that checks start in is gone: {self._spec.subfolder}"
            return CheckResult(command=command, outcome="fail", reason=reason)
        report = reports.prepare(command, place.scratch / "reports")
        finished = process.run(
            process.Command(
                argv=("bash", "-euo", "pipefail", "-c", report.command),
                cwd=start,
                env=self._check_environment(place),
                stdout=output,
                timeout=self._spec.limits.check_timeout,
                secrets=self._secrets,
                umask=0o022,
            ),
            lambda identity: on_process("check", identity),
            self._poll,
        )
        found = report.read()
        outcome, reason = _judge_check(finished, found, self._spec.limits.check_timeout)
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
            output=shown,
        )

    def _check_environment(self, place: Place) -> dict[str, str]:
        """Built from nothing: what could change what a check means is not passed on."""
        home, tmp = place.scratch / "home", place.scratch / "tmp"
        environment = {
            "PATH": self._spec.verification.path,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "XDG_DATA_HOME": str(home / ".local/share"),
            "XDG_STATE_HOME": str(home / ".local/state"),
            "TMPDIR": str(tmp),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "dumb",
            "NO_COLOR": "1",
            "CI": "1",
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "GOENV": "off",
            "GOFLAGS": "",
            "NPM_CONFIG_USERCONFIG": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            GOAL_VARIABLE: self._spec.id,
        }
        # rustup's compilers live below HOME; the variable names the place without bringing HOME along.
        with suppress(RuntimeError):
            rustup = Path(self._environment.get("RUSTUP_HOME") or Path.home() / ".rustup")
            if rustup.is_dir():
                environment["RUSTUP_HOME"] = str(rustup)
        for name in self._spec.verification.pass_env:
            if name in self._environment:
                environment[name] = self._environment[name]
        return environment


def _judge_check(finished: process.Finished, found: reports.Found | None, limit: float) -> tuple[OUTCOMES, str]:
    """The outcome of a check: exit status and report have to agree that it passed."""
    counted = f"; {found.counts.failed} tests failed" if found and found.counts.failed else ""
    if finished.timed_out:
        return "timeout", f"not finished after {limit:.0f} s"
    if finished.exit_code < 0:
        return "fail", f"ended by signal {-finished.exit_code}{counted}"
    if finished.exit_code != 0:
        return "fail", f"exit status {finished.exit_code}{counted}"
    if found is not None and found.counts.failed:
        return "fail", f"exit status 0, but its report says that {found.counts.failed} tests failed"
    if found is not None and found.counts.passed == 0:
        return "fail", "exit status 0, but its report says that no test passed"
    return "pass", ""


def _outcome(checks: Sequence[CheckResult]) -> Literal["pass", "weak_pass", "fail"]:
    if any(check.outcome != "pass" for check in checks):
        return "fail"
    return "weak_pass" if not checks or any(check.grade == "weak" for check in checks) else "pass"


def path_for_checks(path: str, workspace: Path) -> tuple[str, tuple[str, ...]]:
    """The PATH for checks: the caller's, without what the worker could write to; and what was left out."""
    kept: list[str] = []
    dropped: list[str] = []
    for entry in path.split(os.pathsep):
        if not entry or not entry.startswith("/"):
            continue
        inside = Path(os.path.realpath(entry)).is_relative_to(workspace) or Path(entry).is_relative_to(workspace)
        (dropped if inside else kept).append(entry)
    return os.pathsep.join(dict.fromkeys(kept)), tuple(dropped)
