"""What an agent's output says, in our own words; and the output, bounded and taken apart."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from goalrun.core.model import Usage

Json = Mapping[str, Any]
MAX_BYTES = 8 << 20
"""More than the process door keeps of an output."""
_GAP = re.compile(rb"\n\[\.\.\. \d+ bytes left out \.\.\.\]\n")


class Failure(NamedTuple):
    """Why an agent did not do its work, by what it reports in its own fields.

    Attributes:
        kind: ``limited`` by the provider's quota or rate; ``refused`` its credentials; ``session`` the one to go on
            with is gone; ``unreachable`` the provider failed or could not be reached; ``failed`` anything else: the
            turn counts.
        message: the agent's own words.
        reset: when the limit ends, in seconds since the epoch; None where it does not say.
    """

    kind: Literal["limited", "refused", "session", "unreachable", "failed"]
    message: str
    reset: float | None = None


def unpaid(failure: Failure | None) -> bool:
    """Whether the provider has not even taken the request: such a one costs nothing."""
    return failure is not None and failure.kind in {"limited", "refused"}


class Said(NamedTuple):
    """One run of an agent, as its output tells it.

    Attributes:
        text: its final answer.
        session: what it calls the session, to go on with.
        usage: input tokens (cached ones included), output tokens, both together, USD; None each where it is silent.
        cached: how many of the input tokens were read from a cache, which makes them cheaper.
        cumulative: ``usage`` is of the whole session, not of this run.
        denials: tools that it was not allowed to use.
    """

    text: str = ""
    session: str = ""
    model: str = ""
    usage: Usage | None = None
    cached: int = 0
    cumulative: bool = False
    denials: tuple[str, ...] = ()
    failure: Failure | None = None


class Output(NamedTuple):
    """What an agent left.

    Attributes:
        events: the JSON objects on its standard output, one a line (or one array, or one object over many lines).
        text: all of its standard output that was kept.
        errors: the same of standard error.
        whole: nothing of standard output was left out; sums over events mean nothing otherwise.
        report: the JSON objects in the file that the agent was told to write (``{dir}/report``), if it did.
    """

    events: tuple[Json, ...]
    text: str
    errors: str
    exit_code: int
    whole: bool
    report: tuple[Json, ...] = ()


def read_output(stdout: Path, stderr: Path, report: Path, exit_code: int) -> Output:
    """Take an agent's output apart; nothing in it can make this fail."""
    raw = _bytes(stdout)
    errors = _bytes(stderr).decode("utf-8", "replace")
    text = raw.decode("utf-8", "replace")
    return Output(
        events=tuple(objects(raw)),
        text=text,
        errors=errors,
        exit_code=exit_code,
        whole=_GAP.search(raw) is None,
        report=tuple(objects(_bytes(report))),
    )


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError:
        return b""


def objects(raw: bytes) -> Iterator[Json]:
    """The JSON objects in an output; what is no JSON is skipped."""
    try:
        whole = json.loads(raw)
    except (ValueError, RecursionError):
        for line in raw.splitlines():
            if line.lstrip().startswith(b"{"):
                yield from _object(line)
        return
    yield from (item for item in (whole if isinstance(whole, list) else [whole]) if isinstance(item, dict))


def _object(line: bytes) -> Iterator[Json]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict):
        yield found


def last(output: Output, *kinds: str) -> Json | None:
    """The last event whose type is one of these."""
    return next((event for event in reversed(output.events) if event.get("type") in kinds), None)


def at(value: object, *keys: str | int) -> Any:  # noqa: ANN401 - whatever a JSON text holds
    """A place in a JSON value, or None."""
    for key in keys:
        if isinstance(value, Mapping) and isinstance(key, str):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
            value = value[key]
        else:
            return None
    return value


def text_at(value: object, *keys: str | int) -> str:
    """The text at a place; "" if there is none."""
    found = at(value, *keys)
    # Half of a character, as JSON can name one, could not be written down.
    return found.encode("utf-8", "replace").decode("utf-8") if isinstance(found, str) else ""


def count_at(value: object, *keys: str | int) -> int | None:
    """The count at a place; None if there is none, or it is none."""
    found = at(value, *keys)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < MOST else None


def amount_at(value: object, *keys: str | int) -> float | None:
    """The amount of money at a place; None if there is none."""
    found = at(value, *keys)
    number = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if number and 0 <= found < MOST else None


MOST = 1 << 53
"""No count of tokens, and no amount, is larger; what claims to be is no number."""


def tokens(taken: int | None, given: int | None, usd: float | None = None) -> Usage | None:
    """A usage of so many input and output tokens; None if neither those nor the cost are known."""
    if taken is None and given is None and usd is None:
        return None
    both = taken + given if taken is not None and given is not None else None
    return Usage(input_tokens=taken, output_tokens=given, total_tokens=both, usd=usd)
