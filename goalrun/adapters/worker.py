"""Any command as a worker: a prompt in, files changed, text out."""

import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from goalrun.adapters import process
from goalrun.adapters.clock import utc_now
from goalrun.adapters.files import private_folder, read_bounded, remove_tree, write_whole
from goalrun.adapters.identity import GOAL_VARIABLE, reap, untied
from goalrun.adapters.isolation import isolated
from goalrun.adapters.sandbox.bwrap import bwrap
from goalrun.core.evidence import clean, one_line
from goalrun.core.model import GoalSpec, WorkerReport
from goalrun.core.ports import OnProcess
from goalrun.core.prompt import BLOCKED_EXIT_STATUS
from goalrun.errors import WorkerUnavailable

TEXT_CHARS = 16_000
NOT_FOUND = frozenset({126, 127})
"""Exit statuses by which a shell says that there is no such command (POSIX, "Exit Status for Commands")."""
PLAIN_COMMAND = "command"


def shell_worker(command: str) -> tuple[str, ...]:
    """The argv of a worker that is given as a command line."""
    return ("bash", "-c", command)


class CommandWorker:
    """Runs a command line in the workspace, with the user's own environment.

    Args:
        hidden: the state folder, which the worker gets to see empty, among processes of its own; None does neither.
    """

    def __init__(
        self,
        spec: GoalSpec,
        folder: Path,
        hidden: Path | None,
        environment: Mapping[str, str],
        secrets: tuple[str, ...],
        poll: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._hidden = hidden
        self._environment = environment
        self._secrets = secrets
        self._poll = poll

    def run(self, prompt: str, turn: int, attempt: int, timeout: float, on_process: OnProcess) -> WorkerReport:
        """Run one turn; see ``core.ports.Worker``."""
        start = Path(self._spec.workspace) / self._spec.subfolder
        if not start.is_dir():
            raise WorkerUnavailable(f"the folder that the worker starts in is gone: {start}")
        program = self._spec.worker.command[0]
        if shutil.which(program, path=self._environment.get("PATH")) is None:
            raise WorkerUnavailable(f"worker {self._spec.worker.name}: {program} is not on PATH")
        output = private_folder(self._folder / "turns" / f"turn-{turn}" / f"worker-{attempt}")
        write_whole(output / "prompt.md", prompt)
        # The worker gets a copy: it has no business in the state folder.
        begun = utc_now().timestamp()
        outside = Path(tempfile.mkdtemp(prefix="goalrun-prompt-"))
        try:
            prompt_file = outside / "prompt.md"
            write_whole(prompt_file, prompt)
            argv = self._argv(prompt, prompt_file)
            finished = process.run(
                process.Command(
                    argv=argv if self._hidden is None else isolated(argv, start, self._hidden),
                    cwd=start,
                    env=self._worker_environment(turn, prompt_file),
                    stdin=prompt_file,
                    stdout=output / "stdout",
                    stderr=output / "stderr",
                    timeout=timeout,
                    secrets=self._secrets,
                    status=None if self._hidden is None else output / "status",
                    launcher="" if self._hidden is None else str(bwrap()),
                ),
                lambda identity: on_process("worker", identity),
                self._poll,
            )
        except process.Unstartable as failure:
            raise WorkerUnavailable(f"worker {self._spec.worker.name}: {failure}") from failure
        finally:
            remove_tree(outside)
            # What carries the goal's id but slipped out of the tree, through a daemon of the system for example.
            reap((), self._spec.id)
        return self._report(finished, output, untied(Path(self._spec.workspace), begun))

    def _argv(self, prompt: str, prompt_file: Path) -> tuple[str, ...]:
        filled = {"{prompt}": prompt, "{prompt_file}": str(prompt_file)}
        return tuple(filled.get(word, word) for word in self._spec.worker.command)

    def _worker_environment(self, turn: int, prompt_file: Path) -> dict[str, str]:
        return {
            **self._environment,
            **self._spec.worker.env,
            GOAL_VARIABLE: self._spec.id,
            "GOALRUN_TURN": str(turn),
            "GOALRUN_WORKSPACE": self._spec.workspace,
            "GOALRUN_PROMPT_FILE": str(prompt_file),
        }

    def _report(self, finished: process.Finished, output: Path, strangers: tuple[str, ...]) -> WorkerReport:
        said = clean(read_bounded(output / "stdout", 0, TEXT_CHARS * 4), TEXT_CHARS, self._secrets)
        complaint = read_bounded(output / "stderr", 0, TEXT_CHARS)
        self._require_command(finished, complaint)
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
        blocked = self._blocked(finished.exit_code, last)
        outcome = "timeout" if finished.timed_out else "failed" if finished.exit_code else "ok"
        reason = one_line(clean(complaint[-2000:], 2000, self._secrets)) if outcome == "failed" else ""
        return WorkerReport(
            outcome="blocked" if blocked is not None and not finished.timed_out else outcome,
            exit_code=finished.exit_code,
            seconds=finished.seconds,
            text=said,
            reason=blocked if blocked is not None else reason,
            transcript=str(output.relative_to(self._folder)),
            untied=strangers,
        )

    def _blocked(self, exit_code: int, last: str) -> str | None:
        """The reason, if the worker reports an obstacle that it cannot remove."""
        if exit_code == BLOCKED_EXIT_STATUS:
            return one_line(last, 1000)
        marker = self._spec.worker.blocked_line
        if marker is not None and last.strip().startswith(marker):
            return one_line(last.strip().removeprefix(marker), 1000)
        return None

    def _require_command(self, finished: process.Finished, complaint: str) -> None:
        """A shell that cannot find the worker's program has run no worker."""
        command = self._spec.worker.command
        if finished.exit_code not in NOT_FOUND or command[:2] != ("bash", "-c"):
            return
        try:
            words = shlex.split(command[2])
        except ValueError:
            return
        program = next((word for word in words if "=" not in word), "")
        # The shell names what it cannot run; a builtin in front of it says nothing.
        named = f"{program}: " in complaint
        if program and named and shutil.which(program, path=self._environment.get("PATH")) is None:
            said = one_line(clean(complaint[-2000:], 300, self._secrets))
            raise WorkerUnavailable(f"the worker command cannot be run: {said or program}")
