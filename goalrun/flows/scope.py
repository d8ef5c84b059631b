"""What the placeholders of a step's texts stand for."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import NamedTuple

from goalrun.core.flow.loose import find_json
from goalrun.core.flow.model import Flow, FlowBudget, Result, Step
from goalrun.core.flow.plan import edges, roots
from goalrun.core.flow.refs import PLACEHOLDER, Ref, field, fill
from goalrun.core.model import GoalState
from goalrun.core.prompt import worker_prompt
from goalrun.core.spec import Limits
from goalrun.core.value import Json
from goalrun.flows.ports import Files


class Scope(NamedTuple):
    """A flow while it runs.

    Attributes:
        args: with defaults.
        settled: what became of its steps so far; grows.
        tree: what stands for the files at its beginning.
        flows: those that its steps may name.
        path: in front of the names of its steps, where it is a step itself.
        budgets: its own and those around it, each with what is in front of the paths that it is for.
    """

    flow: Flow
    args: Mapping[str, Json]
    settled: dict[str, Result]
    state: GoalState
    files: Files
    tree: str
    flows: Mapping[str, Flow] = {}
    path: str = ""
    budgets: tuple[tuple[str, FlowBudget], ...] = ()

    def filled(self, step: Step, text: str, item: Json = None, extra: Mapping[str, Json] | None = None) -> str:
        """A text of a step with its placeholders replaced."""
        return fill(text, lambda ref: self.value(step, ref, item, extra), roots(step))

    def deep(self, step: Step, value: Json, item: Json = None) -> Json:
        """The same for every text in a value; a text that is one placeholder becomes what that stands for."""
        if isinstance(value, str):
            whole = PLACEHOLDER.fullmatch(value)
            ref = tuple(whole[1].split(".")) if whole else ()
            if ref and ref[0] in roots(step):
                return self.value(step, ref, item)
            return self.filled(step, value, item)
        if isinstance(value, dict):
            return {key: self.deep(step, below, item) for key, below in value.items()}
        return [self.deep(step, below, item) for below in value] if isinstance(value, list) else value

    def value(self, step: Step, ref: Ref, item: Json = None, extra: Mapping[str, Json] | None = None) -> Json:
        """What a placeholder stands for; null where there is nothing."""
        root, rest = ref[0], ref[1:]
        if extra is not None and ".".join(ref) in extra:
            return extra[".".join(ref)]
        if step.each is not None and root == step.as_:
            return field(item, rest)
        needs = self._needs(step) if root in {"needs", "previous"} else []
        # What is needed by name comes before what is only referred to.
        last = [name for name, _ in needs if name in step.needs or not step.needs][-1:]
        values: dict[str, Callable[[], Json]] = {
            "args": lambda: field(dict(self.args), rest),
            "steps": lambda: self._of_step(rest),
            "needs": lambda: "\n\n".join(text for _, text in needs),
            "previous": lambda: self._of_step((*last, *(rest or ("output",)))) if last else None,
            "goal": lambda: goal_prompt(self.state) if rest == ("prompt",) else field(self._goal(), rest),
        }
        return values[root]() if root in values else None

    def _of_step(self, rest: Ref) -> Json:
        result = self.settled.get(rest[0]) if rest else None
        if result is None or len(rest) == 1:
            return None
        values: dict[str, Callable[[], Json]] = {
            "output": lambda: result.text if result.ok else None,
            "json": lambda: field(json_of(result), rest[2:]) if result.ok else None,
            "diff": lambda: self.files.diff(result.before, result.after) if result.before != result.after else "",
            "status": lambda: result.status,
            "reason": lambda: result.reason,
        }
        return values[rest[1]]() if rest[1] in values else None

    def _needs(self, step: Step) -> list[tuple[str, str]]:
        """The outputs of what the step needs and is done, in order, under their names where there are several."""
        over = [(name, self.settled[name]) for name in edges(step) if name in self.settled]
        done = [(name, result) for name, result in over if result.ok]
        if len(done) == 1:
            return [(done[0][0], done[0][1].text)]
        return [(name, f"### {name}\n\n{result.text}") for name, result in done]

    def _goal(self) -> dict[str, Json]:
        state = self.state
        return {
            "objective": state.spec.objective,
            "feedback": state.feedback,
            "turn": len(state.turns) + 1,
            "hints": "\n".join(state.hints),
        }


def goal_prompt(state: GoalState) -> str:
    """What a goal's worker is told: the same again when a turn that was cut is taken up, so that calls are recognised.

    So it leaves out what remains of limits, and the fence of its data is made of the text itself.
    """
    asked = state.spec.limits
    limits = Limits(max_turns=asked.max_turns, turn_timeout=asked.turn_timeout)
    spec = state.spec.but(limits=limits)
    still = state.but(spec=spec, open=None)
    return worker_prompt(still, fence_token(worker_prompt(still, "")))


def fence_token(text: str) -> str:
    """What marks the end of a text that is data: nothing inside of it can name its own digest."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def json_of(result: Result) -> Json:
    """The JSON that a result holds, or that is in its text; null where there is none."""
    if result.json_ is not None:
        return result.json_
    try:
        return find_json(result.text)
    except ValueError:
        return None
