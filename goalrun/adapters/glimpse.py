"""What a goal's folder tells of a turn under way, before the journal does: for people, and for nothing else."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from goalrun.adapters.files import write_whole
from goalrun.core.model import CheckResult
from goalrun.core.picture import spoken
from goalrun.errors import EnvironmentFailure

TAIL_BYTES = 16 << 10
HEAD_BYTES = 4 << 10
MAX_RESULT_BYTES = 1 << 20


class Glimpse(NamedTuple):
    """What was found.

    Attributes:
        lines: the worker's last ones, made safe to show, oldest first.
        checks: what came of the checks so far, by the goal's own numbers from 1; without the canary's proof.
        busy: name of the check's output that is written now, as in ``check-2`` or ``canary-1``; "" for none.
    """

    lines: tuple[str, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    busy: str = ""


def glimpse(turn: Path, most: int) -> Glimpse:
    """What the folder of a turn tells, with at most so many lines of the worker."""
    with suppress(OSError):
        return Glimpse(tuple(last_lines(turn, most)), tuple(_checks(turn)), _busy(turn))
    # It is not there yet, or is being removed.
    return Glimpse()


def last_lines(turn: Path, most: int) -> list[str]:
    """The last lines for people of whatever the turn's workers wrote to last."""
    outputs = [
        path
        for pattern in ("worker-*/std*", "flow-*/*/std*")
        for path in turn.glob(pattern)
        if path.name in {"stdout", "stderr"}
    ]
    written = [path for path in outputs if _size(path)]
    if not written or most < 1:
        return []
    text = _tail(max(written, key=_changed))
    return [line for line in map(spoken, text.splitlines()[-most * 4 :]) if line][-most:]


def head_of(path: Path, most: int) -> list[str]:
    """The first lines of a file, raw; none where there is no such file."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(HEAD_BYTES).decode("utf-8", "replace").splitlines()[:most]
    return []


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        data = file.read(TAIL_BYTES)
    first = data.find(b"\n")
    # The line that the cut goes through is left out, unless it is all there is.
    whole = data[first + 1 :] if size > TAIL_BYTES and 0 <= first < len(data) - 1 else data
    return whole.decode("utf-8", "replace")


def result_path(output: Path) -> Path:
    """Where the result of a check lies as soon as it is known: beside its output."""
    return output.with_suffix(".json")


def leave_result(output: Path, result: CheckResult) -> None:
    """Let people see what came of a check before the verification is over."""
    # The record of the verification has the last word; a disk that is full shows there.
    with suppress(EnvironmentFailure):
        write_whole(result_path(output), result.model_dump_json(), durable=False)


def _checks(turn: Path) -> Iterator[CheckResult]:
    """The results up to the first check that has none; of a check that was run twice, the newest."""
    newest = sorted((*turn.glob("check-*.json"), *turn.glob("pass-*/check-*.json")), key=_changed)
    by_name = {path.name: path for path in newest}
    for number in range(1, len(by_name) + 1):
        path = by_name.get(f"check-{number}.json")
        if path is None or _size(path) > MAX_RESULT_BYTES:
            return
        try:
            yield CheckResult.model_validate_json(path.read_bytes())
        except ValidationError:
            return


def _busy(turn: Path) -> str:
    outputs = [*turn.glob("*-*.out"), *turn.glob("pass-*/*.out"), *turn.glob("prepare.out")]
    return max(outputs, key=_changed).stem if outputs else ""


def _changed(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
