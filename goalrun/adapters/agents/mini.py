"""mini-swe-agent: the trajectory that it writes (``-o``), as measured with 2.4.6; what it prints is for people."""

from collections.abc import Mapping
from typing import Literal

from goalrun.adapters.agents.said import Failure, Json, Output, Said, amount_at, at, count_at, text_at, tokens
from goalrun.core.evidence import one_line

LITELLM: Mapping[str, Literal["limited", "refused", "unreachable"]] = {
    "RateLimitError": "limited",
    "AuthenticationError": "refused",
    "PermissionDeniedError": "refused",
    "APIConnectionError": "unreachable",
    "APIError": "unreachable",
    "BadGatewayError": "unreachable",
    "InternalServerError": "unreachable",
    "ServiceUnavailableError": "unreachable",
    "Timeout": "unreachable",
}
"""What the exceptions of litellm mean, by their names (docs.litellm.ai, "Exception Mapping")."""


def read_mini(output: Output) -> Said:
    """What a run says; there are no sessions. A run that did not end tells no usage."""
    ran = output.report[-1] if output.report else None
    found = at(ran, "messages")
    messages: list[Json] = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    responses = [at(each, "extra", "response") for each in messages if at(each, "extra", "response") is not None]
    models = [model for response in responses if (model := text_at(response, "model"))]
    texts = [text for each in messages if each.get("role") == "assistant" and (text := text_at(each, "content"))]
    said = _spent(ran, responses) if text_at(ran, "info", "exit_status") else Said()
    return said._replace(
        text=text_at(ran, "info", "submission") or (texts[-1] if texts else ""),
        model=models[-1] if models else "",
        failure=_failure(output, ran, messages),
    )


def _spent(ran: Json | None, responses: list[object]) -> Said:
    """The sum over all answers, also over those that it could not use."""
    taken = given = cached = 0
    for response in responses:
        some, more = count_at(response, "usage", "prompt_tokens"), count_at(response, "usage", "completion_tokens")
        if some is None or more is None:
            return Said()
        taken, given = taken + some, given + more
        cached += count_at(response, "usage", "prompt_tokens_details", "cached_tokens") or 0
    usd = amount_at(ran, "info", "model_stats", "instance_cost")
    # A model without a price costs 0, which is not what it costs.
    return Said(usage=tokens(taken, given, usd if usd or not taken + given else None), cached=cached)


def _failure(output: Output, ran: Json | None, messages: list[Json]) -> Failure | None:
    status = text_at(ran, "info", "exit_status")
    if status == "Submitted":
        return None
    if not status:
        return Failure("failed", one_line(output.errors[-500:], 500) or "mini-swe-agent did not come to an end")
    last = text_at(messages[-1], "content") if messages else ""
    return Failure(LITELLM.get(status, "failed"), one_line(last[:4_000], 500) or one_line(status[:500]))
