"""Whether a flow can run: what the core finds, and what only files can tell."""

import ast
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from goalrun.core.flow.model import Flow
from goalrun.core.flow.plan import Where
from goalrun.core.flow.problems import Problem, problems
from goalrun.errors import FlowError
from goalrun.flows.files import Folder, named_flow, parse_text, read_text
from goalrun.flows.parse import FUNCTION, lines_of, located


def check_flow(flow: Flow, agents: Collection[str], folders: Sequence[Folder]) -> list[str]:
    """All that is wrong with a flow and those that it uses: file, line, what, and what to do; one line each.

    Args:
        flow: as it was read.
        agents: names that are known beside the flow's own.
        folders: where flows are that it may use.
    """
    found = [*problems(flow, agents, lambda name: named_flow(name, folders)), *_functions(flow, ())]
    sources = dict.fromkeys(problem.source for problem in found)
    return [line for source in sources for line in _told([p for p in found if p.source == source], source or flow.name)]


def _told(found: list[Problem], source: str) -> list[str]:
    path = Path(source)
    if path.suffix not in {".toml", ".json"}:
        return located(found, source, {})
    text = read_text(path)
    return located(found, source, lines_of(text, source, parse_text(text, path)))


def _functions(flow: Flow, at: Where) -> Iterator[Problem]:
    for number, step in enumerate(flow.steps):
        if step.python is not None and (why := _bad_function(step.python, Path(flow.source).parent)):
            yield Problem((*at, "step", number, "python"), f"step {step.id!r}, python: {why}", "", flow.source)
    for name, inner in flow.flows.items():
        yield from _functions(inner, (*at, "flows", name))


def _bad_function(python: str, folder: Path) -> str:
    """Why there is no such function, on one line; "" where there is. The file is read, not run."""
    match = FUNCTION.fullmatch(python)
    if match is None:
        return f"{python[:80]!r} is not file.py:function"
    try:
        tree = ast.parse(read_text(folder / match["file"]))
    except FlowError as failure:
        return str(failure)
    except (SyntaxError, ValueError, RecursionError) as failure:
        return f"{match['file']} is not valid Python: {failure}"
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return "" if match["name"] in names else f"{match['file']} has no function {match['name']!r}"
