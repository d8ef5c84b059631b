"""Which flows there are, what each does, and whether it can run."""

from pathlib import Path
from typing import Any, Literal

from goalrun.cli.render import note, out, print_json
from goalrun.core.evidence import count, one_line, plain
from goalrun.core.flow.model import Flow
from goalrun.core.flow.outline import about, graph, mermaid, outline
from goalrun.core.flow.plan import edges, final_step, levels
from goalrun.core.value import JsonObject
from goalrun.errors import FlowError
from goalrun.flows.check import check_flow
from goalrun.flows.files import Folder, find_flows, load_flow, whole_flow
from goalrun.flows.goals import unwrapped
from goalrun.flows.parse import failed
from goalrun.settings import agents, load, shipped, user_file
from goalrun.wiring.session import workspace_here

WRONG = 2


def flow_folders(workspace: Path) -> tuple[Folder, ...]:
    """Where flows are; the project's win."""
    return (
        Folder("project", workspace / ".goalrun" / "flows"),
        Folder("user", user_file().parent / "flows"),
        Folder("shipped", Path(str(shipped("flows")))),
    )


def proven_flow(name: str) -> Flow:
    """A flow by its name or file, with nothing wrong in it and all that it uses inside.

    Raises:
        FlowError: there is none, or something is wrong.
    """
    workspace, _ = workspace_here()
    return proven(load_flow(name, flow_folders(workspace)), workspace)[0]


def proven(flow: Flow, workspace: Path) -> tuple[Flow, JsonObject]:
    """A flow that was read, with nothing wrong in it and all that it uses inside; and what a goal file gives it.

    Raises:
        FlowError: something is wrong.
    """
    folders = flow_folders(workspace)
    if found := check_flow(flow, agents(load(workspace).settings), folders):
        raise failed(found)
    inner, given = unwrapped(flow)
    source = str(Path(inner.source).absolute()) if inner.source else ""
    return whole_flow(inner.model_copy(update={"source": source}), folders), given


def listed(*, as_json: bool) -> int:
    """All flows that are found from here."""
    workspace, _ = workspace_here()
    folders = flow_folders(workspace)
    found = []
    for name, path, origin in find_flows(folders):
        try:
            said, broken = load_flow(name, folders).description, ""
        except FlowError as failure:
            said, broken = "", str(failure)
        found.append({"name": name, "origin": origin, "file": str(path), "description": said, "broken": broken or None})
    if as_json:
        print_json({"schema": 1, "flows": found})
        return 0
    width = max((len(str(each["name"])) for each in found), default=0)
    for each in found:
        told = f"broken: {each['broken']}" if each["broken"] else str(each["description"])
        out(f"{each['name']:<{width}}  {each['origin']:<7}  {one_line(told, 200)}".rstrip())
    note(
        "goalrun flow show NAME says what one does"
        if found
        else "there are none; put one into .goalrun/flows/NAME.toml"
    )
    return 0


def show(name: str, how: Literal["plan", "graph", "mermaid"], *, as_json: bool) -> int:
    """What a flow takes and does."""
    flow = proven_flow(name)
    if as_json:
        print_json(_described(flow))
        return 0
    if how != "plan":
        out("\n\n".join(plain(graph(each) if how == "graph" else mermaid(each)) for each in _all_of(flow)))
        return 0
    if flow.description:
        out(one_line(flow.description, 2_000))
    _print_plan(flow)
    for arg, given in flow.args.items():
        kind = [str(given.type)] if given.type else []
        kind += [f"one of {', '.join(map(str, given.enum))}"] if given.enum else []
        kind += [f"{key} {bound:g}" for key, bound in (("min", given.min), ("max", given.max)) if bound is not None]
        kind += ["required" if given.required else f"default {given.default}"]
        out(f"argument {arg} ({one_line(', '.join(kind), 200)}){': ' if given.help else ''}{one_line(given.help)}")
    note(f"from {flow.source}")
    return 0


def _print_plan(flow: Flow) -> None:
    out("\n\n".join(plain(outline(each)) for each in _all_of(flow)))


def _all_of(flow: Flow) -> list[Flow]:
    """The flow and all that it uses."""
    return [flow, *(used for inner in flow.flows.values() for used in _all_of(inner))]


def _described(flow: Flow) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": flow.name,
        "description": flow.description,
        "file": flow.source or None,
        "args": {name: arg.model_dump(mode="json") for name, arg in flow.args.items()},
        "steps": [
            {
                "id": name,
                "level": level + 1,
                "kind": flow.step(name).kind,
                "after": list(edges(flow.step(name))),
                "join": flow.step(name).join,
                "when": flow.step(name).when or None,
                "final": name == final_step(flow).id,
                "about": about(flow.step(name), flow),
            }
            for name, level in levels(flow).items()
        ],
    }


def check(name: str, *, as_json: bool) -> int:
    """All that is wrong with a flow, or its plan."""
    try:
        flow = proven_flow(name)
    except FlowError as failure:
        if as_json:
            print_json({"schema": 1, "ok": False, "problems": list(failure.found)})
            return WRONG
        if failure.found == (str(failure),):
            raise
        for line in failure.found:
            out(one_line(line, 1_000))
        note(f"{count(len(failure.found), 'problem')}; nothing was run")
        return WRONG
    if as_json:
        print_json({**_described(flow), "ok": True, "problems": []})
    else:
        _print_plan(flow)
        note("it can run; nothing was run")
    return 0
