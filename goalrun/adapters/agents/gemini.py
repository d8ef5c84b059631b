"""gemini: the JSON lines of ``gemini -o stream-json``, as measured with 0.61.0.

Its exit status is what the provider answered with, modulo 256 (429 is 173, 500 is 244); the events do not tell that.
"""

import json
import re
from datetime import datetime

from goalrun.adapters.agents.said import Failure, Json, Output, Said, at, count_at, last, text_at, tokens
from goalrun.adapters.agents.status import by_status
from goalrun.core.evidence import one_line

_BAD_REQUEST = 400
_NO_AUTH, _BAD_INPUT = 41, 42
_WRAPPED = re.compile(r"\[API Error: (\{.*\})\]", re.DOTALL)
_RETRY = re.compile(r"^Suggested retry after (\d{1,7}(?:\.\d{1,3})?)s\.\]?$", re.MULTILINE)
_TAIL = 4_000


def read_gemini(output: Output) -> Said:
    """What a run says; money is never told, and an answer that was cut is not counted."""
    result = last(output, "result")
    start = last(output, "init")
    stats = at(result, "stats")
    taken, total = count_at(stats, "input_tokens"), count_at(stats, "total_tokens")
    # Its output tokens leave out those of thinking, which cost the same.
    given = total - taken if total is not None and taken is not None and total >= taken else None
    models, text = at(stats, "models"), _text(output)
    answered = [str(name) for name in models] if isinstance(models, dict) else []
    return Said(
        text=text,
        session=text_at(start, "session_id"),
        model=answered[0] if len(answered) == 1 else text_at(start, "model"),
        # No answer takes no tokens: what was spent is lost.
        usage=tokens(taken, given) if total or not text else None,
        cached=count_at(stats, "cached") or 0,
        denials=_denials(output),
        failure=_failure(output, result),
    )


def _text(output: Output) -> str:
    """What it said after it last used a tool; before, if nothing."""
    parts: list[str] = []
    spoken = ""
    for event in output.events:
        if event.get("type") == "tool_use":
            parts = []
        elif event.get("type") == "message" and event.get("role") == "assistant":
            parts.append(text_at(event, "content"))
            spoken = "".join(parts)
    return spoken


def _denials(output: Output) -> tuple[str, ...]:
    names = {
        text_at(event, "tool_id"): text_at(event, "tool_name")
        for event in output.events
        if event.get("type") == "tool_use"
    }
    refused = ("tool_not_registered", "policy_violation")
    results = [event for event in output.events if event.get("type") == "tool_result"]
    return tuple(names.get(text_at(r, "tool_id"), "") for r in results if text_at(r, "error", "type") in refused)


def _failure(output: Output, result: Json | None) -> Failure | None:
    if result is None:
        return _unfinished(output)
    if result.get("status") == "success":
        # It stops itself when it goes in circles, and calls that a success.
        stopped = last(output, "error")
        return Failure("failed", one_line(text_at(stopped, "message")[:_TAIL], 500) or "stopped") if stopped else None
    message = text_at(result, "error", "message")
    told = one_line(message[:_TAIL], 500) or "gemini reports an error, and not which"
    status = output.exit_code + 256
    if status < _BAD_REQUEST:
        # No answer at all, or only the beginning of one.
        return Failure("unreachable" if message.startswith("[API Error: ") else "failed", told)
    if status == _BAD_REQUEST and _says_bad_key(message):
        return Failure("refused", told)
    kind = by_status(status)
    return Failure(kind, told, _reset(result, message) if kind == "limited" else None)


def _says_bad_key(message: str) -> bool:
    """Google answers a bad key with 400 and a fixed text, which arrives as the JSON that it was."""
    wrapped = _WRAPPED.match(message)
    try:
        error = json.loads(wrapped[1]) if wrapped else None
    except (ValueError, RecursionError):
        return False
    return text_at(error, "error", "message").startswith("API key not valid.")


def _reset(result: Json, message: str) -> float | None:
    """When to try again: so many seconds after the result was written, in a line that gemini adds."""
    wait = _RETRY.search(message)
    try:
        written = datetime.fromisoformat(text_at(result, "timestamp"))
        return written.timestamp() + float(wait[1]) if wait and written.tzinfo else None
    except ValueError:
        return None


def _unfinished(output: Output) -> Failure:
    told = one_line(output.errors[-500:], 500) or "gemini ended without a result"
    for line in output.errors.splitlines() if output.exit_code == _BAD_INPUT else ():
        if line.startswith("Error resuming session: "):
            return Failure("session", one_line(line[:_TAIL], 500))
    return Failure("refused" if output.exit_code == _NO_AUTH else "failed", told)
