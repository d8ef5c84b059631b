"""goose: the JSON lines of ``goose run --output-format stream-json``; never run here, from its source.

Sources: aaif-goose/goose, pull requests 6228 (the events) and 8870 (the tokens).
"""

from goalrun.adapters.agents.said import Failure, Json, Output, Said, at, count_at, last, text_at, tokens
from goalrun.core.evidence import one_line

_TAIL = 4_000


def read_goose(output: Output) -> Said:
    """What a run says; the stream does not name its session. A failure has no kind: its words are free text."""
    end = last(output, "complete")
    model = last(output, "model_change")
    taken, given = count_at(end, "input_tokens"), count_at(end, "output_tokens")
    # A total alone is of the last call only: so it was before there were the other two.
    known = taken is not None and given is not None
    return Said(
        text=_text(output),
        model=text_at(model, "model"),
        usage=tokens(taken, given) if known else None,
        cumulative=True,
        failure=_failure(output, end),
    )


def _text(output: Output) -> str:
    """The last message of the assistant that asks for no tool; its parts come one by one, with the same id."""
    texts: dict[str | int, str] = {}
    asking: set[str | int] = set()
    for number, event in enumerate(output.events):
        if event.get("type") != "message" or at(event, "message", "role") != "assistant":
            continue
        name = text_at(event, "message", "id") or number
        found = at(event, "message", "content")
        for part in found if isinstance(found, list) else ():
            if text_at(part, "type") == "toolRequest":
                asking.add(name)
            elif text_at(part, "type") == "text":
                texts[name] = texts.get(name, "") + text_at(part, "text")
    spoken = [text for name, text in texts.items() if name not in asking]
    return spoken[-1] if spoken else ""


def _failure(output: Output, end: Json | None) -> Failure | None:
    error = last(output, "error")
    if error is not None:
        return Failure("failed", one_line(text_at(error, "error")[:_TAIL], 500) or "goose reports an error")
    if end is None:
        return Failure("failed", one_line(output.errors[-500:], 500) or "goose ended without its last event")
    return None
