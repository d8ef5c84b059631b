"""Any agent as a judge: a brief in, one JSON object out. Nothing less, nothing more, counts as an answer."""

import json
import re
import tempfile
from functools import partial
from pathlib import Path
from time import monotonic

from pydantic import ConfigDict, StrictBool, StrictStr, ValidationError

from goalrun.adapters.agents.call import Heard, Means, Order, call, require_program, spent
from goalrun.adapters.files import remove_tree
from goalrun.adapters.identity import GOAL_VARIABLE
from goalrun.core.evidence import clean, one_line
from goalrun.core.model import NOTHING_SPENT, Judgement, Usage, Verdict
from goalrun.core.ports import AgentFailure, OnProcess
from goalrun.core.spec import PLAIN_COMMAND, AgentSpec, GoalSpec
from goalrun.core.value import Value

ATTEMPTS = 2
MAX_REPLY_CHARS = 256 << 10
REASON_CHARS = 4_000
_FENCED = re.compile(r"```(?:json)?\n(.*)\n```", re.DOTALL)


class Reply(Value):
    """What a judge has to print."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    nonce: StrictStr
    achieved: StrictBool
    blocked: StrictBool = False
    reason: StrictStr


class AgentJudge:
    """Asks an agent, in an empty folder, with nothing of the workspace.

    Args:
        folder: the goal's folder.
    """

    def __init__(self, agent: AgentSpec, spec: GoalSpec, folder: Path, means: Means) -> None:
        self.name = agent.name
        self._agent = agent
        self._spec = spec
        self._folder = folder
        kept = {name: value for name, value in means.environment.items() if not name.startswith("GOALRUN_")}
        self._means = means._replace(environment=kept)

    def judge(self, brief: str, label: str, nonce: str, on_process: OnProcess) -> Judgement:
        """Ask for a verdict; see ``core.ports.Judge``."""
        require_program(self._agent, self._agent.command, self._means.environment.get("PATH"))
        started = monotonic()
        folder = self._folder / "turns" / label / "judge"
        complaint = ""
        usage = NOTHING_SPENT
        for attempt in range(1, ATTEMPTS + 1):
            kept = folder / f"reply-{attempt}"
            heard = self._ask(brief, kept, nonce, on_process)
            usage = usage.plus(spent(self._agent, heard.said, None)[0] or Usage())
            try:
                verdict = self._verdict(heard, nonce, usage)
            except ValueError as failure:
                complaint = one_line(clean(str(failure), 600, self._means.secrets), 600)
                continue
            return Judgement(
                verdict=self._redacted(verdict),
                judge=self.name,
                attempts=attempt,
                seconds=monotonic() - started,
                usage=usage,
                brief=str((kept / "prompt.md").relative_to(self._folder)),
                reply=str((kept / "stdout").relative_to(self._folder)),
            )
        raise AgentFailure(
            f"judge {self.name} gave no verdict in {ATTEMPTS} attempts: {complaint}",
            hint=f"see {folder}, then resume",
            usage=usage,
        )

    def _ask(self, brief: str, kept: Path, nonce: str, on_process: OnProcess) -> Heard:
        empty = Path(tempfile.mkdtemp(prefix="goalrun-judge-"))
        try:
            order = Order(
                words=self._agent.command,
                prompt=brief,
                cwd=empty,
                kept=kept,
                timeout=self._agent.timeout,
                env={"GOALRUN_NONCE": nonce, GOAL_VARIABLE: self._spec.id},
            )
            return call(self._agent, order, self._means, partial(on_process, "judge"))
        finally:
            remove_tree(empty)

    def _verdict(self, heard: Heard, nonce: str, usage: Usage) -> Verdict:
        """The verdict that was heard.

        Raises:
            ValueError: there is none; another attempt may give one.
            AgentFailure: another attempt would not.
        """
        failure = heard.said.failure
        if failure is not None and failure.kind in {"limited", "refused"}:
            message = one_line(clean(f"judge {self.name}: {failure.message}", 600, self._means.secrets), 600)
            limited = failure.kind == "limited"
            raise AgentFailure(message, kind="limited" if limited else "refused", usage=usage, reset=failure.reset)
        if heard.finished.timed_out:
            raise ValueError(f"no answer after {self._agent.timeout:.0f} s")
        if failure is not None:
            raise ValueError(failure.message)
        if heard.finished.exit_code != 0:
            raise ValueError(f"exit status {heard.finished.exit_code}")
        if not heard.output.whole:
            raise ValueError("the reply is too long")
        text = heard.said.text
        # A model puts JSON into a fence; a command that somebody wrote for this does not.
        fenced = _FENCED.fullmatch(text.strip()) if self._agent.name != PLAIN_COMMAND else None
        return read_reply(fenced[1] if fenced else text, nonce)

    def _redacted(self, verdict: Verdict) -> Verdict:
        reason = clean(verdict.reason, REASON_CHARS, self._means.secrets)
        return Verdict(achieved=verdict.achieved, blocked=verdict.blocked, reason=reason)


def read_reply(text: str, nonce: str) -> Verdict:
    """The verdict in a reply.

    Raises:
        ValueError: the reply is not exactly one object of the agreed shape with the nonce echoed.
    """
    if len(text) > MAX_REPLY_CHARS:
        raise ValueError("the reply is too long")
    try:
        data = json.loads(text.strip(), object_pairs_hook=_no_duplicates)
        reply = Reply.model_validate(data)
        if reply.nonce != nonce:
            raise ValueError("the nonce is not the one that was given")
        return Verdict(achieved=reply.achieved, blocked=reply.blocked, reason=reply.reason)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the reply"
        raise ValueError(f"{where}: {first['msg']}") from failure
    except (json.JSONDecodeError, RecursionError) as failure:
        raise ValueError(f"the reply is not one JSON object: {failure}") from failure


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in the reply")
    return found
