"""opencode: the JSON lines of ``opencode run --format json``, as measured with 1.18.33."""

import re
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

from goalrun.adapters.agents.said import (
    Failure,
    Json,
    Output,
    Said,
    amount_at,
    count_at,
    text_at,
    tokens,
    unpaid,
)
from goalrun.adapters.agents.status import by_status
from goalrun.core.evidence import one_line
from goalrun.core.model import NOTHING_SPENT

_DENIED = "The user rejected permission to use this specific tool call."
_SECONDS = re.compile(r"\d{1,9}")


def read_opencode(output: Output) -> Said:
    """What a run says. Usage is of this run, and unknown if the run was cut short; the model is never told."""
    events = output.events
    errors = [event for event in events if event.get("type") == "error"]
    steps = [event.get("part") for event in events if event.get("type") == "step_finish"]
    stopped = any(text_at(step, "reason") == "stop" for step in steps)
    tools = [event.get("part") for event in events if event.get("type") == "tool_use"]
    denials = tuple(text_at(tool, "tool") for tool in tools if text_at(tool, "state", "error") == _DENIED)
    # By itself it ends with status 0, or with an error: only then are these all of its steps.
    known = output.whole and (stopped or bool(errors) or output.exit_code == 0)
    failure = _why(errors[-1]) if errors else None if stopped else _unfinished(output, denials)
    said = Said(usage=NOTHING_SPENT) if known and not steps and unpaid(failure) else _spent(steps) if known else Said()
    return said._replace(
        text=_text(events),
        session=next((found for event in events if (found := text_at(event, "sessionID"))), ""),
        denials=denials,
        failure=failure,
    )


def _text(events: tuple[Json, ...]) -> str:
    """The texts after the last tool."""
    texts: list[str] = []
    for event in events:
        if event.get("type") == "tool_use":
            texts = []
        elif event.get("type") == "text":
            texts.append(text_at(event, "part", "text"))
    return "\n".join(texts)


def _spent(steps: Iterable[object]) -> Said:
    """The sum over the steps; their input leaves cached tokens out, their output those of reasoning."""
    taken = given = cached = 0
    usd: float | None = 0.0
    for step in steps:
        read, written = count_at(step, "tokens", "cache", "read"), count_at(step, "tokens", "cache", "write")
        fresh, said = count_at(step, "tokens", "input"), count_at(step, "tokens", "output")
        if fresh is None or said is None:
            return Said()
        cached += read or 0
        taken += fresh + (read or 0) + (written or 0)
        given += said + (count_at(step, "tokens", "reasoning") or 0)
        # A model without a price costs 0.
        cost = amount_at(step, "cost")
        usd = usd + cost if cost and usd is not None else None
    return Said(usage=tokens(taken, given, usd), cached=cached) if taken + given else Said()


def _why(event: Json) -> Failure:
    error = event.get("error")
    told = one_line(text_at(error, "data", "message") or text_at(error, "name"), 500)
    message = told or "opencode reports an error, and not which"
    status = count_at(error, "data", "statusCode")
    if status is not None:
        kind = by_status(status)
        return Failure(kind, message, _reset(event) if kind == "limited" else None)
    name = text_at(error, "name")
    if name == "ProviderAuthError":
        return Failure("refused", message)
    # Without a status, the provider has not answered.
    return Failure("unreachable" if name == "APIError" else "failed", message)


def _reset(event: Json) -> float | None:
    """When a limit ends, by the provider's own header (RFC 9110, section 10.2.3)."""
    wait = text_at(event, "error", "data", "responseHeaders", "retry-after")
    told = count_at(event, "timestamp")
    if _SECONDS.fullmatch(wait):
        return None if told is None else told / 1000 + int(wait)
    try:
        return parsedate_to_datetime(wait).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _unfinished(output: Output, denials: tuple[str, ...]) -> Failure:
    if denials:
        return Failure("failed", one_line(f"{denials[-1]}: {_DENIED}", 500))
    complaint = one_line(output.errors, 500)
    gone = not output.events and complaint == "Error: Session not found"
    return Failure("session" if gone else "failed", complaint or "opencode ended without the end of its turn")
