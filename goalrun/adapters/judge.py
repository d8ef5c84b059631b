"""Any command as a judge: a brief in, one JSON object out. Nothing less, nothing more, counts as an answer."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic

from pydantic import ConfigDict, StrictBool, StrictStr, ValidationError

from goalrun.adapters import process
from goalrun.adapters.files import private_folder, remove_tree, write_whole
from goalrun.adapters.identity import GOAL_VARIABLE
from goalrun.core.evidence import clean
from goalrun.core.model import GoalSpec, Judgement, JudgeSpec, Value, Verdict
from goalrun.core.ports import OnProcess
from goalrun.errors import JudgeUnavailable

ATTEMPTS = 2
MAX_REPLY_BYTES = 256 << 10
REASON_CHARS = 4_000


class Reply(Value):
    """What a judge has to print."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    nonce: StrictStr
    achieved: StrictBool
    blocked: StrictBool = False
    reason: StrictStr


class CommandJudge:
    """Asks a command, in an empty folder, with nothing of the workspace."""

    def __init__(
        self,
        spec: GoalSpec,
        judge: JudgeSpec,
        folder: Path,
        environment: Mapping[str, str],
        secrets: tuple[str, ...],
        poll: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._judge = judge
        self._folder = folder
        self._environment = environment
        self._secrets = secrets
        self._poll = poll

    def judge(self, brief: str, label: str, nonce: str, on_process: OnProcess) -> Judgement:
        """Ask for a verdict; see ``core.ports.Judge``."""
        started = monotonic()
        folder = private_folder(self._folder / "turns" / label / "judge")
        write_whole(folder / "brief.md", brief)
        complaint = ""
        for attempt in range(1, ATTEMPTS + 1):
            reply = folder / f"reply-{attempt}"
            try:
                self._ask(folder / "brief.md", reply, nonce, on_process)
                verdict = read_reply(reply, nonce)
            except (JudgeUnavailable, process.Unstartable, ValueError) as failure:
                complaint = str(failure)
                continue
            return Judgement(
                verdict=self._redacted(verdict),
                judge=self._judge.name,
                attempts=attempt,
                seconds=monotonic() - started,
                brief=str((folder / "brief.md").relative_to(self._folder)),
                reply=str(reply.relative_to(self._folder)),
            )
        raise JudgeUnavailable(
            f"judge {self._judge.name} gave no verdict in {ATTEMPTS} attempts: {complaint}",
            hint=f"see {folder}, then resume",
        )

    def _ask(self, brief: Path, reply: Path, nonce: str, on_process: OnProcess) -> None:
        empty = Path(tempfile.mkdtemp(prefix="goalrun-judge-"))
        kept = {name: value for name, value in self._environment.items() if not name.startswith("GOALRUN_")}
        try:
            finished = process.run(
                process.Command(
                    argv=self._judge.command,
                    cwd=empty,
                    env={**kept, **self._judge.env, "GOALRUN_NONCE": nonce, GOAL_VARIABLE: self._spec.id},
                    stdin=brief,
                    stdout=reply,
                    stderr=reply.with_suffix(".err"),
                    timeout=self._judge.timeout,
                    secrets=self._secrets,
                ),
                lambda identity: on_process("judge", identity),
                self._poll,
            )
        finally:
            remove_tree(empty)
        if finished.timed_out:
            raise JudgeUnavailable(f"no answer after {self._judge.timeout:.0f} s")
        if finished.exit_code != 0:
            raise JudgeUnavailable(f"exit status {finished.exit_code}")

    def _redacted(self, verdict: Verdict) -> Verdict:
        reason = clean(verdict.reason, REASON_CHARS, self._secrets)
        return Verdict(achieved=verdict.achieved, blocked=verdict.blocked, reason=reason)


def read_reply(path: Path, nonce: str) -> Verdict:
    """The verdict in a reply.

    Raises:
        ValueError: the reply is not exactly one object of the agreed shape with the nonce echoed.
    """
    with path.open("rb") as file:
        content = file.read(MAX_REPLY_BYTES + 1)
    if len(content) > MAX_REPLY_BYTES:
        raise ValueError("the reply is too long")
    try:
        data = json.loads(content.decode("utf-8").strip(), object_pairs_hook=_no_duplicates)
        reply = Reply.model_validate(data)
        if reply.nonce != nonce:
            raise ValueError("the nonce is not the one that was given")
        return Verdict(achieved=reply.achieved, blocked=reply.blocked, reason=reply.reason)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the reply"
        raise ValueError(f"{where}: {first['msg']}") from failure
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as failure:
        raise ValueError(f"the reply is not one JSON object: {failure}") from failure


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in the reply")
    return found
