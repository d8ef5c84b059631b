"""codex: the JSON lines of ``codex exec --json``, as measured with 0.169.0.

It has no codes for what failed (openai/codex#37676 asks for them): the fixed beginnings of its own error messages tell.
"""

import re
import time

from goalrun.adapters.agents.said import Failure, Json, Output, Said, count_at, last, text_at, tokens, unpaid
from goalrun.adapters.agents.status import by_status
from goalrun.core.evidence import one_line
from goalrun.core.model import NOTHING_SPENT

_RETRY = re.compile(r"Reconnecting\.\.\. (?:\d+/\d+|waiting for network) \((.*)\)", re.DOTALL)
_STATUS = re.compile(r"(?:exceeded retry limit, last status: |unexpected status )(\d{3})\b")
_AGAIN = re.compile(r"try again at ([A-Z][a-z]{2})[a-z]* (\d{1,2})(?:st|nd|rd|th), (\d{4} \d{1,2}:\d\d [AP]M)\b")
_LIMITED = ("You've hit your usage limit", "Quota exceeded.")
_UNREACHABLE = (
    "stream disconnected before completion",
    "We're currently experiencing high demand",
    "Connection failed",
)


def read_codex(output: Output) -> Said:
    """What a run says. Usage is of the whole thread; a failed turn tells none; the model and money are never told."""
    items = [event.get("item") for event in output.events if event.get("type") == "item.completed"]
    texts = [text_at(item, "text") for item in items if text_at(item, "type") == "agent_message"]
    end = last(output, "turn.completed", "turn.failed")
    usage = end if text_at(end, "type") == "turn.completed" else None
    taken, given = count_at(usage, "usage", "input_tokens"), count_at(usage, "usage", "output_tokens")
    failure = _failure(output, end)
    # Items of this type are warnings; any other is of an answer, and so of an unknown spend.
    silent = output.whole and all(text_at(item, "type") == "error" for item in items)
    return Said(
        text=texts[-1] if texts else "",
        session=text_at(last(output, "thread.started"), "thread_id"),
        usage=NOTHING_SPENT if silent and unpaid(failure) else tokens(taken, given),
        cached=count_at(usage, "usage", "cached_input_tokens") or 0,
        cumulative=True,
        failure=failure,
    )


def _failure(output: Output, end: Json | None) -> Failure | None:
    if text_at(end, "type") == "turn.completed":
        return None
    if end is not None:
        return _why(text_at(end, "error", "message"))
    last = text_at(output.events[-1], "message") if output.events else ""
    if (retry := _RETRY.match(last)) is not None:
        # It waits as long as the provider says, and for ever for a network: this run was ended while it did.
        return _why(retry[1])
    if last:
        return _why(last)
    complaint = one_line(output.errors, 500)
    gone = "Error: thread/resume: " in output.errors and "no rollout found for thread id" in output.errors
    return Failure("session" if gone else "failed", complaint or "codex ended without the end of its turn")


def _why(message: str) -> Failure:
    said = message.replace("\u2019", "'")
    told = one_line(message, 500) or "codex says that its turn failed, and not why"
    if (status := _STATUS.match(said)) is not None:
        return Failure(by_status(int(status[1])), told)
    if said.startswith(_LIMITED):
        return Failure("limited", told, _reset(said))
    return Failure("unreachable" if said.startswith(_UNREACHABLE) else "failed", told)


def _reset(message: str) -> float | None:
    """When a limit ends: told in this machine's time, to the minute; not told as a date where it is today."""
    found = _AGAIN.search(message)
    if found is None:
        return None
    try:
        return time.mktime(time.strptime(" ".join(found.groups()), "%b %d %Y %I:%M %p"))
    except (ValueError, OverflowError):
        return None
