"""What a gate's answer says: whether the flow goes on."""

import re
from typing import Literal, NamedTuple

from goalrun.core.flow.loose import find_json
from goalrun.core.value import Json

INSTRUCTION = (
    "End with one line that decides whether the work goes on: VERDICT: PASS, or, with the reason behind it, "
    "VERDICT: BLOCK"
)
"""Appended to a gate's prompt that does not mention VERDICT. An answer that only repeats it blocks: the last counts."""
UNCLEAR = "the answer holds no clear verdict"
MAX_REASON_CHARS = 2_000
_MARKS = r"[\s*_`\"']{0,20}"
_STATED = re.compile(
    rf"VERDICT{_MARKS}[:=]{_MARKS}(?P<word>PASS(?:ED)?|OK(?:AY)?|BLOCK(?:ED)?|FAIL(?:ED|URE)?|STOP(?:PED)?|"
    r"REJECT(?:ED)?|HALT(?:ED)?)(?![A-Za-z])(?=(?P<rest>[^\n]{0,2000}))",
    re.IGNORECASE,
)
_REASON = re.compile(r"^[ \t*_`]{0,20}REASON[ \t*_`]{0,20}[:=](?P<reason>[^\n]{0,2000})", re.IGNORECASE | re.MULTILINE)
_BLOCKS = re.compile(r"block|fail|stop|reject|halt", re.IGNORECASE)
_NO = frozenset({"no", "n", "reject"})
_PASSES = re.compile(r"[\s*_`]{0,20}(?:pass|ok|approve|accept|continue|proceed|lgtm|yes|go\b)", re.IGNORECASE)


class Verdict(NamedTuple):
    """Whether the flow goes on, and why; the reason may be empty."""

    go_on: bool
    reason: str


def read_verdict(text: str, on_unclear: Literal["block", "pass"] = "block") -> Verdict:
    """Read a gate's answer: JSON that decides, else the last ``VERDICT:`` in the text, else as ``on_unclear`` says."""
    found = _in_json(text) or _in_text(text)
    return found or Verdict(go_on=on_unclear == "pass", reason=UNCLEAR)


def refusal(text: str) -> str | None:
    """The reason in a person's answer that says no, "" where it gives none; None where it does not say no."""
    word, colon, reason = text.strip().partition(":")
    if word.strip().lower() == "no" and colon:
        return _line(reason)
    return "" if text.strip().lower() in _NO else None


def _in_json(text: str) -> Verdict | None:
    try:
        value = find_json(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    go_on = _decided(value)
    given = value.get("reason")
    return None if go_on is None else Verdict(go_on, _line(given) if isinstance(given, str) else "")


def _decided(value: dict[str, Json]) -> bool | None:
    for key in ("continue", "pass"):
        said = value.get(key)
        if isinstance(said, bool):
            return said
    verdict = value.get("verdict")
    if not isinstance(verdict, str):
        return None
    # A word of blocking outranks one of passing: "pass, but the tests fail".
    return False if _BLOCKS.search(verdict) else (True if _PASSES.match(verdict) else None)


def _in_text(text: str) -> Verdict | None:
    stated = list(_STATED.finditer(text))
    if not stated:
        return None
    last = stated[-1]
    reason = _line(last["rest"])
    if not reason:
        said = [match["reason"] for match in _REASON.finditer(text)]
        reason = _line(said[-1]) if said else ""
    return Verdict(go_on=last["word"].upper().startswith(("PASS", "OK")), reason=reason)


def _line(text: str) -> str:
    """One bounded line, without what separates it from the verdict."""
    line = " ".join(text[: 2 * MAX_REASON_CHARS].split())
    return re.sub(r"^[\s*_`\"'.,:;()|\u2013\u2014-]+|[\s*_`]+$", "", line)[:MAX_REASON_CHARS]
