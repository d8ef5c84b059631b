"""Flow files: where they are, and what they say. TOML for people, JSON for programs, one form."""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from goalrun.core.flow.model import FLOW_NAME, Flow
from goalrun.errors import FlowError, meant
from goalrun.flows.functions import flows_in, function_flow
from goalrun.flows.goals import parse_goal_file
from goalrun.flows.parse import FUNCTION, parse_flow

MAX_FILE_BYTES = 5_000_000
SUFFIXES = (".toml", ".json")


class Folder(NamedTuple):
    """A folder of flows, and whose it is: ``project``, ``user`` or ``shipped``. Earlier ones win."""

    origin: str
    path: Path


class Found(NamedTuple):
    """A flow's file; its name is the file's without the suffix."""

    name: str
    path: Path
    origin: str


def find_flows(folders: Sequence[Folder]) -> list[Found]:
    """The flows in some folders by name, the first of each name; of equal ones TOML comes first."""
    found: dict[str, Found] = {}
    for origin, folder in folders:
        files = (
            sorted(folder.iterdir(), key=lambda path: (path.stem, path.suffix != ".toml")) if folder.is_dir() else []
        )
        for path in files:
            if path.suffix in SUFFIXES and FLOW_NAME.fullmatch(path.stem) and path.is_file():
                found.setdefault(path.stem, Found(path.stem, path, origin))
    return sorted(found.values())


def load_flow(name: str, folders: Sequence[Folder]) -> Flow:
    """A flow by its name, or by the path of its file, which has a suffix.

    Raises:
        FlowError: there is none, or its file is wrong.
    """
    if Path(name).suffix in SUFFIXES:
        return read_flow(Path(name))
    if FUNCTION.fullmatch(name):
        return function_flow(name)
    if not FLOW_NAME.fullmatch(name):
        raise FlowError(f"{name[:80]!r} is no name of a flow", hint="letters, digits, - and _; or a file.toml")
    flow = named_flow(name, folders)
    if flow is None:
        known = [each.name for each in find_flows(folders)]
        otherwise = f"known: {', '.join(known)}" if known else "put one into .goalrun/flows/NAME.toml"
        raise FlowError(f"there is no flow {name!r}", hint=meant(name, known, otherwise))
    return flow


def named_flow(name: str, folders: Sequence[Folder]) -> Flow | None:
    """The flow that has a name; None where there is none.

    Raises:
        FlowError: its file is wrong.
    """
    path = next((found.path for found in find_flows(folders) if found.name == name), None)
    if path is None:
        return None
    flow = read_flow(path)
    if flow.name != name:
        # A flow is called by its file: two names would make chains of calls hard to follow.
        raise FlowError(f"{path}: the flow is called {flow.name!r}, its file {name!r}", hint="rename one of them")
    return flow


def whole_flow(flow: Flow, folders: Sequence[Folder]) -> Flow:
    """The flow with every flow that its steps name inside it: by value, as a goal keeps it.

    Raises:
        FlowError: one is not there, or wrong.
    """
    inside = dict(flow.flows)
    rest = [(flow, frozenset(inside))]
    while rest:
        now, near = rest.pop()
        near |= now.flows.keys()
        rest += [(inner, near) for inner in now.flows.values()]
        asked = {step.flow for step in now.steps if step.flow is not None} | flows_in(now.code.values())
        for name in asked - near - inside.keys():
            inside[name] = load_flow(name, folders)
            rest.append((inside[name], near))
    return flow.model_copy(update={"flows": inside})


def read_flow(path: Path) -> Flow:
    """The flow in a file; of a goal file, its worker.

    Raises:
        FlowError: it cannot be read, or is wrong.
    """
    text = read_text(path)
    data = parse_text(text, path)
    if "goal" not in data:
        return parse_flow(data, path.stem, str(path), text)
    flow = parse_goal_file(data, str(path), text).flow
    if flow is None:
        raise FlowError(f"{path}: this goal's worker is no flow", hint=f"goalrun start -f {path}")
    return flow


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        FlowError: it is no file, too large, or not UTF-8.
    """
    try:
        if not path.is_file():
            raise FlowError(f"{path} is no file" if path.exists() else f"there is no file {path}")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as failure:
        raise FlowError(f"cannot read {path}: {failure.strerror}") from failure
    if len(data) > MAX_FILE_BYTES:
        raise FlowError(f"{path} is larger than {MAX_FILE_BYTES} bytes", hint="is it the right file?")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as failure:
        raise FlowError(f"{path} is not UTF-8 text (byte {failure.start})") from failure


def parse_text(text: str, path: Path) -> dict[str, Any]:
    """What a TOML or JSON text says.

    Raises:
        FlowError: it is neither.
    """
    try:
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except RecursionError as failure:
        raise FlowError(f"{path} is nested too deeply") from failure
    except ValueError as failure:
        at = re.search(r"line (\d+)", str(failure))
        said = re.sub(r" \(at line.*\)$|: line \d+.*$", "", str(failure))
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise FlowError(f"{path}:{at[1] if at else text.count(chr(10)) + 1}: not valid {kind}: {said}") from failure
    if not isinstance(data, dict):
        raise FlowError(f"{path}: a flow is an object")
    return data
