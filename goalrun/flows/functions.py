"""Functions in Python files, read and not run: a flow made of one, and the flows that its text names."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from goalrun.core.flow.model import Flow
from goalrun.flows.parse import parse_flow


def function_flow(name: str) -> Flow:
    """A flow of one step from ``FILE.py:FUNCTION``; its arguments are those that its text mentions, in order.

    Raises:
        FlowError: it cannot be made into one; see ``check_flow`` for what is wrong with the file.
    """
    file, _, function = name.rpartition(":")
    path = Path(file)
    step = {"id": function, "python": f"{path.name}:{function}"}
    flow = parse_flow({"step": [step]}, path.stem, str(path))
    args: dict[str, object] = {mentioned: {} for mentioned in _args_in(flow.code.get(path.name, ""))}
    return parse_flow({"step": [step], "args": args}, path.stem, str(path))


def flows_in(texts: Iterable[str]) -> set[str]:
    """The flows that some Python texts call by name, as in ``flow("review")``."""
    return {
        node.args[0].value
        for text in texts
        for node in _nodes(text)
        if isinstance(node, ast.Call) and _called(node.func) == "flow" and node.args
        if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    }


def _args_in(text: str) -> list[str]:
    """``args.NAME`` and ``args["NAME"]``, each once, in the order of the text."""
    found = []
    for node in _nodes(text):
        if isinstance(node, ast.Attribute) and _called(node.value) == "args" and not hasattr(dict, node.attr):
            found.append((node.lineno, node.col_offset, node.attr))
        elif isinstance(node, ast.Subscript) and _called(node.value) == "args":
            key = node.slice.value if isinstance(node.slice, ast.Constant) else None
            found += [(node.lineno, node.col_offset, key)] if isinstance(key, str) else []
    return list(dict.fromkeys(name for _, _, name in sorted(found)))


def _called(node: ast.expr) -> str:
    """The last part of a dotted name."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _nodes(text: str) -> Iterator[ast.AST]:
    try:
        yield from ast.walk(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError):
        # ``check_flow`` says so.
        return
