"""A model that judges through its provider's API: what ``adapters.model_judge`` prints."""

import json
from typing import Literal

from goalrun.adapters.agents.said import Failure, Json, Output, Said, amount_at, at, count_at, text_at, tokens
from goalrun.core.evidence import one_line

_KINDS: tuple[Literal["limited", "refused", "unreachable"], ...] = ("limited", "refused", "unreachable")


def read_model(output: Output) -> Said:
    """What it says; the text is the reply as JSON."""
    last: Json = output.events[-1] if output.events else {}
    done = text_at(last, "type") == "result"
    return Said(
        text=json.dumps(at(last, "reply")) if done else "",
        model=text_at(last, "model"),
        usage=tokens(count_at(last, "usage", "input_tokens"), count_at(last, "usage", "output_tokens")),
        cached=count_at(last, "usage", "cached") or 0,
        failure=None if done else _failure(last, output.errors),
    )


def _failure(last: Json, errors: str) -> Failure:
    kind = next((known for known in _KINDS if known == text_at(last, "kind")), None)
    message = one_line(text_at(last, "message") or errors, 500) or "the model's client ended without a word"
    return Failure(kind or "failed", message, amount_at(last, "reset"))
