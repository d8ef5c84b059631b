"""From the data of a file to a flow."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from goalrun.core.flow.model import Flow
from goalrun.core.flow.plan import Where
from goalrun.core.flow.problems import Problem
from goalrun.errors import FlowError
from goalrun.flows.faults import faults
from goalrun.flows.lines import Lines, json_lines, line_at, toml_lines

MAX_SCHEMA_BYTES = 1_000_000
MAX_CODE_BYTES = 1_000_000
FUNCTION = re.compile(r"(?P<file>[\w./ -]+\.py):(?P<name>[A-Za-z_]\w*)")
"""How a step names a function."""
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def parse_flow(data: Mapping[str, Any], name: str, source: str = "", text: str = "") -> Flow:
    """The flow that data describe.

    Args:
        data: as it was read from TOML or JSON.
        name: what it is called unless it says so itself.
        source: its file, beside which schemas are; "" where there is none.
        text: what is in the file, for numbers of lines.

    Raises:
        FlowError: it is wrong in form; see ``core.flow.problems`` for the rest.
    """
    try:
        prepared = _prepared(data, name, source)
        found = list(_schemas(prepared, Path(source).parent if source else None))
        flow = _validated(prepared, found)
    except RecursionError as failure:
        raise FlowError(f"{source or name} is nested too deeply") from failure
    if flow is None or found:
        raise failed(located(found, source or name, lines_of(text, source, data)))
    return flow


def _validated(prepared: dict[str, Any], found: list[Problem]) -> Flow | None:
    try:
        return Flow.model_validate(prepared)
    except ValidationError as failure:
        found += faults(failure, prepared)
        return None


def failed(lines: list[str]) -> FlowError:
    """All that is wrong, as one error: the first line of it, and how many more there are."""
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return FlowError(f"{lines[0]}{more}", found=tuple(lines))


def located(found: Iterable[Problem], source: str, lines: Lines) -> list[str]:
    """Problems as lines of text: file, line, what, what to do; in the order of the file."""
    numbered = sorted((line_at(lines, problem.where), number, problem) for number, problem in enumerate(found))
    return [
        f"{source}:{line}: {problem.what}" + (f"; {problem.hint}" if problem.hint else "")
        for line, _, problem in numbered
    ]


def lines_of(text: str, source: str, data: Mapping[str, Any]) -> Lines:
    """Where in a file's text its steps and keys are."""
    if source.endswith(".json"):
        steps = data.get("step", data.get("steps"))
        ids = [str(step.get("id")) for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
        return json_lines(text, ids)
    return toml_lines(text)


def _prepared(data: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    """The data as the model names them."""
    flow = dict(data)
    if "step" in flow:
        flow["steps"] = flow.pop("step")
    inner = flow.get("flows")
    if isinstance(inner, dict):
        flow["flows"] = {
            key: _prepared(value, key, source) if isinstance(value, dict) else value for key, value in inner.items()
        }
    return {"name": name, **flow, "source": source, "code": _code(flow, source)}


def _code(flow: Mapping[str, Any], source: str) -> dict[str, str]:
    """What the Python files of a flow's steps say; what is wrong with them ``check_flow`` tells."""
    steps = flow.get("steps")
    found: dict[str, str] = {}
    for step in steps if isinstance(steps, list) and source else ():
        python = step.get("python") if isinstance(step, dict) else None
        if isinstance(python, str) and FUNCTION.fullmatch(python):
            name = python.rpartition(":")[0]
            with suppress(OSError, UnicodeDecodeError), (Path(source).parent / name).open("rb") as file:
                found[name] = file.read(MAX_CODE_BYTES).decode("utf-8-sig").replace("\r\n", "\n")
    return found


def _schemas(flow: dict[str, Any], folder: Path | None, at: Where = ()) -> Iterator[Problem]:
    """Put schemas in the place of their files' names; the problems with that."""
    steps = flow.get("steps")
    if isinstance(steps, list):
        flow["steps"] = steps = [dict(step) if isinstance(step, dict) else step for step in steps]
        for number, step in enumerate(steps):
            expect = step.get("expect") if isinstance(step, dict) else None
            if isinstance(expect, str) and expect not in {"json", "array"}:
                try:
                    step["expect"] = _schema(expect, folder)
                except (OSError, ValueError, RecursionError) as failure:
                    why = failure.strerror if isinstance(failure, OSError) else failure
                    what = f"step {step.get('id')!r}, expect: the schema {expect[:100]!r} cannot be used: {why}"
                    yield Problem((*at, "step", number, "expect"), what, 'or "json", "array", or a table')
    inner = flow.get("flows")
    for name, below in inner.items() if isinstance(inner, dict) else ():
        if isinstance(below, dict):
            yield from _schemas(below, folder, (*at, "flows", name))


def _schema(name: str, folder: Path | None) -> dict[str, Any]:
    if folder is None:
        raise ValueError("the flow is in no file, so there is nothing beside it")
    path = folder / name
    if path.stat().st_size > MAX_SCHEMA_BYTES or not path.is_file():
        raise ValueError(f"it is no file of at most {MAX_SCHEMA_BYTES} bytes")
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")  # noqa: TRY004 - what a file says, not a caller
    # Says which draft it is, and that it is a schema and no table of allowed values.
    return {"$schema": DRAFT, **value}
