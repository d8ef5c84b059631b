"""A model as a judge, through its provider's API: ``python -P -m goalrun.adapters.model_judge PROVIDER:MODEL``.

A program of its own, because the client takes seconds to load. It reads the brief on standard input and the nonce in
``$GOALRUN_NONCE``, and prints one JSON object::

    {"type": "result", "reply": {"nonce": "...", "achieved": true, "blocked": false, "reason": "..."}, "model": ...,
     "usage": {"input_tokens": 1, "output_tokens": 1, "cached": 0}}
    {"type": "failure", "kind": "limited", "message": "...", "reset": null, "model": ..., "usage": ...}

with the kinds of ``adapters.agents.said.Failure``, ``reset`` in seconds since the epoch, input tokens that include the
cached ones, and exit status 0 for a result, else 1. Keys and addresses are in the variables that each provider has.
"""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from goalrun.adapters.clock import utc_now

if TYPE_CHECKING:
    from pydantic_ai import RunUsage

RETRIES = 2
"""How often an answer of another shape is sent back."""
TIMEOUT = 240.0
"""Seconds; goalrun itself gives a judge 300."""
MESSAGE_CHARS = 500
MISSING = "goalrun[models] is not installed: pip install 'goalrun[models]'"

Told = dict[str, Any]


class Reply(BaseModel):
    """The verdict on the goal that the brief describes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    nonce: str
    achieved: bool
    blocked: bool = False
    reason: str


def main() -> int:
    """The program; see above."""
    brief = sys.stdin.buffer.read().decode("utf-8", "replace")
    match sys.argv[1:]:
        case [model] if ":" in model:
            told = ask(model, brief, os.environ.get("GOALRUN_NONCE", ""))
        case _:
            told = _failed("name one model, like anthropic:claude-sonnet-4-5")
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if told["type"] == "result" else 1


def ask(model: str, brief: str, nonce: str) -> Told:
    """What a model says to a brief, or why it says nothing."""
    try:
        from pydantic_ai import Agent, ModelRetry, RunUsage, ToolOutput
    except ModuleNotFoundError:
        return _failed(MISSING)
    usage = RunUsage()
    try:
        agent = Agent(
            model,
            output_type=ToolOutput(Reply, name="structured_output"),
            instructions="You are a judge. Judge by the brief alone.",
            retries=RETRIES,
            # goalrun itself waits and asks again; a client's own retry sits there for as long as a retry-after says.
            model_settings={"max_retries": 0},
        )

        @agent.output_validator
        def echoes(reply: Reply) -> Reply:
            if reply.nonce != nonce:
                raise ModelRetry("The nonce is not the one that the brief asks for.")
            return reply

        reply = agent.run_sync(brief, usage=usage, timeout=TIMEOUT).output
    except Exception as failure:  # noqa: BLE001 - whatever a provider's client raises, the caller is told
        return {**_why(failure), "model": model, "usage": _spent(usage)}
    return {"type": "result", "reply": reply.model_dump(), "model": model, "usage": _spent(usage)}


def _spent(usage: "RunUsage") -> Told | None:
    """Nothing counted is nothing known: a request that failed may have cost something."""
    if usage.requests == 0 or usage.total_tokens == 0:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached": usage.cache_read_tokens,
    }


def _why(failure: Exception) -> Told:
    from pydantic_ai import exceptions as told

    match failure:
        case told.ModelRateLimitError():
            wait = failure.retry_after
            reset = None if wait is None else utc_now().timestamp() + wait
            return _failed(str(failure), "limited", reset)
        case told.ModelQuotaExceededError():
            return _failed(str(failure), "limited")
        case told.ModelAuthenticationError():
            return _failed(str(failure), "refused")
        case told.ModelConnectionError() | told.ModelUnavailableError() | told.ModelServerError():
            return _failed(str(failure), "unreachable")
        case told.RunTimedOut() | told.ModelRequestTimeout():
            return _failed(f"no answer in {TIMEOUT:.0f} s", "unreachable")
        case _:
            return _failed(str(failure) or type(failure).__name__)


def _failed(message: str, kind: str = "failed", reset: float | None = None) -> Told:
    return {"type": "failure", "kind": kind, "message": " ".join(message.split())[:MESSAGE_CHARS], "reset": reset}


if __name__ == "__main__":
    sys.exit(main())
