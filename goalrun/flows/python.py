"""A step in Python: its function runs in a process of its own, and asks here for every call."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from goalrun.core.events import FlowTold
from goalrun.core.evidence import one_line
from goalrun.core.flow.expect import bad_expect
from goalrun.core.flow.keys import call_key, tree_after
from goalrun.core.flow.model import Result, Step
from goalrun.core.flow.refs import as_text
from goalrun.core.model import WorkerReport, total
from goalrun.core.ports import AnswerNeeded
from goalrun.core.spec import PLAIN_COMMAND, AgentSpec
from goalrun.core.value import Json, JsonObject
from goalrun.errors import Interrupted, UserError
from goalrun.flows.call import Made, folder_of
from goalrun.flows.scope import json_of
from goalrun.flows.steps import Doing, Steps

PROGRAM = (sys.executable, "-P", "-B", "-X", "utf8", "-m", "goalrun.api.child")
"""Without the current folder among its modules, and leaving no compiled files in the workspace."""
MAX_OPEN = 2_000
MAX_OPEN_BYTES = 256 << 20
"""Of what was asked and is not answered."""
MAX_ASKED = 100_000
"""Requests of one run of a function."""
MAX_TOLD = 1_000
MAX_TOLD_CHARS = 2_000
MAX_DEPTH = 16
"""Of flows in flows: slashes in a step's path."""
SCHEMA = "Answer with JSON only, and nothing around it. It has to fit this JSON Schema:"
OVER = "the function that asked for it is over"
CALL_FIELDS = frozenset({"agent", "prompt", "schema", "writes", "cache", "cache_tree", "retry", "timeout", "env"})


class _Left(Interrupted):
    """The function is not to go on, or is over."""

    def __init__(self) -> None:
        super().__init__("stop", OVER)


class _Seen(NamedTuple):
    """What is kept of a call: what stands for it in the keys of those that come after it."""

    name: str
    result: Result


