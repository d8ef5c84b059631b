"""copilot: the JSON lines of ``copilot --output-format json`` and its usage file, as measured with 1.0.102.

Measured with a model of one's own; GitHub's own service was not there to ask.
"""

from collections.abc import Mapping
from typing import Literal

from goalrun.adapters.agents.said import Failure, Output, Said, at, count_at, last, text_at, tokens
from goalrun.adapters.agents.status import by_status
from goalrun.core.evidence import one_line
from goalrun.core.model import Usage

_KINDS: Mapping[str, Literal["limited", "refused"]] = {
    "rate_limit": "limited",
    "quota": "limited",
    "authentication": "refused",
    "authorization": "refused",
}
_TAIL = 4_000


def read_copilot(output: Output) -> Said:
    """What a run says. Usage is of the whole session, from the file; money is told in credits only."""
    answers = _data(output, "assistant.message")
    texts = [text for answer in answers if (text := text_at(answer, "content"))]
    usage, cached = _usage(output)
    return Said(
        text=texts[-1] if texts else "",
        session=text_at(last(output, "result"), "sessionId"),
        model=text_at(answers[-1], "model") if answers else "",
        usage=usage,
        cached=cached,
        cumulative=True,
        denials=_denials(output),
        failure=_failure(output),
    )


def _data(output: Output, kind: str) -> list[object]:
    return [event.get("data") for event in output.events if event.get("type") == kind]


def _usage(output: Output) -> tuple[Usage | None, int]:
    models = at(output.report[-1], "modelMetrics") if output.report else None
    if not isinstance(models, dict):
        return None, 0
    taken = given = cached = 0
    for model in models.values():
        some, more = count_at(model, "usage", "inputTokens"), count_at(model, "usage", "outputTokens")
        if some is None or more is None:
            return None, 0
        taken, given = taken + some, given + more
        cached += count_at(model, "usage", "cacheReadTokens") or 0
    return tokens(taken, given), cached


def _denials(output: Output) -> tuple[str, ...]:
    asked = [request for answer in _data(output, "assistant.message") for request in _list(at(answer, "toolRequests"))]
    names = {text_at(request, "toolCallId"): text_at(request, "name") for request in asked}
    done = _data(output, "tool.execution_complete")
    return tuple(names.get(text_at(d, "toolCallId"), "") for d in done if text_at(d, "error", "code") == "denied")


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _failure(output: Output) -> Failure | None:
    result = last(output, "result")
    if result is not None and result.get("exitCode") == 0:
        return None
    errors = _data(output, "session.error")
    if not errors:
        gone = any(line.startswith("Error: No session, task, or name matched ") for line in output.errors.splitlines())
        told = one_line(output.errors[-500:], 500) or "copilot ended without a result"
        return Failure("session" if gone else "failed", told)
    error, calls = errors[-1], _data(output, "model.call_failure")
    message = one_line(text_at(error, "message")[:_TAIL], 500) or "copilot reports an error, and not which"
    status = count_at(error, "statusCode")
    if text_at(error, "errorType") in _KINDS:
        return Failure(_KINDS[text_at(error, "errorType")], message)
    if status is not None:
        return Failure(by_status(status), message)
    lost = bool(calls) and text_at(calls[-1], "failureKind") == "transport"
    return Failure("unreachable" if lost else "failed", message)
