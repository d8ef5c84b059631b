"""A flow from its first step to its end: a step starts as soon as what it needs is settled."""

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from heapq import heappop, heappush

from goalrun.core.flow.model import Result, Step
from goalrun.core.flow.moves import ending, joined, with_finally
from goalrun.core.flow.plan import edges, final_step
from goalrun.core.flow.when import parse
from goalrun.core.ports import AnswerNeeded
from goalrun.flows.call import Made
from goalrun.flows.calls import Calls
from goalrun.flows.scope import Scope
from goalrun.flows.steps import Steps

CONTAINERS = frozenset({"flow", "python", "member"})
"""Kinds of steps that wait for calls, and so take no room of their own."""


class FlowRun:
    """Runs one flow, in the goal's process.

    What moves a step is that one which it needs is settled: only then it is looked at again.
    """

    def __init__(self, scope: Scope, steps: Steps, calls: Calls) -> None:
        self._scope = scope
        self._steps = steps
        self._calls = calls
        self._running: dict[Future[Result], Step] = {}
        self._failure: Exception | None = None
        self._question: AnswerNeeded | None = None
        self._every = every = scope.flow.main
        self._needs = {step.id: edges(step) for step in every}
        self._numbers = {step.id: number for number, step in enumerate(every)}
        self._of_calls = {step.id for step in every if step.kind not in CONTAINERS and step.each is None}
        self._behind: dict[str, list[Step]] = {step.id: [] for step in every}
        for step in every:
            for need in self._needs[step.id]:
                self._behind[need].append(step)
        self._left = {step.id: step for step in every}
        self._look = list(every)
        self._ready: tuple[list[int], list[int]] = ([], [])
        self._leaves = 0
        self._blocked = ""
        self._left_out = ""

    def run(self) -> Result:
        """What becomes of it.

        Raises:
            AnswerNeeded: a person has to answer before it can end.
            GoalrunError: what stopped the run as a whole, once nothing of it runs any more.
        """
        scope = self._scope
        with ThreadPoolExecutor(max_workers=len(scope.flow.steps)) as pool:
            while True:
                self._move(pool)
                if not self._running:
                    break
                over, _ = wait(self._running, return_when=FIRST_COMPLETED)
                for future in over:
                    self._settle(self._running.pop(future), future)
        if self._failure is not None:
            raise self._failure
        result = ending(scope.flow, final_step(scope.flow), self._whole())
        if result.status == "waiting" and self._question is not None:
            raise self._question
        last = [step for step in scope.flow.steps if step.finally_]
        for step in last:
            scope.settled[step.id] = self._steps.do(scope, step)
        return with_finally(result, {step.id: scope.settled[step.id] for step in last})

    def _move(self, pool: ThreadPoolExecutor) -> None:
        """Start and skip what can be, until nothing more moves."""
        while self._failure is None and (move := self._next()) is not None:
            step, skip = move
            del self._left[step.id]
            if skip:
                self._settled(step, Result(status="skipped", reason=skip))
                self._calls.settle(self._scope.path + step.id, Made(self._scope.settled[step.id]))
            else:
                self._leaves += step.id in self._of_calls
                self._running[pool.submit(self._steps.do, self._scope, step)] = step

    def _next(self) -> tuple[Step, str] | None:
        """A step that moves now, and why it is skipped; "" where it starts."""
        over = "" if self._blocked else self._calls.over(self._scope.budgets)
        if self._blocked or over:
            first = next(iter(self._left.values()), None)
            self._left_out = self._left_out or (over if first is not None else "")
            return None if first is None else (first, self._blocked or over)
        while self._look:
            step = self._look.pop()
            state, why = joined(self._scope.flow, step, self._needs[step.id], self._scope.settled)
            if state == "skip" and step.id in self._left:
                return step, why
            if state == "go":
                heappush(self._ready[step.id in self._of_calls], self._numbers[step.id])
        # A guard is looked at when its step could start.
        for ready in self._ready if self._leaves < self._scope.flow.concurrency else self._ready[:1]:
            while ready:
                step = self._every[heappop(ready)]
                if step.id in self._left:
                    return step, "" if self._holds(step) else f"its guard does not hold: {step.when}"
        return None

    def _holds(self, step: Step) -> bool:
        return not step.when or parse(step.when).holds(lambda ref: self._scope.value(step, ref))

    def _settled(self, step: Step, result: Result) -> None:
        """Keep what became of a step, and look at those that may move by it."""
        self._scope.settled[step.id] = result
        self._look += self._behind[step.id]
        if result.status == "blocked":
            self._blocked = self._blocked or f"{step.id} blocked the flow"

    def _settle(self, step: Step, future: "Future[Result]") -> None:
        self._leaves -= step.id in self._of_calls
        try:
            self._settled(step, future.result())
        except AnswerNeeded as question:
            # The others go on; what needs the answer does not.
            self._question = self._question or question
            self._scope.settled[step.id] = Result(status="waiting", reason=str(question))
        except Exception as failure:  # noqa: BLE001 - raised again once nothing runs any more
            self._failure = self._failure or failure
            self._calls.halt(failure)

    def _whole(self) -> dict[str, Result]:
        """What became of each step; one that could not move waits for a person, as another one does."""
        settled = dict(self._scope.settled)
        for step in self._scope.flow.main:
            settled.setdefault(step.id, Result(status="waiting", reason=str(self._question or "")))
            if self._left_out and settled[step.id].reason == self._left_out:
                # Only where something was in fact left out.
                settled[step.id] = Result(status="blocked", reason=self._left_out, by="budget")
        return settled
