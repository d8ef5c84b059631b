"""aider: its analytics log (``--analytics-log``), which stays on this machine, and what it prints; as in 0.86.2.

Its exit status is 0 whatever happens. Nothing that a model says is printed before the whole answer is there, so what
stands after the last answer is aider's own.
"""

import re

from goalrun.adapters.agents.mini import LITELLM
from goalrun.adapters.agents.said import Failure, Json, Output, Said, amount_at, count_at, text_at, tokens
from goalrun.core.evidence import one_line

_ANSWERED = re.compile(r"^Tokens: [\d.]+[kM]? sent, (?:[^\n]{0,80} )?[\d.]+[kM]? received\.[^\n]*", re.MULTILINE)
"""What it prints after each answer; the cost stands in the same line, or in the next."""
_BEGUN = re.compile(r"^Repo-map: .*(?:\nRestored previous conversation history\.)?$", re.MULTILINE)
"""What it prints last before the first one."""
_ERROR = re.compile(r"^litellm\.(\w+): ", re.MULTILINE)
_NOISE = "HTTPSConnectionPool("
"""Its attempts to fetch a list of prices."""
_TAIL = 20_000


def read_aider(output: Output) -> Said:
    """What a run says; there are no sessions. What a request that failed took is not in its usage."""
    starts = [each for each in output.report if each.get("event") == "message_send_starting"]
    sends = [each for each in output.report if each.get("event") == "message_send"]
    ended = any(each.get("event") == "exit" for each in output.report)
    model = text_at(sends[-1], "properties", "main_model") if sends else ""
    said = _spent(sends) if ended else Said()
    answer, rest = _apart(output.text)
    return said._replace(
        text=answer,
        model="" if model.endswith("REDACTED") else model,
        failure=None if ended and sends and len(starts) <= len(sends) else _failure(rest, output.errors, ended=ended),
    )


def _spent(sends: list[Json]) -> Said:
    taken = given = 0
    usd: float | None = 0.0
    for send in sends:
        some = count_at(send, "properties", "prompt_tokens")
        more = count_at(send, "properties", "completion_tokens")
        if some is None or more is None:
            return Said()
        cost = amount_at(send, "properties", "cost")
        # A model without a price costs 0, which is not what it costs.
        known = usd is not None and cost is not None and (cost > 0 or some + more == 0)
        usd = usd + cost if known and usd is not None and cost is not None else None
        taken, given = taken + some, given + more
    return Said(usage=tokens(taken, given, usd))


def _apart(text: str) -> tuple[str, str]:
    """The last answer, and what was printed after it."""
    begun = next((found.end() for found in _BEGUN.finditer(text)), 0)
    ends = list(_ANSWERED.finditer(text, begun))
    if not ends:
        return "", text[begun:]
    before = ends[-2].end() if len(ends) > 1 else begun
    lines = text[before : ends[-1].start()].splitlines()
    return "\n".join(line for line in lines if not line.startswith(_NOISE)).strip(), text[ends[-1].end() :]


def _failure(rest: str, errors: str, *, ended: bool) -> Failure:
    rest = rest[-_TAIL:]
    reports = list(_ERROR.finditer(rest))
    if reports:
        last = reports[-1]
        return Failure(LITELLM.get(last[1], "failed"), one_line(rest[last.start() :], 500))
    lines = [line for line in rest.splitlines() if line.strip() and not line.startswith(_NOISE)]
    told = (lines[-1] if lines else "aider got no answer") if ended else "aider did not come to an end"
    return Failure("failed", one_line(errors[-500:] or told, 500) or told)
