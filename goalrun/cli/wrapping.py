"""Flows at work: run one, put a goal around one, answer one that waits."""

from collections.abc import Mapping
from typing import Any

from goalrun.adapters.journal import replay
from goalrun.adapters.shelf import FileShelf
from goalrun.adapters.views import JOURNAL, read_result
from goalrun.cli.flow_spec import FlowAsked
from goalrun.cli.flows import proven_flow
from goalrun.cli.reading import find
from goalrun.cli.render import note, out, print_json
from goalrun.cli.running import Asked, How, resume, start
from goalrun.core.events import Answered
from goalrun.core.model import GoalState, State, StepRecord
from goalrun.errors import SpecError, WorkspaceBusy
from goalrun.wiring import Session, note_idle, open_session


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
        raise SpecError(f"{goal} waits for no answer; it is {read_result(session.home.folder(goal))['state']}")
    if not text.strip():
        raise SpecError("the answer is empty", hint=f"it asks: {state.detail}")
    if note_idle(session, goal, Answered(key=state.flow.question, text=text)) is None:
        raise WorkspaceBusy(f"{goal} is running already", hint=f"goalrun status {goal}")
    return resume(goal, {}, how)


def flow_result(session: Session, goal: str) -> dict[str, Any]:
    """What ``flow run --json`` prints."""
    folder = session.home.folder(goal)
    state = replay(folder / JOURNAL)
    shown = read_result(folder)
    shelf = FileShelf(folder)
    output = state.turns[-1].outcome.worker.text if state.turns else ""
    steps = {path: _step(record, shelf) for path, record in state.flow.steps.items()}
    return {
        "schema": 1,
        "id": goal,
        "state": shown["state"],
        "detail": shown["detail"],
        "flow": state.spec.flow.flow.name if state.spec.flow is not None else None,
        "workspace": shown["workspace"],
        "output": output,
        "json": _final(state, shelf),
        "usage": shown["usage"],
        "pid": shown["pid"],
        "steps": _nested(steps),
    }


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
    for path, step in steps.items():
        owner = path.partition("/")[0].partition("[")[0]
        if path not in top and owner in top:
            top[owner]["members"].append({"id": path.removeprefix(owner).lstrip("/"), **step})
    return top


def _final(state: GoalState, shelf: FileShelf) -> Any:  # noqa: ANN401 - whatever the flow's JSON is
    from goalrun.core.flow.plan import final_step

    if state.spec.flow is None:
        return None
    record = state.flow.steps.get(final_step(state.spec.flow.flow).id)
    kept = shelf.get(record.kept, record.digest) if record is not None and record.kept else None
    return kept.json_ if kept is not None else None


def print_flow(session: Session, goal: str, *, as_json: bool) -> None:
    """The result of a run of a flow: its output alone on standard output, what became of its steps beside it."""
    result = flow_result(session, goal)
    if as_json:
        print_json(result)
        return
    for name, step in result["steps"].items():
        again = " (reused)" if step["cached"] else ""
        note(f"  {step['status']:<8} {name}{again}" + (f"  {step['reason']}" if step["reason"] else ""))
    note(f"{result['state']}  {goal}" + (f"  {result['detail']}" if result["detail"] else ""))
    if result["output"]:
        out(result["output"])
