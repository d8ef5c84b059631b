"""What the flags of a resume make of a goal's limits."""

from typing import Any

from pydantic import ValidationError

from goalrun.core.model import GoalState
from goalrun.core.spec import Limits
from goalrun.core.value import duration
from goalrun.errors import SpecError


def after_resume(state: GoalState, changes: dict[str, str]) -> Limits | None:
    """The limits after a resume's flags; None if there are none.

    Raises:
        SpecError: a flag makes no sense.
    """
    if not changes:
        return None
    try:
        return Limits.model_validate(_changed(state.spec.limits.model_dump(), changes))
    except ValidationError as failure:
        problem = failure.errors(include_url=False)[0]
        flag = "--" + str(problem["loc"][0]).replace("_", "-")
        raise SpecError(f"{flag}: {problem['msg'][0].lower()}{problem['msg'][1:]}") from failure


def require_room(state: GoalState, limits: Limits, resume: str = "goalrun resume") -> None:
    """A goal whose limit is reached would end at once: say what to raise instead, and with which command."""
    usage = state.usage
    reached = None
    if state.open is None and len(state.turns) >= limits.max_turns:
        reached = f"{len(state.turns)} of {limits.max_turns} turns are used", "--max-turns +N"
    elif limits.max_tokens is not None and usage.total_tokens is None and not limits.allow_unknown_spend:
        reached = "not all tokens were reported", "--allow-unknown-spend, or --max-tokens none"
    elif limits.max_usd is not None and usage.usd is None and not limits.allow_unknown_spend:
        reached = "not every cost was reported", "--allow-unknown-spend, or --max-usd none"
    elif limits.max_time is not None and usage.seconds >= limits.max_time:
        reached = f"{usage.seconds:.0f} of {limits.max_time:.0f} s are used", "--max-time +TIME"
    elif limits.max_tokens is not None and (usage.total_tokens or 0) >= limits.max_tokens:
        reached = f"{usage.total_tokens} of {limits.max_tokens} tokens are used", "--max-tokens +N"
    elif limits.max_usd is not None and (usage.usd or 0) >= limits.max_usd:
        reached = f"{usage.usd} of {limits.max_usd} USD are used", "--max-usd +X"
    if reached is not None:
        why, raised = reached
        goal = state.spec.id
        raise SpecError(f"the limit of goal {goal} is reached: {why}", hint=f"{resume} {goal} {raised}")


def _changed(before: dict[str, Any], changes: dict[str, str]) -> dict[str, Any]:
    """Limits after a resume's flags: a value replaces, ``+value`` adds, ``none`` takes the limit away.

    Raises:
        SpecError: a value that is no number or duration.
    """
    after = dict(before)
    for name, text in changes.items():
        timed = name in {"max_time", "turn_timeout", "check_timeout"}
        plus = text.startswith("+")
        if text == "none" and name in {"max_tokens", "max_usd", "max_time"}:
            after[name] = None
            continue
        try:
            value = duration(text.removeprefix("+")) if timed else _number(text.removeprefix("+"))
        except ValueError as failure:
            flag = "--" + name.replace("_", "-")
            raise SpecError(f"{flag} {text!r}: {failure}", hint=f"{flag} +5 raises, {flag} 5 sets") from failure
        after[name] = (before[name] or 0) + value if plus else value
    return after


def _number(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise ValueError("not a number") from None
