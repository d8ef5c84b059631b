"""What a call is recognised by: its content, never its place."""

import hashlib
import json
from collections.abc import Iterable

from goalrun.core.value import Json


def call_key(kind: str, who: Json, prompt: str, rest: Json, tree: str) -> str:
    """The key of a call.

    Args:
        kind: agent or command.
        who: command line and model of the agent.
        prompt: all of it.
        rest: schema, arguments, environment.
        tree: what the files were; "" leaves them out.
    """
    return _digest([kind, who, prompt, rest, tree])


def tree_after(tree: str, needs: Iterable[tuple[str, str, str]]) -> str:
    """What stands for the files that a step begins with: those at first, and what each need (id, before, after) did.

    Not the files as they happen to be: those depend on which of its siblings are faster.
    """
    changed = sorted(need for need in needs if need[1] != need[2])
    return _digest([tree, [list(need) for need in changed]]) if changed else tree


def _digest(value: Json) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]
