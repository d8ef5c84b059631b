"""pi: the JSON lines of ``pi -p --mode json``, as measured with 0.87.1 and 0.74.2.

They tell every message many times over. Where that is more than was kept, the report tells the end of each one once;
the extension in the preset writes it. It comes second, because the agent's tools could write there too.
"""

import json
import re
from collections.abc import Iterable

from goalrun.adapters.agents.said import (
    Failure,
    Json,
    Output,
    Said,
    amount_at,
    at,
    count_at,
    text_at,
    tokens,
    unpaid,
)
from goalrun.adapters.agents.status import by_status
from goalrun.core.evidence import one_line
from goalrun.core.model import NOTHING_SPENT

_STATUS = re.compile(r"(?:(\d{3})\b|[\w.-]+ API error \((\d{3})\))")
_CODEX = "Codex error: "


def read_pi(output: Output) -> Said:
    """What a run says, which is all in its messages: the exit status is 0 even where the provider failed."""
    events = output.events if output.whole or not output.report else output.report
    marks = [event for event in events if event.get("type") == "agent_end" or _is_answer(event)]
    answers = [event.get("message") for event in marks if _is_answer(event)]
    ended = bool(marks) and not _is_answer(marks[-1])
    complete = ended and (output.whole or events is output.report)
    said = _spent(answers) if complete else Said()
    last = answers[-1] if answers else None
    failure = _failure(last, output) if ended else _unfinished(output)
    if complete and said.usage is None and all(unpaid(_failure(each, output)) for each in answers):
        said = Said(usage=NOTHING_SPENT)
    return said._replace(
        text=_text(last),
        session=next((text_at(event, "id") for event in output.events if event.get("type") == "session"), ""),
        model=text_at(last, "model"),
        failure=failure,
    )


def _is_answer(event: Json) -> bool:
    return event.get("type") == "message_end" and at(event, "message", "role") == "assistant"


def _text(message: object) -> str:
    parts = at(message, "content")
    texts = parts if isinstance(parts, list) else []
    return "\n".join(text_at(part, "text") for part in texts if text_at(part, "type") == "text")


def _spent(answers: Iterable[object]) -> Said:
    """The sum over the answers; their input leaves cached tokens out, their output has those of reasoning."""
    taken = given = cached = 0
    usd: float | None = 0.0
    for answer in answers:
        usage = at(answer, "usage")
        fresh, said = count_at(usage, "input"), count_at(usage, "output")
        read, written = count_at(usage, "cacheRead") or 0, count_at(usage, "cacheWrite") or 0
        if fresh is None or said is None:
            return Said()
        if fresh + said + read + written == 0:
            # A failed attempt, of which nothing is known.
            continue
        cached += read
        taken += fresh + read + written
        given += said
        # A model without a price costs 0.
        cost = amount_at(usage, "cost", "total")
        usd = usd + cost if cost and usd is not None else None
    return Said(usage=tokens(taken, given, usd), cached=cached) if taken + given else Said()


def _failure(last: object, output: Output) -> Failure | None:
    reason = text_at(last, "stopReason")
    if reason == "aborted":
        return Failure("failed", one_line(text_at(last, "errorMessage"), 500) or "aborted")
    if reason == "error":
        return _why(text_at(last, "errorMessage"))
    return None if last is not None else _unfinished(output)


def _why(error: str) -> Failure:
    message = one_line(error, 500) or "pi reports an error, and not which"
    if error.startswith(_CODEX):
        return _subscription(error.removeprefix(_CODEX), message)
    status = _STATUS.match(error)
    # Without a status, the provider has not answered to the end.
    return Failure(by_status(int(status[1] or status[2])) if status else "unreachable", message)


def _subscription(body: str, message: str) -> Failure:
    """The error of a codex subscription, which is the provider's own JSON (earendil-works/pi#4172)."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return Failure("failed", message)
    if text_at(told, "error", "type") == "usage_limit_reached":
        return Failure("limited", message, amount_at(told, "error", "resets_at"))
    return Failure(by_status(count_at(told, "status_code") or 0), message)


def _unfinished(output: Output) -> Failure:
    complaint = one_line(output.errors, 500)
    if complaint.startswith("No session found matching "):
        return Failure("session", complaint)
    if complaint.startswith("No API key found for "):
        return Failure("refused", complaint)
    return Failure("failed", complaint or "pi ended without the end of its turn")
