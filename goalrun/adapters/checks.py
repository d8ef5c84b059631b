"""Runs one check in one laid-out worktree, and reads what it says."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from goalrun.adapters import crates, process, reports
from goalrun.adapters.environment import check_environment
from goalrun.adapters.files import read_bounded
from goalrun.adapters.glimpse import leave_result, result_path
from goalrun.adapters.sandbox import Place, Sandbox
from goalrun.core.evidence import clean, count
from goalrun.core.model import CheckResult
from goalrun.core.ports import OnProcess
from goalrun.core.spec import GoalSpec

EXCERPT_CHARS = 6_000
CheckOutcome = Literal["pass", "fail", "timeout"]


class Ran(NamedTuple):
    """A check that was run: its result, and its report, if its program gave one.

    Attributes:
        runner: the test program, if it is a known one.
    """

    result: CheckResult
    found: reports.Found | None
    runner: reports.Runner | None


class CheckRunner:
    """Runs the checks of one goal.

    Args:
        folder: the goal's folder.
        sandbox: the level at which checks run.
        environment: the user's own, of which checks get only what the goal names.
        secrets: values that must not be written down.
        poll: see ``process.run``.
    """

    def __init__(
        self,
        spec: GoalSpec,
        folder: Path,
        sandbox: Sandbox,
        environment: Mapping[str, str],
        secrets: tuple[str, ...],
        poll: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._sandbox = sandbox
        self._environment = environment
        self._secrets = secrets
        self._poll = poll

    def furnish(self, place: Place) -> None:
        """Put into a fresh worktree what checks need beside the snapshot; see ``sandbox.Sandbox`` and ``crates``."""
        self._sandbox.furnish(place)
        crates.furnish(self._folder, place.home)

    def seen(self, place: Place) -> Place:
        """The same folders, as a check sees them."""
        return self._sandbox.seen(place)

    def start_folder(self, place: Place) -> Path | None:
        """The folder that checks start in; None where the worker took it away or led it out of the worktree."""
        start = place.top / self._spec.subfolder
        inside = start.is_dir() and start.resolve().is_relative_to(place.top.resolve())
        return start if inside else None

    def run(self, command: str, place: Place, output: Path, on_process: OnProcess) -> Ran:
        """Run a check to its end.

        Args:
            command: the user's own.
            place: the worktree and its scratch folders.
            output: the file for everything that it prints.
            on_process: called before it begins.

        Raises:
            EnvironmentFailure: it could not be run; this is no result.
            Interrupted: the goal was asked to pause or stop.
        """
        # What an earlier run of this check left must not be taken for this one's.
        result_path(output).unlink(missing_ok=True)
        start = self.start_folder(place)
        if start is None:
            reason = f"the folder that checks start in is gone: {self._spec.subfolder}"
            return Ran(CheckResult(command=command, outcome="fail", reason=reason), None, None)
        inside = self._sandbox.seen(place)
        report = reports.prepare(command, start, place.reports, inside.reports)
        finished = self.execute(report.command, place, output, on_process, self._spec.limits.check_timeout)
        found = report.read(output)
        outcome, reason = _outcome(finished, report, found, self._spec.limits.check_timeout)
        text = read_bounded(output, EXCERPT_CHARS, EXCERPT_CHARS * 4).replace(str(place.top), self._spec.workspace)
        result = CheckResult(
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
        leave_result(output, result)
        return Ran(result, found, report.runner)

    def execute(
        self, command: str, place: Place, output: Path, on_process: OnProcess, timeout: float
    ) -> process.Finished:
        """Run any command where and as checks run; see ``run``."""
        inside = self._sandbox.seen(place)
        environment = check_environment(self._spec, self._environment, inside, self._sandbox.path)
        if crates.there(place.home) and not self._spec.verification.network:
            environment["CARGO_NET_OFFLINE"] = "true"
        wrapped = self._sandbox.wrap(
            ("bash", "-euo", "pipefail", "-c", command), place, inside.top / self._spec.subfolder, environment
        )
        status = place.home.with_name("status")
        status.unlink(missing_ok=True)
        return process.run(
            process.Command(
                argv=wrapped.argv,
                cwd=wrapped.cwd,
                env=wrapped.env,
                stdout=output,
                timeout=timeout,
                secrets=self._secrets,
                umask=0o022,
                status=status if wrapped.recorded else None,
                launcher=wrapped.stays,
            ),
            lambda identity: on_process("check", identity),
            self._poll,
        )


def _outcome(
    finished: process.Finished, report: reports.Report, found: reports.Found | None, limit: float
) -> tuple[CheckOutcome, str]:
    """The outcome of a check: exit status and report have to agree that it passed."""
    failed = count(found.counts.failed, "test") if found and found.counts.failed else ""
    if finished.timed_out:
        return "timeout", f"not finished after {limit:.0f} s"
    if finished.exit_code != 0:
        how = (
            f"exit status {finished.exit_code}" if finished.exit_code > 0 else f"ended by signal {-finished.exit_code}"
        )
        return "fail", how + (f"; {failed} failed" if failed else "")
    doubt = ""
    if report.runner is not None and found is None:
        # `os._exit(0)` in the code under test ends a test program like this.
        doubt = "it left no report that can be read"
    elif failed:
        doubt = f"its report says that {failed} failed"
    elif found is not None and found.counts.passed == 0:
        doubt = "its report says that no test passed"
    return ("fail", f"exit status 0, but {doubt}") if doubt else ("pass", "")
