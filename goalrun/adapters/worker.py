"""Any agent as a worker: a prompt in, files changed, text out."""

import shlex
import shutil
import signal
from functools import partial
from pathlib import Path

from goalrun.adapters import process
from goalrun.adapters.agents import read
from goalrun.adapters.agents.call import (
    REPORT,
    Heard,
    Means,
    Order,
    call,
    require_program,
    shell_command,
    spent,
)
from goalrun.adapters.agents.said import read_output
from goalrun.adapters.clock import utc_now
from goalrun.adapters.files import identity_of, private_folder, require_same
from goalrun.adapters.identity import CALL_VARIABLE, GOAL_VARIABLE, begun_since, reap, untied
from goalrun.adapters.isolation import isolated
from goalrun.adapters.sandbox.bwrap import bwrap
from goalrun.core.evidence import clean, one_line
from goalrun.core.model import NOTHING_SPENT, Session, Usage, WorkerReport
from goalrun.core.ports import AgentFailure, OnProcess, Task
from goalrun.core.prompt import BLOCKED_EXIT_STATUS, WAIT_LINE
from goalrun.core.spec import PLAIN_COMMAND, AgentSpec, GoalSpec
from goalrun.errors import EnvironmentFailure

NOT_FOUND = frozenset({126, 127})
"""Exit statuses by which a shell says that there is no such command (POSIX, "Exit Status for Commands")."""
LEAST_USD = 0.0001
"""What an agent may still spend is never told as zero, which some take for no limit."""
SILENT = "it printed nothing for too long"
TRY_SECONDS = 60.0
"""How long a command that a worker waits for may take."""


