"""claude, and the agents whose stream has its shape: qwen, amp, cursor-agent.

All print JSON lines: ``system``/``init`` first, ``assistant`` and ``user`` messages, one ``result`` last. They differ
in what they count, and in how they say what failed. Measured with claude 2.1.329 and 2.1.197, qwen 0.24.4 and 0.15.10;
amp and cursor-agent are from their documentation.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus

from goalrun.adapters.agents.said import Failure, Json, Output, Said, amount_at, at, count_at, last, text_at, tokens
from goalrun.adapters.agents.status import by_status
from goalrun.core.evidence import one_line
from goalrun.core.model import Usage, total

_TAIL = 4_000
"""Characters of standard error that a message is made of, at most."""
_GONE = "No conversation found with session ID"
_QWEN_ERROR = re.compile(r"\[API Error: (?:(\d{3})\b)?")
"""How qwen begins what its provider failed at: its own words, in a field of its own."""
_QWEN_WAIT = re.compile(r"^Retrying in \d+s \(attempt \d+/\d+\): (\[API Error: (\d{3})\b.*)$", re.MULTILINE)
"""What qwen writes to standard error before it waits a minute and more, up to 10 times."""


def read_claude(output: Output) -> Said:
    """What a run of claude says. A request that was cut is not in its usage, though the provider may count it."""
    result = last(output, "result")
    spent = at(result, "model_usage_since_last_result")
    if isinstance(spent, Mapping):
        each = list(spent.values())
        inputs = [total(count_at(model, key) for model in each) for key in _MODEL_INPUTS]
        given = total(count_at(model, "outputTokens") for model in each)
        usd = total(amount_at(model, "costUSD") for model in each)
    else:
        # Before there was that key, and where it is left out, the rest is of this run alone.
        inputs = [count_at(result, "usage", key) for key in _INPUTS]
        given, usd = count_at(result, "usage", "output_tokens"), amount_at(result, "total_cost_usd")
    usage = _priced(total(inputs), given, usd)
    return _read(output)._replace(usage=usage, cached=inputs[0] or 0, failure=_claude_failure(output, result))


_INPUTS = ("cache_read_input_tokens", "cache_creation_input_tokens", "input_tokens")
_MODEL_INPUTS = ("cacheReadInputTokens", "cacheCreationInputTokens", "inputTokens")
"""Where claude's input tokens are: those from a cache first, and none of them in another."""


def read_qwen(output: Output) -> Said:
    """What a run of qwen says; its usage is of the whole session, and has what it does in the background, too."""
    result = last(output, "result")
    return _read(output)._replace(
        usage=tokens(count_at(result, "usage", "input_tokens"), count_at(result, "usage", "output_tokens")),
        cached=count_at(result, "usage", "cache_read_input_tokens") or 0,
        cumulative=True,
        failure=_qwen_failure(output, result),
    )


def read_amp(output: Output) -> Said:
    """What a run of amp says; the usage is the sum over its answers, if all of them are there."""
    result, failure = last(output, "result"), _plain_failure("amp", output)
    complete = output.whole and result is not None
    # A message that comes in parts has its usage in each.
    usages = {text_at(a, "message", "id") or n: at(a, "message", "usage") for n, a in enumerate(_answers(output))}
    known = list(usages.values()) if complete and usages else [None]
    taken, given, cached = (
        total(count_at(usage, key) for usage in known) for key in ("input_tokens", "output_tokens", _INPUTS[0])
    )
    if failure is not None and result is None and _complains(output, "Error: Couldn't connect to the Amp server"):
        failure = failure._replace(kind="unreachable")
    return _read(output)._replace(usage=tokens(taken, given), cached=cached or 0, failure=failure)


def read_cursor(output: Output) -> Said:
    """What a run of cursor-agent says. If cached tokens are in its input is told nowhere: with some, it is unknown."""
    usage, said = at(last(output, "result"), "usage"), _read(output)
    cached = any(count_at(usage, key) for key in ("cacheReadTokens", "cacheWriteTokens"))
    # The result has all that was said, one after the other; what was said last called nothing.
    ends = [_text(answer) for answer in _answers(output) if "model_call_id" not in answer]
    calls = [at(event, "tool_call") for event in output.events if event.get("type") == "tool_call"]
    tools = [tool for call in calls if isinstance(call, Mapping) for tool in call.items()]
    return said._replace(
        text=next((text for text in reversed(ends) if text), said.text),
        usage=tokens(None if cached else count_at(usage, "inputTokens"), count_at(usage, "outputTokens")),
        denials=tuple(str(name) for name, tool in tools if at(tool, "result", "rejected") is not None),
        failure=_plain_failure("cursor-agent", output),
    )


