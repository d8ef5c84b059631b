"""Calls: what a flow pays for. Each is recognised by its content, made once, and recorded before and after."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

from goalrun.core.decide import budget_stop
from goalrun.core.events import CallFinished, CallStarted, Event, ProcessStarted, StepSettled
from goalrun.core.flow.model import MAX_STEPS, Flow, FlowBudget, Result
from goalrun.core.model import NOTHING_SPENT, CallRecord, GoalState, ProcessIdentity, StepRecord, Usage, WorkerReport
from goalrun.core.ports import AgentFailure, AnswerNeeded, LimitReached, OnProcess, Task
from goalrun.core.prompt import turn_time
from goalrun.core.spec import PLAIN_COMMAND
from goalrun.errors import Interrupted
from goalrun.flows.call import Call, Cancelled, Made, folder_of, refused, result_of
from goalrun.flows.notes import TICK_SECONDS, Notes, Turns
from goalrun.flows.ports import Files, FlowPorts, both

TEXT_CHARS = 5_000_000


class Calls:
    """Makes the calls of one run of a flow, from any thread.

    Args:
        task: what the goal asks of its worker.
        flow: says how many calls run at once, and how many agents are asked in all.
    """

    def __init__(self, task: Task, ports: FlowPorts, flow: Flow) -> None:
        if task.state is None or task.note is None:
            raise AssertionError("a flow needs the goal's state")
        self.task = task
        self.ports = ports
        self.state: GoalState = task.state
        self.spent: Usage = NOTHING_SPENT
        self._bills: list[tuple[str, Usage]] = []
        self._limited: set[str] = set()
        self._begun = ports.clock.monotonic()
        self.note = Notes(task.note)
        self._turns = Turns()
        self._room = threading.BoundedSemaphore(flow.concurrency)
        self._lock = threading.RLock()
        self._left = _by_key(self.state.flow.calls)
        self._numbers = {
            key: max(numbers) for key, numbers in _by_key({**self.state.flow.calls, **self.state.flow.begun}).items()
        }
        self._most = flow.max_calls
        # All turns of a run of a flow are that run, resumed.
        turns = range(1 if self.state.spec.alone else task.turn, task.turn + 1)
        done = self.state.flow.calls.values()
        self._agents = sum(each.agent != PLAIN_COMMAND and each.turn in turns for each in done)
        self._halted: Exception | None = None
        self.steps: dict[str, StepRecord] = {}

    def make(self, call: Call) -> Made:
        """Make a call, or take its result from before.

        Raises:
            AgentFailure: a provider's limit or credentials stop the whole run; nothing more is started.
            AnswerNeeded: it was cut before, and a person has to say whether it is made again.
            Interrupted: the goal was asked to pause or stop.
        """
        key = call.key
        with self.alone(call.files, call.poll) if call.writes else nullcontext():
            known, why = self._known(call, key)
            if known is not None:
                return known
            no = self._refused(call, key)
            if no is not None:
                return Made(no)
            return self._turned(call, key, why)

    def _turned(self, call: Call, key: str, why: str) -> Made:
        with self._lock:
            number = self._numbers[key] = self._numbers.get(key, 0) + 1
        with self._turn(call):
            begun = CallStarted(
                turn=self.task.turn,
                path=call.path,
                key=key,
                number=number,
                agent=call.agent.name,
                spends=not call.command,
                asks=not call.cache,
            )
            return self._made(call, begun, why)

    def alone(self, files: Files, poll: Callable[[], None]) -> AbstractContextManager[None]:
        """Have files for oneself; see ``Turns.alone``."""
        return self._turns.alone(files, both(self.check, poll))

    def knows(self, call: Call) -> bool:
        """Whether its result, or an equal one, is there from before."""
        with self._lock:
            return call.cache and bool(self._left.get(call.key))

    def settle(self, path: str, made: Made) -> None:
        """Record what became of a step, of an item or of a member."""
        if not made.settled:
            self.note(self._over_with(path, made))

    def _over_with(self, path: str, made: Made) -> StepSettled:
        result, why, kept, _ = made
        if not kept[0] and result.status != "skipped":
            kept = self._put(f"{path}/settled", result)
        step = StepRecord(
            status=result.status,
            reason=result.reason,
            attempts=result.attempts,
            cached=result.cached,
            why=why,
            seconds=result.seconds,
            winner=result.winner,
            kept=kept[0],
            digest=kept[1],
        )
        with self._lock:
            if len(self.steps) < MAX_STEPS:
                # The turn's record tells of the words, and does not hold them.
                self.steps[path] = step if step.digest else step.but(kept="")
        return StepSettled(turn=self.task.turn, path=path, step=step)

    def on_process(self, role: Literal["worker", "check", "judge"], process: ProcessIdentity) -> None:
        """Record a process."""
        self.note(ProcessStarted(role=role, process=process))

    def check(self) -> None:
        """Raise what stops the run, if something does."""
        self.ports.poll()
        if self._halted is not None:
            raise self._halted

    def halt(self, reason: Exception) -> None:
        """Start nothing more."""
        with self._lock:
            self._halted = self._halted or reason

    def over(self, budgets: Iterable[tuple[str, FlowBudget]]) -> str:
        """Why a budget of a flow, whose calls have this in front of their paths, is used up; "" while none is."""
        return next((why for path, budget in budgets if (why := self._over(path, budget))), "")

    def _over(self, path: str, budget: FlowBudget) -> str:
        if budget.usd is None and budget.tokens is None:
            return ""
        # A run that is resumed has spent before; a turn of a goal begins anew.
        spent = self.state.usage if self.state.spec.alone and not path else NOTHING_SPENT
        with self._lock:
            for whose, usage in self._bills:
                spent = spent.plus(usage) if whose.startswith(path) else spent
        if budget.usd is not None and (spent.usd is None or spent.usd > budget.usd):
            known = spent.usd is not None
            return f"the flow's budget of {budget.usd} USD is used up" if known else "its cost is unknown"
        if budget.tokens is not None and (spent.total_tokens is None or spent.total_tokens > budget.tokens):
            known = spent.total_tokens is not None
            return f"the flow's budget of {budget.tokens} tokens is used up" if known else "its tokens are unknown"
        return ""

    def _known(self, call: Call, key: str) -> tuple[Made | None, str]:
        # Calls with equal keys are interchangeable: any that is left will do.
        with self._lock:
            left = self._left.get(key)
            if not left:
                return None, ""
            record = self.state.flow.calls[f"{key}:{left.pop(0)}"]
        # All turns of a run of a flow are that run, resumed.
        if not call.cache and record.turn != self.task.turn and not self.state.spec.alone:
            return None, "it is done anew in every turn (cache = false)"
        kept = self.ports.shelf.get(record.kept, record.digest)
        if kept is None:
            return None, "what it said is gone"
        if call.writes and record.before != record.after and not call.files.bring(record.before, record.after):
            return None, "its files do not fit what is there now"
        return Made(kept.but(cached=True, attempts=0), "", (record.kept, record.digest)), ""

    def _refused(self, call: Call, key: str) -> Result | None:
        """What a person's no makes of a call that was cut; None where it may be made. Each cut has its own answer."""
        answers = self.state.flow.answers
        cut = () if call.cache else (name for name in self.state.flow.begun if name.startswith(f"{key}:"))
        for name in cut:
            question = f"{call.path} was cut in the middle and must not be repeated by itself: run it again?"
            if name not in answers:
                raise AnswerNeeded(question, name)
            no = refused(answers[name], question)
            if no is not None:
                return no
        return None

    @contextmanager
    def _turn(self, call: Call) -> Iterator[None]:
        """A place among the calls that run at once, here and, for agents, on this machine."""
        poll = both(self.check, call.poll)
        while not self._room.acquire(timeout=TICK_SECONDS):
            poll()
        try:
            poll()
            with nullcontext() if call.command else self.ports.slots(poll):
                self._within(call)
                self._count(call)
                yield
        finally:
            self._room.release()

    @property
    def _usage(self) -> Usage:
        """What the goal has spent by now."""
        seconds = self.state.usage.seconds + self.ports.clock.monotonic() - self._begun
        with self._lock:
            return self.state.usage.plus(self.spent).but(seconds=seconds)

    def _within(self, call: Call) -> None:
        """Start nothing, but commands that spend nothing, once a limit of the goal's is reached."""
        usage = self._usage
        if call.command:
            usage = NOTHING_SPENT.but(seconds=usage.seconds)
        stop = budget_stop(self.state, usage)
        if stop is not None:
            raise LimitReached(stop)

    def _count(self, call: Call) -> None:
        if call.command:
            return
        with self._lock:
            self._agents += 1
            if self._agents > self._most:
                raise AgentFailure(
                    f"{call.path}: {self._most} calls of agents are the most in one run of this flow",
                    hint="raise max_calls in its file, then goalrun resume --flow",
                    kind="refused",
                    usage=NOTHING_SPENT,
                )

    def _made(self, call: Call, begun: CallStarted, why: str) -> Made:
        before = call.files.snapshot().tree if call.writes else ""
        place = f"flow-{self.task.attempt}/{folder_of(call.path)}-{begun.key[:8]}-{begun.number}"
        # What it waits for is its own record: it has not begun before.
        unsaid: list[Event] = [begun]
        ended: Interrupted | None = None

        def on_process(role: Literal["worker", "check", "judge"], process: ProcessIdentity) -> None:
            self.note(*unsaid, ProcessStarted(role=role, process=process))
            unsaid.clear()

        try:
            report = self._asked(call, place, on_process)
        except AgentFailure as failure:
            report = WorkerReport(outcome="failed", reason=str(failure), usage=failure.usage)
            if failure.kind != "failed":
                # What it spent is in this call's record.
                self.halt(AgentFailure(str(failure), kind=failure.kind, usage=NOTHING_SPENT, reset=failure.reset))
        except Interrupted as asked:
            # The goal's own pause cuts the turn; a call that was ended for a reason of its own is over, and was paid.
            if not isinstance(asked, Cancelled):
                self.ports.poll()
            report, ended = WorkerReport(outcome="failed", reason=str(asked)), asked
        made = self._finished(call, begun, report, (place, before), unsaid, why)
        if isinstance(ended, Cancelled):
            raise ended
        self.check()
        if report.outcome == "timeout":
            self._within(call)
        return made

    def _finished(
        self,
        call: Call,
        begun: CallStarted,
        report: WorkerReport,
        at: tuple[str, str],
        unsaid: Sequence[Event],
        why: str = "",
    ) -> Made:
        """Record what came of a call, after what is not recorded yet.

        Args:
            call: that is over.
            begun: the record of its beginning.
            report: of its worker.
            at: the place of its words, and the tree that it began with.
            unsaid: goes in front.
            why: it was not taken from before.
        """
        place, before = at
        result = result_of(call, report)
        result = call.judge(result) if result.ok else result
        after = call.files.snapshot().tree if call.writes else ""
        usage = NOTHING_SPENT if call.command else report.usage
        cost = {} if usage is None else {"usd": usage.usd, "tokens": usage.total_tokens}
        result = result.but(before=before, after=after, **cost)
        kept, digest = self._put(place, result)
        with self._lock:
            self.spent = self.spent.plus(usage or Usage())
            if not call.command:
                self._bills.append((call.path, usage or Usage()))
        record = self._record(result, usage, kept, digest)
        over = CallFinished(turn=begun.turn, path=begun.path, key=begun.key, number=begun.number, call=record)
        made = Made(result, why, (kept, digest), settled=call.settles)
        self.note(*unsaid, over, *([self._over_with(call.path, made)] if call.settles else []))
        return made

    def _record(self, result: Result, usage: Usage | None, kept: str, digest: str) -> CallRecord:
        return CallRecord(
            status=result.status,
            reason=result.reason,
            seconds=result.seconds,
            agent=result.agent,
            model=result.model,
            before=result.before,
            after=result.after,
            usage=usage,
            turn=self.task.turn,
            kept=kept,
            digest=digest,
        )

    def _asked(self, call: Call, place: str, on_process: OnProcess) -> WorkerReport:
        """The report of the first agent of the chain that does it."""
        failures: list[AgentFailure] = []
        # Nobody is asked again while a provider's limit stands.
        able = [agent for agent in call.agent.chain if agent.name not in self._limited] or [call.agent]
        for number, agent in enumerate(able):
            own = place if number == 0 else f"{place}-{number}"
            worker = self.ports.hire(agent, call.files.folder, writes=call.writes, poll=call.poll)
            task = self.task._replace(
                prompt=call.prompt,
                timeout=min(call.timeout, turn_time(self.state.spec.limits, self._usage)),
                session=None,
                place=own,
                chars=TEXT_CHARS,
                env=call.env,
                idle=call.idle,
            )
            try:
                report = worker.run(task, on_process)
            except AgentFailure as failure:
                failures.append(failure)
                if failure.kind == "limited":
                    self._limited.add(agent.name)
            else:
                return report.but(usage=_all(failures, report.usage))
        worst = next((failure for failure in failures if failure.kind != "failed"), failures[0])
        worst.usage = _all([failure for failure in failures if failure is not worst], worst.usage)
        raise worst

    def _put(self, place: str, result: Result) -> tuple[str, str]:
        return self.ports.shelf.put(f"turns/turn-{self.task.turn}/{place}", result)


def _by_key(names: Iterable[str]) -> dict[str, list[int]]:
    """The numbers of each key, in order, out of names like ``KEY:NUMBER``."""
    found: dict[str, list[int]] = {}
    for name in names:
        key, _, number = name.rpartition(":")
        found.setdefault(key, []).append(int(number))
    return {key: sorted(numbers) for key, numbers in found.items()}


def _all(failures: Iterable[AgentFailure], last: Usage | None) -> Usage | None:
    """What a chain of agents spent together; None is unknown."""
    for failure in failures:
        last = (failure.usage or Usage()).plus(last or Usage())
    return last
