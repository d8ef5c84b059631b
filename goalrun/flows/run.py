"""A flow from its first step to its end: a step starts as soon as what it needs is settled."""

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from goalrun.core.flow.model import Result, Step
from goalrun.core.flow.moves import ending, moves
from goalrun.core.flow.plan import edges, final_step
from goalrun.core.flow.when import parse
from goalrun.core.ports import AnswerNeeded
from goalrun.flows.calls import Calls
from goalrun.flows.scope import Scope
from goalrun.flows.steps import Steps

CONTAINERS = frozenset({"flow", "python", "member"})
"""Kinds of steps that wait for calls, and so take no room of their own."""


class FlowRun:
    """Runs one flow, in the goal's process."""

    def __init__(self, scope: Scope, steps: Steps, calls: Calls) -> None:
        self._scope = scope
        self._steps = steps
        self._calls = calls
        self._running: dict[Future[Result], Step] = {}
        self._failure: Exception | None = None
        self._question: AnswerNeeded | None = None
        self._needs = {step.id: edges(step) for step in scope.flow.steps}
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
                while self._move(pool):
                    pass
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
        return result

    def _move(self, pool: ThreadPoolExecutor) -> bool:
        """Start and skip what can be; whether a step was skipped, so that others may move."""
        scope, blocked = self._scope, self._blocked()
        over = "" if blocked else self._calls.over(scope.budgets)
        if self._failure is not None:
            return False
        running = {step.id for step in self._running.values()}
        skipped = False
        for move in moves(scope.flow, self._needs, scope.settled, running, blocked or over, self._holds):
            if move.skip:
                self._left_out = self._left_out or over
                scope.settled[move.step.id] = Result(status="skipped", reason=move.skip)
                self._calls.settle(scope.path + move.step.id, scope.settled[move.step.id])
                skipped = True
            elif self._has_room(move.step):
                self._running[pool.submit(self._steps.do, scope, move.step)] = move.step
        return skipped

    def _has_room(self, step: Step) -> bool:
        leaves = sum(each.kind not in CONTAINERS and each.each is None for each in self._running.values())
        return step.kind in CONTAINERS or step.each is not None or leaves < self._scope.flow.concurrency

    def _blocked(self) -> str:
        blocked = next((name for name, result in self._scope.settled.items() if result.status == "blocked"), None)
        return f"{blocked} blocked the flow" if blocked is not None else ""

    def _holds(self, step: Step) -> bool:
        # A guard is looked at when its step could start.
        return (
            not step.when
            or not self._has_room(step)
            or parse(step.when).holds(lambda ref: self._scope.value(step, ref))
        )

    def _settle(self, step: Step, future: "Future[Result]") -> None:
        try:
            self._scope.settled[step.id] = future.result()
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
        for step in self._scope.flow.steps:
            settled.setdefault(step.id, Result(status="waiting", reason=str(self._question or "")))
            if self._left_out and settled[step.id].reason == self._left_out:
                # Only where something was in fact left out.
                settled[step.id] = Result(status="blocked", reason=self._left_out, by="budget")
        return settled