class AgentWorker:
    """Runs an agent in the workspace, with the user's own environment.

    Args:
        folder: the goal's folder.
        hidden: the state folder, which the worker gets to see empty, among processes of its own; None does neither.
        writes: False lets it only read the workspace, where it has namespaces of its own.
    """

    def __init__(
        self, agent: AgentSpec, spec: GoalSpec, folder: Path, hidden: Path | None, means: Means, *, writes: bool = True
    ) -> None:
        self.name = agent.name
        self._agent = agent
        self._spec = spec
        self._folder = folder
        self._hidden = hidden
        self._means = means
        self._frozen = None if writes else Path(spec.workspace)
        self._start = Path(spec.workspace) / spec.subfolder
        self._known = identity_of(Path(spec.workspace))

    def run(self, task: Task, on_process: OnProcess) -> WorkerReport:
        """Run one turn; see ``core.ports.Worker``."""
        require_same(Path(self._spec.workspace), self._known)
        if not self._start.is_dir():
            raise EnvironmentFailure(f"the folder that the worker starts in is gone: {self._start}")
        require_program(self._agent, self._agent.command, self._means.environment.get("PATH"))
        begun = utc_now().timestamp()
        goes_on = self._agent.session == "resume" and bool(self._agent.resume) and task.session is not None
        try:
            heard, kept = self._call(task, on_process, task.session if goes_on else None)
            if goes_on and heard.said.failure is not None and heard.said.failure.kind == "session":
                # It is gone: the prompt holds all that a new one needs.
                goes_on = False
                heard, kept = self._call(task, on_process, None)
        finally:
            # What slipped out of the tree, through a daemon of the system for example, but carries the goal's id; that
            # of this call alone, where other calls run beside it.
            mark = (self._call_id(task), CALL_VARIABLE) if task.place else (self._spec.id, GOAL_VARIABLE)
            young = begun_since(begun)
            reap((), *mark, begun, young)
        self._require_work(heard)
        report = self._report(heard, kept, task.session if goes_on else None, task.chars)
        # A flow's calls run side by side: which of them had a process started, nobody could tell.
        strangers = () if task.place else untied(Path(self._spec.workspace), young)
        return report.but(untied=strangers)

    def cut(self, turn: int, attempt: int, before: Session | None) -> tuple[Usage | None, Session | None]:
        """What its output, as far as it came, tells of a run; see ``core.ports.Worker``."""
        kept, resumed = (self._kept(turn, attempt, resumed=resumed) for resumed in (False, True))
        # Where both are there, the session was gone, and the run began a new one.
        place, session = (resumed, before) if resumed.exists() and not kept.exists() else (kept, None)
        output = read_output(place / "stdout", place / "stderr", place / REPORT, -signal.SIGKILL)
        # Nothing tells that this is all of it.
        return spent(self._agent, read(self._agent, output._replace(whole=False)), session)

    def _kept(self, turn: int, attempt: int, *, resumed: bool) -> Path:
        """The folder for what is kept of a run: named by the attempt, and by whether it goes on with a session."""
        return self._folder / "turns" / f"turn-{turn}" / f"worker-{attempt}{'-resumed' if resumed else ''}"

    def try_out(self, command: str, turn: int, on_process: OnProcess) -> bool:
        """Whether a command succeeds now; see ``core.ports.Worker``."""
        kept = private_folder(self._folder / "turns" / f"turn-{turn}" / "waiting")
        (kept / "status").unlink(missing_ok=True)
        order = self._order(shell_command(command), "", kept, TRY_SECONDS, turn)
        plain = AgentSpec(name=PLAIN_COMMAND, command=order.words)
        # Nothing of the turn: were it killed, no worker would have been cut.
        return call(plain, order, self._means, partial(on_process, "check")).finished.exit_code == 0

    def _call(self, task: Task, on_process: OnProcess, session: Session | None) -> tuple[Heard, Path]:
        agent = self._agent
        kept = self._kept(task.turn, task.attempt, resumed=session is not None)
        if task.place:
            kept = self._folder / "turns" / f"turn-{task.turn}" / task.place
        words = agent.command if session is None else agent.resume
        words = (*words, *agent.spend) if task.usd is not None else words
        values = {
            "{session}": session.id if session is not None else "",
            "{usd}": f"{max(task.usd or 0, LEAST_USD):.4f}",
        }
        env = {CALL_VARIABLE: self._call_id(task), **task.env}
        order = self._order(words, task.prompt, kept, task.timeout, task.turn)
        order = order._replace(values=values, env={**order.env, **env}, idle=task.idle)
        return call(agent, order, self._means, partial(on_process, "worker")), kept

    def _call_id(self, task: Task) -> str:
        return f"{self._spec.id}/{task.turn}/{task.attempt}/{task.place}"

    def _order(self, words: tuple[str, ...], prompt: str, kept: Path, timeout: float, turn: int) -> Order:
        hidden = self._hidden
        env = {
            GOAL_VARIABLE: self._spec.id,
            "GOALRUN_TURN": str(turn),
            "GOALRUN_WORKSPACE": self._spec.workspace,
            "GOALRUN_PROMPT_FILE": "{prompt_file}",
        }
        return Order(
            words=words,
            prompt=prompt,
            cwd=self._start,
            kept=kept,
            timeout=timeout,
            env=env,
            isolate=None if hidden is None else lambda argv: isolated(argv, self._start, hidden, frozen=self._frozen),
            launcher="" if hidden is None else str(bwrap()),
        )

    def _require_work(self, heard: Heard) -> None:
        """Nothing that the provider, the credentials or the machine failed at is the worker's turn."""
        failure = heard.said.failure
        output, ended = heard.output, heard.finished
        silent = not output.events and not output.report and ended.exit_code != 0 and not ended.timed_out
        # One that has a lot to say and says nothing has not begun: it does not know a flag, or nobody is logged in.
        if failure is not None and (failure.kind != "failed" or silent):
            message = one_line(clean(f"{self.name}: {failure.message}", 600, self._means.secrets), 600)
            kind = failure.kind if failure.kind in {"limited", "refused"} else "failed"
            usage, _ = spent(self._agent, heard.said, None)
            raise AgentFailure(message, kind=kind, usage=usage, reset=failure.reset)
        self._require_command(heard.finished, heard.output.errors)

    def _report(self, heard: Heard, kept: Path, session: Session | None, chars: int) -> WorkerReport:
        finished, said = heard.finished, heard.said
        text = clean(said.text, chars, self._means.secrets)
        last = next((line for line in reversed(text.splitlines()) if line.strip()), "").strip()
        failed = finished.exit_code != 0 or said.failure is not None
        outcome = "timeout" if finished.timed_out else "failed" if failed else "ok"
        reason = self._complaint(heard) if outcome == "failed" else SILENT if finished.idle else ""
        blocked = self._blocked(finished.exit_code, last)
        usage, known = spent(self._agent, said, session)
        return WorkerReport(
            outcome="blocked" if blocked is not None and not finished.timed_out else outcome,
            exit_code=finished.exit_code,
            seconds=finished.seconds,
            usage=usage,
            text=text,
            reason=blocked if blocked is not None else reason,
            transcript=str(kept.relative_to(self._folder)),
            agent=self.name,
            model=one_line(said.model, 200),
            session=known,
            denials=tuple(one_line(each, 200) for each in said.denials[:20]),
            wait_for=one_line(last.removeprefix(WAIT_LINE), 1000).strip() if last.startswith(WAIT_LINE) else "",
        )

    def _complaint(self, heard: Heard) -> str:
        said = heard.said.failure.message if heard.said.failure is not None else heard.output.errors[-2000:]
        return one_line(clean(said, 2000, self._means.secrets))

    def _blocked(self, exit_code: int, last: str) -> str | None:
        """The reason, if the worker reports an obstacle that it cannot remove."""
        if exit_code == BLOCKED_EXIT_STATUS:
            return one_line(last, 1000)
        marker = self._agent.blocked_line
        if marker is not None and last.startswith(marker):
            return one_line(last.removeprefix(marker), 1000)
        return None

    def _require_command(self, finished: process.Finished, complaint: str) -> None:
        """A shell that cannot find the worker's program has run no worker."""
        command = self._agent.command
        if finished.exit_code not in NOT_FOUND or command[:2] != ("bash", "-c"):
            return
        try:
            words = shlex.split(command[2])
        except ValueError:
            return
        program = next((word for word in words if "=" not in word), "")
        # The shell names what it cannot run; a builtin in front of it says nothing.
        named = f"{program}: " in complaint
        if program and named and shutil.which(program, path=self._means.environment.get("PATH")) is None:
            said = one_line(clean(complaint[-2000:], 300, self._means.secrets))
            raise AgentFailure(f"the worker command cannot be run: {said or program}", usage=NOTHING_SPENT)
