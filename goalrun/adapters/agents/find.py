"""An agent that somebody describes in TOML: where in its output each datum is.

A value that begins with ``$`` is a path over the JSON objects of its standard output, then of its report:
``$.result.text``, ``$.items[-1].x``. The last object that has the place counts, or with ``+`` in front the sum over
all of them. ``type=result: `` in front takes only objects whose ``type`` is ``result`` (keys may have dots). Anything
else is a regular expression over the text of standard output: the first group, or all, of its last match.

``limited`` and ``failed`` are told by a value that is there and not empty, false or 0; or, with ``$.status=429``, by
that value alone. ``reset`` is in seconds since the epoch, or ISO 8601 with an offset.
"""

import re
import warnings
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from goalrun.adapters.agents.said import MOST, Failure, Output, Said, at, tokens
from goalrun.core.evidence import one_line
from goalrun.core.model import Usage
from goalrun.errors import meant

COUNTS = ("input_tokens", "output_tokens", "total_tokens", "usd")
FLAGS = ("limited", "failed")
KEYS = ("text", "session", "model", *COUNTS, *FLAGS, "reset")
MAX_TEXT = 1 << 20
MAX_LINE = 10_000
"""What expressions get to see, in characters: the end of the text, the beginning of each line. It is hostile, and an
expression may take the square of that."""
MAX_FUTURE = 1e11
"""No limit ends later, in seconds since the epoch; what says so counts something else."""
_PATH = re.compile(
    r"(?:(?P<key>[\w.-]+)=(?P<wanted>[^:]*): )?(?P<sum>\+)?\$(?P<steps>(?:\.[\w-]+|\[-?\d{1,6}\])*)(?:=(?P<value>.*))?"
)
_LOOKS_LIKE_PATH = re.compile(r"(?:[\w.-]+=[^:]*: )?\+?\$")
_STEP = re.compile(r"\.([\w-]+)|\[(-?\d+)\]")
_NESTED = re.compile(r"(?<!\\)[+*}]\??\)(?:[+*]|\{\d*,)")
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")


class Path(NamedTuple):
    """Where in a JSON object something is; see the module."""

    key: tuple[str | int, ...]
    wanted: str
    steps: tuple[str | int, ...]
    sums: bool
    value: str | None


def bad_find(find: Mapping[str, str]) -> str:
    """Why a description is malformed; "" if it is fine."""
    for key, where in find.items():
        if key not in KEYS:
            otherwise = f"known: {', '.join(KEYS)}"
            return f"find.{key} is not known; {meant(key, KEYS, otherwise)}"
        if reason := _bad_path(key, where) if _LOOKS_LIKE_PATH.match(where) else _bad_pattern(where):
            return f"find.{key}: {reason}"
    return ""


def read_found(find: Mapping[str, str], output: Output) -> Said:
    """What an output says, by a description that ``bad_find`` has nothing against."""
    found = {key: _found(where, output) for key, where in find.items()}
    shown = {key: "".join(map(_shown, values[-1:])) for key, values in found.items()}
    taken, given, total, usd = (_number(found.get(key, [])) for key in COUNTS)
    told = tokens(_count(taken), _count(given), usd)
    both = told.total_tokens if told is not None else None
    total = _count(total) if _count(total) is not None else both
    return Said(
        text=shown["text"] if "text" in find else output.text,
        session=shown.get("session", ""),
        model=shown.get("model", ""),
        usage=None if told is None and total is None else Usage(**{**dict(told or {}), "total_tokens": total}),
        failure=_failure(found, output),
    )


def moment(value: object) -> float | None:
    """A time in seconds since the epoch, from a number, or from ISO 8601 with an offset; None if it is none."""
    text = _shown(value).strip()
    if _NUMBER.fullmatch(text):
        return float(text) if float(text) < MAX_FUTURE else None
    try:
        told = datetime.fromisoformat(text)
        return told.timestamp() if told.tzinfo else None
    except ValueError:
        return None


def _bad_path(key: str, where: str) -> str:
    path = _path(where)
    if path is None:
        return f"{where!r} is no path; write $.name, $.name[0].other, or type=result: $.name"
    if path.sums and key not in COUNTS:
        return "only numbers can be summed with +"
    return "" if path.value is None or key in FLAGS else f"only {' and '.join(FLAGS)} are compared with ="


def _bad_pattern(where: str) -> str:
    try:
        with warnings.catch_warnings():
            # Python warns of what it will read in another way some day; nobody should have to see that in each turn.
            warnings.simplefilter("error")
            re.compile(where)
    except (re.error, OverflowError, RecursionError, Warning) as failure:
        return f"{where!r} is no regular expression: {failure}"
    return f"{where!r} repeats a repetition, which can take for ever" if _NESTED.search(where) else ""


def _path(where: str) -> Path | None:
    parsed = _PATH.fullmatch(where)
    if parsed is None:
        return None
    steps = tuple(name or int(number) for name, number in _STEP.findall(parsed["steps"]))
    key = tuple((parsed["key"] or "").split(".")) if parsed["key"] else ()
    return Path(key, parsed["wanted"] or "", steps, parsed["sum"] is not None, parsed["value"])


def _found(where: str, output: Output) -> list[object]:
    """What is there: the last one, or with ``+`` every one; nothing if there is nothing."""
    path = _path(where)
    if path is None:
        text = "\n".join(line[:MAX_LINE] for line in output.text[-MAX_TEXT:].split("\n"))
        return [match[1] if match.re.groups else match[0] for match in deque(re.finditer(where, text), maxlen=1)]
    if path.sums and not output.whole:
        return []
    objects = [*output.events, *output.report]
    taken = [each for each in objects if not path.key or _shown(at(each, *path.key)) == path.wanted]
    there = [value for each in taken if (value := at(each, *path.steps)) is not None]
    last = there if path.sums else there[-1:]
    return last if path.value is None else [_shown(value) == path.value for value in last]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else ""


def _number(values: list[object]) -> float | None:
    """Their sum; None if there are none, or one is no number. In text, thousands may be apart and money marked."""
    numbers: list[float] = []
    for value in values:
        text = value.strip().lstrip("$").replace(",", "").replace("_", "") if isinstance(value, str) else ""
        number = float(text) if _NUMBER.fullmatch(text) else value
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < MOST:
            return None
        numbers.append(number)
    return sum(numbers) if numbers else None


def _count(number: float | None) -> int | None:
    return int(number) if number is not None and number == int(number) else None


def _failure(found: Mapping[str, list[object]], output: Output) -> Failure | None:
    for key in FLAGS:
        last = found.get(key, [])[-1:]
        if last and last[0]:
            told = last[0] if isinstance(last[0], str) else output.errors[-4_000:]
            message = one_line(told[:4_000], 500) or f"its output says {key}"
            reset = moment(found["reset"][-1]) if found.get("reset") else None
            return Failure("limited", message, reset) if key == "limited" else Failure("failed", message)
    return None
