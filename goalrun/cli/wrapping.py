"""Flows at work: run one, put a goal around one, answer one that waits."""

import re
from collections.abc import Mapping
from typing import Any

from goalrun.adapters.journal import replay
from goalrun.adapters.shelf import FileShelf
from goalrun.adapters.views import JOURNAL, read_result
from goalrun.cli.flow_spec import FlowAsked, flow_again
from goalrun.cli.flows import proven_flow
from goalrun.cli.reading import find
from goalrun.cli.render import counted, note, out, print_json
from goalrun.cli.running import How, resume
from goalrun.cli.starting import Asked, start
from goalrun.core.events import Answered, FlowReplaced
from goalrun.core.flow.model import Result
from goalrun.core.flow.moves import ending
from goalrun.core.flow.plan import final_step
from goalrun.core.model import GoalState, State, StepRecord
from goalrun.core.result import counts
from goalrun.errors import SpecError, WorkspaceBusy
from goalrun.wiring.goals import note_idle
from goalrun.wiring.session import Session, open_session

ITEM = re.compile(r"[^/\[]+\[(\d{1,9})\]")


def run_flow(name: str, words: tuple[str, ...], asked: Asked) -> int:
    """Run a flow for its own sake."""
    flow = proven_flow(name)
    objective = flow.description.strip() or f"flow {flow.name}"
    return start(asked._replace(objective=objective, flow=FlowAsked(flow, words, alone=True)))


def wrap(name: str, words: tuple[str, ...], asked: Asked) -> int:
    """Put a goal around a flow."""
    return start(asked._replace(flow=FlowAsked(proven_flow(name), words, alone=False)))


def answer(name: str, text: str, how: How) -> int:
    """Answer what a goal waits for, and go on with it."""
    session = open_session()
    goal = find(session.home, name)
    state = replay(session.home.folder(goal) / JOURNAL)
    if state.status is not State.WAITING or not state.flow.question:
        now = read_result(session.home.folder(goal))["state"]
        raise SpecError(f"{goal} waits for no answer; it is {now}", hint=f"goalrun status {goal}")
    if not text.strip():
        raise SpecError("the answer is empty", hint=f"it asks: {state.detail}")
    if note_idle(session, goal, Answered(key=state.flow.question, text=text)) is None:
        raise WorkspaceBusy(f"{goal} is running already", hint=f"goalrun status {goal}")
    return resume(goal, {}, how)


def read_again(name: str) -> None:
    """Take a goal's flow from its file again, as it is now; what is the same in it is not paid for again."""
    session = open_session()
    goal = find(session.home, name)
    state = replay(session.home.folder(goal) / JOURNAL)
    if state.spec.flow is None or not state.spec.flow.flow.source:
        raise SpecError(f"{goal} has no flow from a file", hint=f"goalrun resume {goal}")
    use = flow_again(state.spec, session)
    if note_idle(session, goal, FlowReplaced(flow=use)) is None:
        raise WorkspaceBusy(f"{goal} is running", hint=f"goalrun pause {goal} first")


def shown(session: Session, goal: str) -> dict[str, Any]:
    """What ``--json`` prints of a goal, or of a run of a flow."""
    result = flow_result(session, goal)
    return result if goal.startswith("f-") else read_result(session.home.folder(goal))


def flow_result(session: Session, goal: str) -> dict[str, Any]:
    """What ``flow run --json`` prints."""
    folder = session.home.folder(goal)
    state = replay(folder / JOURNAL)
    shown = read_result(folder)
    shelf = FileShelf(folder)
    ended = _output(state, shelf)
    steps = _steps(state)
    return {
        "schema": 1,
        "id": goal,
        "state": shown["state"],
        "detail": shown["detail"],
        "flow": state.spec.flow.flow.name if state.spec.flow is not None else None,
        "workspace": shown["workspace"],
        "output": ended.text,
        "json": ended.json_,
        "source": ended.source or None,
        "usage": shown["usage"],
        "pid": shown["pid"],
        "counts": counts(steps),
        "steps": _nested({path: _step(record, shelf) for path, record in steps.items()}),
    }


def _steps(state: GoalState) -> dict[str, StepRecord]:
    """What became of the steps; while a person has to answer, those without an end wait with the one that asks."""
    if state.status is not State.WAITING or state.spec.flow is None:
        return dict(state.flow.steps)
    waiting = StepRecord(status="waiting", reason=state.detail)
    return {**{step.id: waiting for step in state.spec.flow.flow.steps}, **state.flow.steps}


def _step(record: StepRecord, shelf: FileShelf) -> dict[str, Any]:
    kept = shelf.get(record.kept, record.digest) if record.kept else None
    return {
        "status": record.status,
        "reason": record.reason,
        "attempts": record.attempts,
        "cached": record.cached,
        **({"why": record.why} if record.why else {}),
        "text": kept.text if kept is not None else "",
        "json": kept.json_ if kept is not None else None,
        "seconds": round(record.seconds, 3),
        **({"winner": record.winner} if record.winner else {}),
        "members": [],
    }


def _nested(steps: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Steps by id; items and members below the step that they are of."""
    top = {path: step for path, step in steps.items() if "/" not in path and "[" not in path}
    # Items in their own order, whichever was faster.
    for path, step in sorted(steps.items(), key=lambda each: _number(each[0])):
        owner = path.partition("/")[0].partition("[")[0]
        if path not in top and owner in top:
            top[owner]["members"].append({"id": path.removeprefix(owner).lstrip("/"), **step})
    return top


def _number(path: str) -> int:
    """Which item of a step it is; 0 for what is none."""
    found = ITEM.match(path)
    return int(found[1]) if found else 0


def _output(state: GoalState, shelf: FileShelf) -> Result:
    """What a run that is over says, whole: the journal holds only the end of it."""
    text = state.turns[-1].outcome.worker.text if state.turns else ""
    if state.spec.flow is None or state.status not in {State.DONE, State.FAILED}:
        return Result(status="skipped", text=text)
    flow = state.spec.flow.flow
    settled = {}
    for step in flow.steps:
        record = state.flow.steps.get(step.id, StepRecord(status="skipped"))
        kept = shelf.get(record.kept, record.digest) if record.kept else None
        said = dict(kept) if kept is not None else {}
        settled[step.id] = Result(**{**said, "status": record.status, "reason": record.reason})
    whole = ending(flow, final_step(flow), settled)
    return whole.but(text=whole.text or text)


def print_flow(session: Session, goal: str, *, as_json: bool) -> None:
    """The result of a run of a flow: its output alone on standard output, what became of its steps beside it."""
    result = flow_result(session, goal)
    if as_json:
        print_json(result)
        return
    for name, step in result["steps"].items():
        again = " (reused)" if step["cached"] else ""
        note(f"  {step['status']:<8} {name}{again}" + (f"  {step['reason']}" if step["reason"] else ""))
    for line in counted(result):
        note(line)
    note(f"{result['state']}  {goal}" + (f"  {result['detail']}" if result["detail"] else ""))
    if result["output"]:
        out(result["output"])
