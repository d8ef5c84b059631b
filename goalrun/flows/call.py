"""One call of a flow, and what came of it."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from goalrun.core.flow.keys import call_key
from goalrun.core.flow.model import Result
from goalrun.core.flow.verdict import refusal
from goalrun.core.model import WorkerReport
from goalrun.core.spec import PLAIN_COMMAND, AgentSpec
from goalrun.core.value import Json
from goalrun.errors import Interrupted
from goalrun.flows.ports import Files


class Call(NamedTuple):
    """One call.

    Attributes:
        path: the step, with item and member where there are several.
        tree: what stands for the files in its key; "" leaves them out.
        rest: what else is in its key.
        writes: its changes of files are a part of its result.
        cache: its result may be taken from before.
        poll: ends it, by raising, for a reason of its own.
        idle: seconds without output after which it is ended.
        judge: holds what it said against what is asked of it; what is not done then is never taken from before.
        settles: what comes of it is what becomes of the step, or the item, at its path: one record says both.
    """

    path: str
    agent: AgentSpec
    prompt: str
    files: Files
    tree: str
    timeout: float
    rest: Json = None
    env: Mapping[str, str] = {}
    writes: bool = True
    cache: bool = True
    poll: Callable[[], None] = lambda: None
    idle: float = math.inf
    judge: Callable[[Result], Result] = lambda result: result
    settles: bool = False

    @property
    def command(self) -> bool:
        """Whether it is a plain command, which spends nothing."""
        return self.agent.name == PLAIN_COMMAND

    @property
    def key(self) -> str:
        """What it is recognised by."""
        who: Json = [list(self.agent.command), self.agent.model, dict(self.agent.env)]
        return call_key(PLAIN_COMMAND if self.command else "agent", who, self.prompt, self.rest, self.tree)


class Made(NamedTuple):
    """A call that is over.

    Attributes:
        why: it was not taken from before, where something like it was there.
        kept: the file with its words, and the digest of that; where it is one call.
        settled: the step that it is all of is recorded.
    """

    result: Result
    why: str = ""
    kept: tuple[str, str] = ("", "")
    settled: bool = False


class Cancelled(Interrupted):
    """A call is not needed any more: somebody else was faster."""

    def __init__(self) -> None:
        super().__init__("stop", "it is not needed any more")


def refused(told: str, question: str) -> Result | None:
    """What a person's no makes of a step; None where the answer is no refusal."""
    reason = refusal(told)
    if reason is None:
        return None
    return Result(status="blocked", reason=reason or f"a person said no to: {question}", by="person", text="(reject)")


def result_of(call: Call, report: WorkerReport) -> Result:
    """What a worker's report makes of a call, before anything is asked of its answer."""
    status = {"ok": "done", "blocked": "blocked"}.get(report.outcome, "failed")
    reason = report.reason or ("" if status != "failed" else _ended(report))
    if status == "done" and not call.command and not report.text.strip():
        status, reason = "failed", f"{call.agent.name} said nothing"
    return Result(
        status=status,
        reason=reason,
        by="worker" if status == "blocked" else "",
        # As a shell's $(...) has it: what echo says equals the word that it said.
        text=report.text.rstrip("\n"),
        seconds=report.seconds,
        attempts=1,
        agent=report.agent or call.agent.name,
        model=report.model,
    )


def _ended(report: WorkerReport) -> str:
    return "it took too long" if report.outcome == "timeout" else f"it ended with exit status {report.exit_code}"


def folder_of(path: str) -> str:
    """A step's path as a name of a folder, or of a ref."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in path)[:80]
