"""JSON in what an agent says, which is often more than JSON."""

import json
import math
import re
from itertools import islice

from goalrun.core.value import Json

MAX_CHARS = 10_000_000
MAX_BLOCKS = 1_000
_LABEL = re.compile(r"\A[A-Za-z]\w*(?=\s)")
_LISTS = ("items", "results", "list", "data", "findings")
"""Keys under which an object may hold the list that is meant."""


def find_json(text: str) -> Json:
    """The JSON in a text: the whole, else a fenced block, else from the first bracket to the last that matches it.

    Every character is read at most three times, however the text is made.

    Raises:
        ValueError: there is none; the message is one line.
    """
    if len(text) > MAX_CHARS:
        raise ValueError(f"it has more than {MAX_CHARS} characters")
    blocks = (_LABEL.sub("", block) for block in text.split("```")[1::2] if block.strip())
    for candidate in (text, *islice(blocks, MAX_BLOCKS), _bracketed(text)):
        try:
            return _loads(candidate)
        except (ValueError, RecursionError):
            continue
    raise ValueError("it holds no JSON")


def _bracketed(text: str) -> str:
    start = min((at for at in (text.find("["), text.find("{")) if at >= 0), default=-1)
    if start < 0:
        return ""
    return text[start : text.rfind("]" if text[start] == "[" else "}") + 1]


def _loads(text: str) -> Json:
    value: Json = json.loads(text, parse_constant=_finite, parse_float=_finite)
    if "\\ud" in text or "\\uD" in text:
        # Half of a surrogate pair cannot be written to any file.
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number in JSON")
    return number


def items_of(value: Json | tuple[Json, ...]) -> list[Json]:
    """The elements that ``each`` goes through: a list's, or those of the list that an object holds.

    Text counts as the JSON in it.

    Raises:
        ValueError: there is no list; the message is one line.
    """
    if isinstance(value, str):
        value = find_json(value)
    if isinstance(value, dict):
        held = next((value[key] for key in _LISTS if isinstance(value.get(key), list)), None)
        if held is None:
            raise ValueError(f"it is an object without a list under {', '.join(_LISTS)}")
        value = held
    if not isinstance(value, list | tuple):
        raise ValueError(f"it is no list but {kind_of(value)}")  # noqa: TRY004 - what an agent said, not a caller
    return list(value)


def kind_of(value: Json | tuple[Json, ...]) -> str:
    """What a value is, in words."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return "text"
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list | tuple) else "a number"