class FunctionRun:
    """One run of a function. What it asks for is done in threads of this process, as steps are."""

    def __init__(self, doing: Doing, steps: Steps) -> None:
        self._doing = doing
        self._steps = steps
        self._calls = steps.calls
        self._lock = threading.Lock()
        self._seen: dict[int, _Seen] = {}
        self._asked: set[int] = set()
        self._numbers = 0
        self._open = 0
        self._bytes = 0
        self._told = 0
        self._questions: dict[str, int] = {}
        self._question: AnswerNeeded | None = None
        self._failure: Exception | None = None
        self._end: JsonObject | None = None
        self._over = False
        self._done: list[Result] = []
        self._tree = steps.tree_before(doing)
        self._pool = ThreadPoolExecutor(max_workers=2 * doing.scope.flow.concurrency, thread_name_prefix="goalrun-call")

    def run(self) -> Made:
        """What comes of it.

        Raises:
            AnswerNeeded: a person has to answer before it can go on.
            Interrupted: the goal was asked to pause or stop.
        """
        ports, doing = self._calls.ports, self._doing
        agent = AgentSpec(name=PLAIN_COMMAND, command=PROGRAM)
        before = self._tree_now()
        with ports.listen(self._heard) as env:
            task = self._calls.task
            place = f"flow-{task.attempt}/{folder_of(doing.path)}"
            timeout = min(doing.step.timeout or task.timeout, task.timeout)
            task = task._replace(prompt="", timeout=timeout, session=None, place=place, usd=None,
                                 env={**{k: doing.filled(v) for k, v in doing.step.env.items()}, **env})  # fmt: skip
            worker = ports.hire(agent, doing.scope.files.folder, writes=doing.step.writes, poll=self._watch)
            try:
                report = worker.run(task, self._calls.on_process)
            except _Left:
                raise self._failure or self._question or AssertionError("nothing made it leave") from None
            finally:
                self._over = True
                self._pool.shutdown(wait=True, cancel_futures=True)
        if self._failure is not None:
            raise self._failure
        return Made(self._result(report, before))

    def _tree_now(self) -> str:
        return self._doing.scope.files.snapshot().tree if self._doing.step.writes else ""

    def _watch(self) -> None:
        """Ends the function where it cannot go on; nothing is lost by that, as it is replayed."""
        self._doing.poll()
        if self._failure is not None or (self._question is not None and self._open == 0):
            raise _Left

    def _still(self) -> None:
        self._doing.poll()
        if self._over:
            raise _Left

    # What it says.

    def _heard(self, message: JsonObject, answer: Callable[[JsonObject], None], size: int) -> None:
        """One message, in the thread that listens."""
        try:
            self._do(message, answer, size)
        except Exception as failure:  # noqa: BLE001 - raised again where the function is watched
            self._failure = self._failure or failure

    def _do(self, message: JsonObject, answer: Callable[[JsonObject], None], size: int) -> None:
        """What takes long goes into a thread. What is wrong with a message is the answer, and no more."""
        what = message["do"]
        if what == "told":
            self._tell(message)
        elif what == "start":
            answer({"answer": self._order()})
        elif what == "budget":
            answer({"answer": self._budget()})
        elif what == "end":
            self._end = self._end or message
            answer({"answer": None})
        elif why := self._unfit(message, size):
            answer({"wrong": why})
        else:
            with self._lock:
                self._open += 1
                self._bytes += size
                self._numbers += message["do"] != "diff"
                path = f"{self._doing.path}/{_label(message)}-{self._numbers}"
            try:
                self._pool.submit(self._answered, message, path, answer, size)
            except RuntimeError:
                # It is over meanwhile.
                return

    def _unfit(self, message: JsonObject, size: int) -> str:
        number = message["id"]
        if not isinstance(number, int) or number < 1 or number in self._asked:
            return "a request needs a number of its own"
        self._asked.add(number)
        texts = [key for key in ("agent", "flow", "label", "prompt", "question") if key in message]
        if bad := [key for key in texts if not isinstance(message[key], str)]:
            return f"{bad[0]} is no text"
        if not isinstance(message.get("schema"), dict | None) or not isinstance(message.get("with"), dict | None):
            return "schema is a JSON Schema or a pydantic model, and arguments are an object"
        if len(self._asked) > MAX_ASKED:
            return f"more than {MAX_ASKED} requests"
        if self._open >= MAX_OPEN or self._bytes + size > MAX_OPEN_BYTES:
            return f"more than {MAX_OPEN} calls, or {MAX_OPEN_BYTES >> 20} MiB of them, at once"
        known = {"agent", "flow", "ask", "check", "diff"}
        return "" if message["do"] in known else f"nobody knows how to do {str(message['do'])[:40]!r}"

    def _tell(self, message: JsonObject) -> None:
        self._told += 1
        if self._told > MAX_TOLD + 1:
            return
        what = "phase" if message.get("kind") == "phase" else "log"
        said = one_line(str(message.get("text", ""))[: 2 * MAX_TOLD_CHARS], MAX_TOLD_CHARS)
        text = said if self._told <= MAX_TOLD else "what is said from here on is left out"
        self._calls.note(FlowTold(turn=self._calls.task.turn, path=self._doing.path, what=what, text=text))

    def _order(self) -> dict[str, Json]:
        """What the child needs to begin."""
        doing, state = self._doing, self._calls.state
        scope, step = doing.scope, doing.step
        name, _, function = (step.python or "").rpartition(":")
        given = {key: scope.deep(step, value, doing.item) for key, value in step.with_.items()} or dict(scope.args)
        return {
            "file": str((Path(scope.flow.source).parent / name).absolute()),
            "code": scope.flow.code.get(name, ""),
            "function": function,
            "args": given,
            "objective": state.spec.objective,
            "feedback": state.feedback,
            "turn": len(state.turns) + 1,
        }

    def _budget(self) -> dict[str, Json]:
        spent, before, limits = self._calls.spent, self._calls.state.usage, self._calls.state.spec.limits
        budget = self._doing.scope.flow.budget
        usd = _left((budget.usd, spent.usd), (limits.max_usd, before.plus(spent).usd))
        tokens = _left((budget.tokens, spent.total_tokens), (limits.max_tokens, before.plus(spent).total_tokens))
        return {"spent": [spent.usd, spent.total_tokens], "left": [usd, None if tokens is None else int(tokens)]}

    # What it asks for.

    def _answered(self, message: JsonObject, path: str, answer: Callable[[JsonObject], None], size: int) -> None:
        try:
            self._still()
            answer({"answer": self._made(message, path)})
        except (UserError, ValidationError, ValueError) as wrong:
            answer({"wrong": _why(wrong)})
        except AnswerNeeded as question:
            self._question = self._question or question
        except _Left:
            pass
        except Exception as failure:  # noqa: BLE001 - raised again where the function is watched
            self._failure = self._failure or failure
        finally:
            with self._lock:
                self._open -= 1
                self._bytes -= size

    def _made(self, message: JsonObject, path: str) -> Json:
        number = message["id"]
        if message["do"] == "diff":
            seen = self._known(message.get("call"))
            changed = seen is not None and seen.result.before != seen.result.after
            return self._doing.scope.files.diff(seen.result.before, seen.result.after) if seen and changed else ""
        tree = self._tree_for(message.get("after"))
        result = self._one(message, path, tree)
        slim = result.but(text="", json_=None, members=())
        name = call_key("asked", message["do"], str(message.get("prompt", message.get("with"))), None, tree)
        with self._lock:
            self._seen[number if isinstance(number, int) else 0] = _Seen(name, slim)
            self._done.append(slim)
        return {
            "status": result.status, "reason": result.reason, "text": result.text, "json": json_of(result),
            "usd": result.usd, "tokens": result.tokens, "cached": result.cached, "seconds": result.seconds,
        }  # fmt: skip

    def _one(self, message: JsonObject, path: str, tree: str) -> Result:
        match message["do"]:
            case "ask":
                return self._person(message, path)
            case "check":
                return self._verified(message, path)
            case _:
                return self._stepped(message, path, tree)

    def _known(self, number: object) -> _Seen | None:
        with self._lock:
            return self._seen.get(number) if isinstance(number, int) else None

    def _tree_for(self, after: Json) -> str:
        """What stands for the files that a call begins with: the calls that its asker has seen the end of."""
        seen = [self._known(number) for number in after] if isinstance(after, list) else []
        changes = {(each.name, each.result.before, each.result.after) for each in seen if each is not None}
        return tree_after(self._tree, changes)

    def _stepped(self, message: JsonObject, path: str, tree: str) -> Result:
        """An agent or a flow, as a step of its own."""
        step = self._agent(message) if message["do"] == "agent" else self._flow(message, path)
        scope = self._doing.scope._replace(settled={}, tree=tree)
        return self._steps.settled(Doing(scope, step, path, poll=self._still, literal=True)).result

    def _agent(self, message: JsonObject) -> Step:
        name, prompt, schema = message.get("agent"), message.get("prompt"), message.get("schema")
        if name not in self._steps.agents:
            known = ", ".join(filter(None, self._steps.agents)) or "none"
            raise ValueError(f"the agent {str(name)[:80]!r} is unknown, or not installed; known: {known}")
        given = {key: message[key] for key in CALL_FIELDS & message.keys() if message[key] is not None}
        if isinstance(schema, dict):
            expect = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
            if why := bad_expect(expect):
                raise ValueError(f"schema: {why}")
            given |= {"prompt": f"{prompt}\n\n{SCHEMA}\n{as_text(schema)}", "expect": expect}
        given |= {"retry": {"max": message.get("retry") or 0}, "agent": name or None}
        return Step.model_validate({key: value for key, value in given.items() if key != "schema"} | {"id": "call"})

    def _flow(self, message: JsonObject, path: str) -> Step:
        name = message.get("flow")
        if name not in self._doing.scope.flows:
            known = ", ".join(self._doing.scope.flows) or "none"
            raise ValueError(f"there is no flow {str(name)[:80]!r} here; known: {known}")
        if path.count("/") > MAX_DEPTH:
            raise ValueError(f"flows in flows in flows: {MAX_DEPTH} are the most")
        return Step.model_validate({"id": "call", "flow": name, "with": message.get("with") or {}})

    def _person(self, message: JsonObject, path: str) -> Result:
        question = str(message.get("question", ""))[:MAX_TOLD_CHARS]
        with self._lock:
            times = self._questions[question] = self._questions.get(question, 0) + 1
        # By what is asked and how often: where it stands among other calls may change from run to run.
        step = Step(id="ask", ask=question)
        result = self._steps.asked(Doing(self._doing.scope, step, f"{self._doing.path}/ask-{times}", literal=True))
        self._calls.settle(path, Made(result))
        return result

    def _verified(self, message: JsonObject, path: str) -> Result:
        given = message.get("commands")
        commands = [each for each in given if isinstance(each, str) and each.strip()] if isinstance(given, list) else []
        if not commands:
            raise ValueError("check needs a command")
        snapshot = self._doing.scope.files.snapshot()
        label = f"turn-{self._calls.task.turn}/flow-{self._calls.task.attempt}/{path.replace('/', '-')[:80]}"
        calls, asked = self._calls, Step(id="check", run="true", check=tuple(commands))
        report = calls.ports.verify(calls.state, asked, snapshot, label, calls.on_process, self._doing.poll)
        bad = next((check for check in report.checks if check.outcome != "pass"), None)
        why = "" if bad is None else f"{one_line(bad.command, 80)}: {bad.reason or bad.outcome}"
        result = Result(
            status="done" if bad is None and not report.tampering else "failed",
            reason=why or ", ".join(f"{each.path} ({each.kind})" for each in report.tampering[:5]),
            text="\n\n".join(f"{check.command}: {check.outcome}\n{check.excerpt}".strip() for check in report.checks),
            json_=[{"command": check.command, "outcome": check.outcome} for check in report.checks],
            seconds=report.seconds,
            usd=0.0,
            tokens=0,
            attempts=1,
        )
        self._calls.settle(path, Made(result))
        return result

    # What came of it.

    def _result(self, report: WorkerReport, before: str) -> Result:
        end = self._end or {}
        status, reason, by = "done", "", ""
        if report.outcome == "timeout":
            status, reason = "failed", "it took too long"
        elif "value" not in end or report.exit_code:
            killed = f"its process ended with exit status {report.exit_code} before the function was over"
            status, reason = "failed", one_line(str(end.get("failure") or killed), 1000)
        named = self._known(end.get("call"))
        if named is not None and not named.result.ok and report.outcome != "timeout":
            # What it returned, or failed for, is a call that is not done.
            status, reason, by = named.result.status, named.result.reason, named.result.by
        value = end.get("value") if status == "done" else None
        changed = tuple(each for each in self._done if each.before != each.after)
        return Result(
            status=status,
            reason=reason,
            by=by,
            text=as_text(value),
            json_=value,
            seconds=report.seconds,
            attempts=1,
            cached=bool(self._done) and all(each.cached for each in self._done),
            usd=total(each.usd for each in self._done),
            before=before,
            after=self._tree_now(),
            members=changed,
        )


def _left(*limits: tuple[float | None, float | None]) -> float | None:
    """The least that is left of some limits, each with what was spent of it; None without one, or where unknown."""
    rest = [max(0.0, limit - spent) for limit, spent in limits if limit is not None and spent is not None]
    return min(rest, default=None)


def _label(message: JsonObject) -> str:
    given = str(message.get("label") or message.get("flow") or message["do"])[:40]
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in given)


def _why(wrong: Any) -> str:  # noqa: ANN401 - one of several exceptions
    if isinstance(wrong, ValidationError):
        first = wrong.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return one_line(str(wrong), 500)
