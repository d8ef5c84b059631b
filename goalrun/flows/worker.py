"""A flow as a goal's worker."""

from goalrun.core.evidence import bounded
from goalrun.core.flow.args import complete
from goalrun.core.flow.keys import tree_after
from goalrun.core.flow.model import Flow, Result
from goalrun.core.model import NOTHING_SPENT, GoalState, Session, Usage, WorkerReport, total
from goalrun.core.ports import WORKER_TEXT_CHARS, AgentFailure, OnProcess, Task
from goalrun.core.spec import FlowUse
from goalrun.errors import SpecError
from goalrun.flows.call import Made
from goalrun.flows.calls import Calls
from goalrun.flows.groups import run_group
from goalrun.flows.ports import FlowPorts
from goalrun.flows.python import FunctionRun
from goalrun.flows.run import FlowRun
from goalrun.flows.scope import Scope
from goalrun.flows.steps import Doing, Steps


class FlowWorker:
    """Runs a flow, turn after turn; steps of which nothing changed are not paid for again."""

    def __init__(self, use: FlowUse, ports: FlowPorts) -> None:
        self.name = use.flow.name
        self._use = use
        self._ports = ports

    def run(self, task: Task, on_process: OnProcess) -> WorkerReport:  # noqa: ARG002 - its calls record their own
        """Run one turn; see ``core.ports.Worker``."""
        begun = self._ports.clock.monotonic()
        calls = Calls(task, self._ports, self._use.flow)
        steps = Steps(
            calls,
            self._use.agents,
            lambda doing: _sub_flow(doing, steps),
            lambda doing: FunctionRun(doing, steps).run(),
            run_group,
        )
        scope = Scope(
            flow=self._use.flow,
            args=self._use.args,
            settled={},
            state=calls.state,
            files=self._ports.desk.workspace(),
            tree=_first_tree(calls.state),
            flows=self._use.flow.flows,
            budgets=(("", self._use.flow.budget),),
        )
        try:
            result = FlowRun(scope, steps, calls).run()
        except AgentFailure as failure:
            # What it spent is in the record of its call.
            failure.usage = NOTHING_SPENT
            raise
        seconds = self._ports.clock.monotonic() - begun
        return _report(result, calls, seconds, self._use.flow)

    def cut(self, turn: int, attempt: int, before: Session | None) -> tuple[Usage | None, Session | None]:
        """What became of its calls is in the journal, each by itself."""
        raise AssertionError(f"a flow, cut in turn {turn}.{attempt}, is asked for what {before} has spent")

    def try_out(self, command: str, turn: int, on_process: OnProcess) -> bool:
        """A flow never asks to wait for a command."""
        raise AssertionError(f"turn {turn} of a flow waits for {command}, {on_process}")


def _sub_flow(doing: Doing, steps: Steps) -> Made:
    """A flow as a step of another one."""
    scope, step = doing.scope, doing.step
    flow = scope.flows[step.flow or ""]
    deep = {name: scope.deep(step, value, doing.item) for name, value in step.with_.items()}
    try:
        args = complete(step.with_ if doing.literal else deep, flow.args)
    except SpecError as failure:
        if doing.literal:
            # A function is told at once, as of any other call that makes no sense.
            raise
        return Made(Result(status="failed", reason=f"flow {flow.name!r}: {failure}"))
    inner = Scope(
        flow=flow,
        args=args,
        settled={},
        state=scope.state,
        files=scope.files,
        tree=tree_after(scope.tree, [("", "", steps.tree_before(doing))]),
        flows={**scope.flows, **flow.flows},
        path=f"{doing.path}/",
        budgets=(*scope.budgets, (f"{doing.path}/", flow.budget)),
    )
    result = FlowRun(inner, steps, steps.calls).run()
    parts = tuple(part for part in inner.settled.values() if part.attempts or part.cached)
    return Made(
        result.but(
            attempts=sum(part.attempts for part in parts),
            cached=bool(parts) and all(part.cached for part in parts),
            seconds=sum(part.seconds for part in parts),
            usd=total(part.usd for part in parts),
            members=parts,
        )
    )


def _first_tree(state: GoalState) -> str:
    """The files that the turn began with; of a run of a flow, those that the run began with."""
    first = state.turns[-1].outcome.snapshot if state.turns and not state.spec.alone else state.base
    return first.tree if first is not None else ""


def _report(result: Result, calls: Calls, seconds: float, flow: Flow) -> WorkerReport:
    alone = calls.state.spec.alone
    stopped = result.status == "blocked" and (result.by in {"person", "worker"} or alone)
    # Where a step failed, nobody knows what a gate would have said.
    vetoed = result.status == "blocked" or (result.status == "failed" and _gated(flow))
    return WorkerReport(
        outcome="ok" if result.status == "done" else "blocked" if stopped else "failed",
        seconds=seconds,
        usage=calls.spent,
        counted=True,
        text=bounded(result.text, WORKER_TEXT_CHARS),
        reason=result.reason,
        vetoed=result.reason if vetoed and not stopped and not alone else "",
        agent=flow.name,
        steps=calls.steps,
        source=result.source,
    )


def _gated(flow: Flow) -> bool:
    return any(step.gate for step in flow.steps) or any(_gated(inner) for inner in flow.flows.values())
