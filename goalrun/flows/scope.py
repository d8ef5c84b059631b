"""What the placeholders of a step's texts stand for."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from goalrun.core.flow.loose import find_json
from goalrun.core.flow.model import Flow, FlowBudget, Result, Step
from goalrun.core.flow.plan import edges, roots
from goalrun.core.flow.refs import PLACEHOLDER, Ref, field, fill
from goalrun.core.model import GoalState
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
        values: dict[str, Callable[[], Json]] = {
            "args": lambda: field(dict(self.args), rest),
            "steps": lambda: self._of_step(rest),
            "needs": lambda: needs[0][1] if len(needs) == 1 else "\n\n".join(f"### {n}\n\n{t}" for n, t in needs),
            "previous": lambda: needs[-1][1] if needs else None,
            "goal": lambda: field(self._goal(), rest),
        }
        return values[root]() if root in values else None

    def _of_step(self, rest: Ref) -> Json:
        result = self.settled.get(rest[0]) if rest else None
        if result is None or len(rest) == 1:
            return None
        values: dict[str, Callable[[], Json]] = {
            "output": lambda: result.text if result.ok else None,
            "json": lambda: field(_json(result), rest[2:]) if result.ok else None,
            "diff": lambda: self.files.diff(result.before, result.after) if result.before != result.after else "",
            "status": lambda: result.status,
            "reason": lambda: result.reason,
        }
        return values[rest[1]]() if rest[1] in values else None

    def _needs(self, step: Step) -> list[tuple[str, str]]:
        """The names and outputs of what the step needs and is done, in order."""
        over = [(name, self.settled[name]) for name in edges(step) if name in self.settled]
        return [(name, result.text) for name, result in over if result.ok]

    def _goal(self) -> dict[str, Json]:
        state = self.state
        return {
            "objective": state.spec.objective,
            "feedback": state.feedback,
            "turn": len(state.turns) + 1,
            "hints": "\n".join(state.hints),
        }


def _json(result: Result) -> Json:
    if result.json_ is not None:
        return result.json_
    try:
        return find_json(result.text)
    except ValueError:
        return None