def _read(output: Output) -> Said:
    result = last(output, "result")
    start = next((event for event in output.events if event.get("subtype") == "init"), None)
    denials, models = at(result, "permission_denials"), at(result, "modelUsage")
    answers = [text for text in map(_text, _answers(output)) if text]
    return Said(
        text=text_at(result, "result") or (answers[-1] if answers else ""),
        session=text_at(result, "session_id") or text_at(start, "session_id"),
        model=text_at(start, "model") or (str(next(iter(models), "")) if isinstance(models, Mapping) else ""),
        denials=tuple(text_at(each, "tool_name") for each in denials) if isinstance(denials, list) else (),
    )


def _answers(output: Output) -> list[Json]:
    return [event for event in output.events if event.get("type") == "assistant"]


def _text(answer: Json | None) -> str:
    parts = at(answer, "message", "content")
    return "\n".join(filter(None, (text_at(part, "text") for part in parts))) if isinstance(parts, list) else ""


def _priced(taken: int | None, given: int | None, usd: float | None) -> Usage | None:
    """A usage; a model without a price costs 0, which is not what it costs."""
    return tokens(taken, given, usd if usd or not (taken or given) else None)


def _claude_failure(output: Output, result: Json | None) -> Failure | None:
    failed = _plain_failure("claude", output)
    if failed is None:
        return None
    limit = _limit(output)
    error = text_at(next(reversed(_answers(output)), None), "error")
    status = count_at(result, "api_error_status")
    if status == HTTPStatus.TOO_MANY_REQUESTS or limit is not None or error == "rate_limit":
        return failed._replace(kind="limited", reset=amount_at(limit, "resetsAt"))
    if error in {"authentication_failed", "billing_error"}:
        return failed._replace(kind="refused")
    if status is not None:
        return failed._replace(kind=by_status(status))
    if failed.message.startswith(_GONE) or (result is None and _complains(output, _GONE)):
        return failed._replace(kind="session")
    # Without a status, the provider has not answered to the end.
    lost = at(result, "terminal_reason") == "api_error" or error == "server_error"
    return failed._replace(kind="unreachable") if lost else failed


def _limit(output: Output) -> Json | None:
    """What the provider says of a limit that it refused because of, if no answer came after."""
    limit = None
    for event in output.events:
        if event.get("type") == "rate_limit_event":
            limit = at(event, "rate_limit_info") if at(event, "rate_limit_info", "status") == "rejected" else None
        elif event.get("type") == "assistant" and not event.get("error"):
            limit = None
    return limit


def _qwen_failure(output: Output, result: Json | None) -> Failure | None:
    last = next(reversed(_answers(output)), None)
    spoken = _text(last)
    # Before 0.24 it calls a failed request a success; no answer of a model takes no tokens.
    empty = [count_at(last, "message", "usage", key) for key in ("input_tokens", "output_tokens")] == [0, 0]
    failure = _plain_failure("qwen", output)
    if empty and result is not None and spoken.startswith("[API Error: "):
        failure = Failure("failed", one_line(spoken[:_TAIL], 500))
    if failure is None:
        return None
    if result is None:
        waits = list(_QWEN_WAIT.finditer(output.errors))
        if waits:
            return Failure(by_status(int(waits[-1][2])), one_line(waits[-1][1], 500))
        gone = _complains(output, "No saved session found with ID")
        return failure._replace(kind="session") if gone else failure
    error = _QWEN_ERROR.match(failure.message)
    if error is None:
        return failure._replace(kind="refused") if failure.message.startswith("No auth type is selected.") else failure
    return failure._replace(kind=by_status(int(error[1])) if error[1] else "unreachable")


def _complains(output: Output, beginning: str) -> bool:
    return any(line.startswith(beginning) for line in output.errors.splitlines())


def _plain_failure(name: str, output: Output) -> Failure | None:
    """A failure as the result tells it; without one, standard error is all there is."""
    result = last(output, "result")
    if result is None:
        told = one_line(output.errors[-500:], 500)
        return Failure("failed", told or f"{name} ended without a result")
    if result.get("is_error") is False and result.get("subtype") == "success":
        return None
    places = (("error", "message"), ("error",), ("errors", 0), ("result",), ("subtype",))
    told = next((text for place in places if (text := text_at(result, *place))), "")
    return Failure("failed", one_line(told[:_TAIL], 500) or f"{name} says that it failed, and not why")
